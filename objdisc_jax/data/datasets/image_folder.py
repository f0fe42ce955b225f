"""Any folder of pictures, of any sizes and kinds, without masks: your own data.

Subfolders are searched, too. The largest box of the model's proportions in the middle of each
picture is brought to the model's size, with antialiasing. The names of pictures decide into which
split they go.
"""

import re
import zlib
from collections.abc import Mapping

import ml_collections
import numpy as np

from objdisc_jax.data.config import shared_config, shared_fields
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.folder import FolderReader, Names
from objdisc_jax.data.pictures import SUFFIXES


def default_config() -> ml_collections.ConfigDict:
    """Returns the pictures of a folder; eight tenths of them are for training."""
    config = shared_config("image_folder", path="data/images")
    # Rows and columns to which pictures are brought; an experiment sets it to the model's.
    config.resolution = (128, 128)
    return config


def declare(config: ml_collections.ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    return DatasetDeclaration(
        **shared_fields(config),
        reader=ImageFolderReader,
        fields={"image": f"(?i:.+({'|'.join(map(re.escape, SUFFIXES))}))"},
        image_size=None,
        resize=tuple(config.resolution),
        splits=_splits(1_000_000),  # shares; the folder says how many there are
        has_masks=False,
        download_command=f"cp -r YOUR_PICTURES {config.path}",
    )


def _splits(num_images: int) -> dict[str, range]:
    tenth = max(1, num_images // 10)
    return {
        "train": range(0, num_images - 2 * tenth),
        "val": range(num_images - 2 * tenth, num_images - tenth),
        "test": range(num_images - tenth, num_images),
    }


class ImageFolderReader(FolderReader):
    """Reads all pictures in a folder and below."""

    def arrange(self, names: Names) -> tuple[Names, Mapping[str, range]]:
        """Puts the pictures into the order of the checksums of their paths."""
        if len(names) < 3:
            raise DataError(
                f"The folder {self.declaration.absolute_path} has {len(names)} picture(s), but "
                "training, validation and test need at least one each. Add pictures."
            )
        # An order that the names alone decide: more pictures hardly move the others.
        order = np.argsort([zlib.crc32(name) for name in names.tolist()], kind="stable")
        return names[order], _splits(len(names))
