"""CLEVR v1.0: 320x480 images of three to ten objects, with scene files but without masks.

Read from the published folders. The crop is the region that the usual crop of CLEVR with masks
shows: these images have 1.5 times its resolution and 20 rows less at the top and the bottom.
There is no scene file for the test images, so they cannot be chosen by their objects.
"""

import json
import os
from collections.abc import Mapping

import ml_collections
import numpy as np
from jaxtyping import Int64
from PIL import Image

from objdisc_jax.data import cache, examples
from objdisc_jax.data.config import shared_config, shared_fields
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.folder import FolderReader, Names, by_subfolder
from objdisc_jax.data.splits import consecutive

SPLITS = consecutive(train=70_000, val=15_000, test=15_000)


def default_config() -> ml_collections.ConfigDict:
    """Returns all 100,000 images."""
    config = shared_config("clevr_v1", path="data/CLEVR_v1.0")
    # The published code cut the box of CLEVR with masks, rows 29 to 221 and columns 64 to 256,
    # out of these larger images: a region up and left of the centre. True repeats that.
    config.published_crop = False
    return config


def declare(config: ml_collections.ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    return DatasetDeclaration(
        **shared_fields(config),
        reader=ClevrReader,
        sources={"image": r"CLEVR_(train|val|test)_\d{6}\.png"},
        image_size=(320, 480),
        crop=((29, 221), (64, 256)) if config.published_crop else ((24, 312), (96, 384)),
        splits=SPLITS,
        has_masks=False,
        largest_num_objects=10,
        download_command="bash data_scripts/download_clevr.sh",
    )


class ClevrReader(FolderReader):
    """Reads `images/{train,val,test}` and, for the numbers of objects, `scenes`."""

    def arrange(self, names: Names) -> tuple[Names, Mapping[str, range]]:
        """Puts training before validation before test images."""
        return by_subfolder(names, {split: f"images/{split}" for split in SPLITS})

    def object_counts(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the number of objects in each record, background not counted."""
        counts = np.zeros(len(records), np.int64)
        for split, members in self.splits().items():
            inside = (records >= members.start) & (records < members.stop)
            if inside.any():
                counts[inside] = self._counts_of(split, self.names()[records[inside]])
        return counts

    def _counts_of(self, split: str, names: Names) -> Int64[np.ndarray, " n"]:
        """Looks up images of one split in its scene file."""
        file = self.declaration.folder() / "scenes" / f"CLEVR_{split}_scenes.json"
        if not file.is_file():
            raise DataError(
                f"There is no scene file {file}, so the images of split '{split}' cannot be "
                "chosen by their objects"
                + (" (the published data has none for test)" if split == "test" else "")
                + ". Use another split, or leave out --config.data.max_objects."
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

        scenes = cache.cached_for_file(("CLEVR scenes",), file, read)
        known = dict(zip(scenes["name"].tolist(), scenes["num_objects"].tolist(), strict=True))
        try:
            return np.array([known[os.path.basename(name)] for name in names.tolist()], np.int64)
        except KeyError as error:
            raise DataError(
                f"The scene file {file} has no scene of the image {error.args[0].decode()}. "
                f"{self.declaration.how_to_fix()}"
            ) from None


def _write(declaration: DatasetDeclaration, num_images: int) -> examples.Example:
    """Writes RGBA images in three folders, and scene files for two of them."""
    example = examples.draw(declaration, num_images)
    scene_folder = declaration.absolute_path / "scenes"
    scene_folder.mkdir(parents=True)
    for split, records in example.splits.items():
        folder = declaration.absolute_path / "images" / split
        folder.mkdir(parents=True)
        scenes = []
        for number, record in enumerate(records):
            name = f"CLEVR_{split}_{number:06d}.png"
            Image.fromarray(example.image[record]).convert("RGBA").save(folder / name)
            objects = [{"shape": "cube"}] * int(example.num_objects[record])
            scenes.append({"image_index": number, "image_filename": name, "objects": objects})
        if split != "test":
            scene_file = scene_folder / f"CLEVR_{split}_scenes.json"
            scene_file.write_text(json.dumps({"info": {"split": split}, "scenes": scenes}))
    return example


write_example = examples.writer(default_config, declare, _write)
