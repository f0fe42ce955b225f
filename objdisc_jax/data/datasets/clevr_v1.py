"""CLEVR v1.0: 320x480 images of three to ten objects, with scene files but without masks.

Read from the published folders. The crop is the region that the usual crop of CLEVR with masks
shows: these images have 1.5 times its resolution and 20 rows less at the top and the bottom.
There is no scene file for the test images, so they cannot be chosen by their objects.
"""

import json
import os

import numpy as np
from jaxtyping import Int64
from ml_collections import ConfigDict

from objdisc_jax.data import cache
from objdisc_jax.data.config import shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.examples import Example, save_image, writer
from objdisc_jax.data.folder import FolderReader
from objdisc_jax.data.splits import consecutive

SPLITS = consecutive(train=70_000, val=15_000, test=15_000)


def default_config() -> ConfigDict:
    """Returns all 100,000 images."""
    config = shared_config("clevr_v1", path="data/CLEVR_v1.0")
    # The published code cut the box of CLEVR with masks, rows 29 to 221 and columns 64 to 256,
    # out of these larger images: a region up and left of the centre. True repeats that.
    config.published_crop = False
    return config


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    return DatasetDeclaration(
        **shared_settings(config),
        reader=ClevrReader,
        sources={
            "image": r"CLEVR_(train|val|test)_\d{6}\.png",
            **{split: f"images/{split}" for split in SPLITS},
        },
        image_size=(320, 480),
        crop=((29, 221), (64, 256)) if config.published_crop else ((24, 312), (96, 384)),
        splits=SPLITS,
        has_masks=False,
        largest_num_objects=10,
        download_command="bash data_scripts/download_clevr.sh",
    )


class ClevrReader(FolderReader):
    """Reads `images/{train,val,test}` and, for the numbers of objects, `scenes`."""

    def object_counts(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the number of objects in each record, background not counted."""
        counts: dict[bytes, int] = {}
        for split, members in self.splits().items():
            if np.isin(records, members).any():
                counts |= self._counts_of(split)
        names = [os.path.basename(name) for name in self.names()[records].tolist()]
        if lacking := [name for name in names if name not in counts]:
            raise DataError(
                f"The folder {self.declaration.absolute_path / 'scenes'} has no scene of the image "
                f"{lacking[0].decode()}. {self.declaration.how_to_fix()}"
            )
        return np.array([counts[name] for name in names], np.int64)

    def _counts_of(self, split: str) -> dict[bytes, int]:
        """Returns the number of objects in each image of a scene file, by the image's name."""
        file = self.declaration.absolute_path / "scenes" / f"CLEVR_{split}_scenes.json"
        if not file.is_file():
            raise DataError(
                f"There is no scene file {file} (the published data has none for test), so the "
                f"images of split '{split}' cannot be chosen by their objects. Use another split, "
                "or leave out --config.data.max_objects."
            )

        def read() -> np.ndarray:
            try:
                scenes = json.loads(file.read_bytes())["scenes"]
                found = [(scene["image_filename"], len(scene["objects"])) for scene in scenes]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"The scene file {file} cannot be read ({error!r}). "
                    f"{self.declaration.how_to_fix()}"
                ) from error
            return np.array(found, [("name", "S64"), ("num_objects", np.int64)])

        return dict(cache.cached_for_file(("CLEVR scenes",), file, read).tolist())


def _write(declaration: DatasetDeclaration, example: Example) -> Example:
    """Writes RGBA images in three folders, and scene files for two of them."""
    (declaration.absolute_path / "scenes").mkdir(parents=True)
    for split, records in example.splits.items():
        scenes = []
        for number, record in enumerate(records):
            name = f"CLEVR_{split}_{number:06d}.png"
            path = declaration.absolute_path / "images" / split / name
            save_image(path, example.image[record], mode="RGBA")
            objects = [{"shape": "cube"}] * int(example.num_objects[record])
            scenes.append({"image_index": number, "image_filename": name, "objects": objects})
        if split != "test":
            file = declaration.absolute_path / "scenes" / f"CLEVR_{split}_scenes.json"
            file.write_text(json.dumps({"info": {"split": split}, "scenes": scenes}))
    return example


write_example = writer(default_config, declare, _write)
