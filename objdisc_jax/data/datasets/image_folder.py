"""Any folder of images, of any sizes and kinds, without masks: your own data.

Subfolders are searched, too: the images are those that `predict` finds. The largest box of the
model's proportions in the middle of each image is brought to the model's size, with antialiasing.
The names of images decide into which split they go.
"""

import dataclasses
import zlib
from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict, config_dict

from objdisc_jax.data import images
from objdisc_jax.data.config import shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.examples import Example, save_image, writer
from objdisc_jax.data.folder import FolderReader, Names
from objdisc_jax.data.splits import consecutive, scaled_splits


def default_config() -> ConfigDict:
    """Returns the images of a folder; eight tenths of them are for training."""
    config = shared_config("image_folder", path="data/images")
    # Rows and columns to which images are brought; an experiment sets it to the model's.
    config.resolution = (128, 128)
    # Red, green and blue, 0 to 255, on which transparent images are composited.
    config.matte = (0, 0, 0)
    # Images of more pixels are bad images; None: those of more than 178,956,970, Pillow's limit.
    config.max_pixels = config_dict.placeholder(int)
    return config


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    matte = tuple(config.matte)
    if len(matte) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in matte):
        raise DataError(
            f"data.matte: got {matte}; it is red, green and blue, whole numbers from 0 to 255."
        )
    return DatasetDeclaration(
        **shared_settings(config),
        reader=ImageFolderReader,
        sources={"image": images.NAMES},
        image_size=None,
        resize=tuple(config.resolution),
        splits=consecutive(train=8, val=1, test=1),  # shares; the folder says how many there are
        has_masks=False,
        read_options=images.ReadOptions(matte, config.max_pixels),
        download_command=f"cp -r YOUR_IMAGES {config.path}",
    )


class ImageFolderReader(FolderReader):
    """Reads all images in a folder and below."""

    skips_unreadable = True  # a disk has folders that are the system's alone

    def arrange(self, names: Names) -> tuple[Names, Mapping[str, range]]:
        """Puts the images into the order of the checksums of their paths."""
        if len(names) < 3:
            raise DataError(
                f"The folder {self.declaration.absolute_path} has {len(names)} image(s), but "
                "training, validation and test need at least one each. Add images."
            )
        # An order that the names alone decide: more images hardly move the others.
        order = np.argsort([zlib.crc32(name) for name in names.tolist()], kind="stable")
        return names[order], scaled_splits(self.declaration.splits, len(names))


def _write(declaration: DatasetDeclaration, example: Example) -> Example:
    """Writes images of two kinds in numbered folders, and another file beside them."""
    names = []
    for i, image in enumerate(example.image):
        names.append(f"{i // 10}/image {i % 10}{'.BMP' if i % 2 else '.png'}")
        save_image(declaration.absolute_path / names[i], image)
    (declaration.absolute_path / "notes.txt").touch()
    order = sorted(range(len(names)), key=lambda i: (zlib.crc32(names[i].encode()), names[i]))
    return dataclasses.replace(example, image=example.image[order])


write_example = writer(default_config, declare, _write)
