"""ClevrTex: 240x320 pictures of three to ten textured objects, with segmentations.

Read from the published folders, or those that `data_scripts/render_clevrtex.py` makes
(`clevrtex_full/0/CLEVRTEX_full_000000.png`, ...), wherever they lie below the data folder.
Splits are those of the authors, by position in the order of the
pictures' numbers: the first tenth is for the test, the next for validation. Crop (the true centre)
and resizing are theirs, too: Pillow, bilinear with antialiasing.
"""

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_collections
import numpy as np
from absl import logging
from jaxtyping import Int64
from tqdm import tqdm

from objdisc_jax.data import cache
from objdisc_jax.data.config import check_choice, shared_config, shared_fields, size_fields
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.folder import FolderReader, Names
from objdisc_jax.data.splits import scaled_splits

SIZE = (240, 320)
NUM_IMAGES = {
    "full": 50_000,
    "pbg": 20_000,
    "vbg": 20_000,
    "grassbg": 20_000,
    "camo": 20_000,
    "outd": 10_000,
}


def default_config() -> ml_collections.ConfigDict:
    """Returns the variant `full`."""
    config = shared_config("clevrtex", path="data/clevrtex")
    # full | pbg (plain background) | vbg (plain objects) | grassbg | camo | outd. The last, other
    # shapes and materials, has a test split alone.
    config.variant = "full"
    # Rows and columns to which pictures are brought; an experiment sets it to the model's.
    config.resolution = (128, 128)
    # Rows and columns of the stored pictures; rendered ones may be smaller, for small models.
    config.image_size = SIZE
    return config


def declare(config: ml_collections.ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    variant = check_choice(config, "variant", tuple(NUM_IMAGES))
    return DatasetDeclaration(
        **shared_fields(config),
        **size_fields(
            config,
            SIZE,
            ((24, 216), (64, 256)),
            f"bash data_scripts/download_clevrtex.sh {variant}",
            f"python data_scripts/render_clevrtex.py --variant {variant} --output {config.path}",
        ),
        reader=ClevrTexReader,
        fields={"image": rf"CLEVRTEX_{variant}_\d{{6}}\.png"},
        resize=tuple(config.resolution),
        splits=_splits(variant, NUM_IMAGES[variant]),
        num_entities=11,
        largest_num_objects=10,
    )


def _splits(variant: str, num_images: int) -> dict[str, range]:
    if variant == "outd":
        return {"test": range(num_images)}
    tenth = num_images // 10
    return {
        "train": range(2 * tenth, num_images),
        "val": range(tenth, 2 * tenth),
        "test": range(tenth),
    }


class ClevrTexReader(FolderReader):
    """Reads pictures and, of the same name, palette masks and scene files."""

    def arrange(self, names: Names) -> tuple[Names, Mapping[str, range]]:
        """Puts the pictures into the order of their numbers."""
        files = np.array([os.path.basename(name) for name in names.tolist()])
        order = np.argsort(files, kind="stable")
        twice = np.flatnonzero(files[order][1:] == files[order][:-1])
        if len(twice):
            first, second = map(os.fsdecode, names[order[twice[0] :][:2]].tolist())
            raise DataError(
                f"The folder {self.declaration.absolute_path} has the same picture twice: {first} "
                f"and {second}. Remove one copy of the data set from it, or name one copy's folder "
                "with --config.data.path."
            )
        published = max(split.stop for split in self.declaration.splits.values())
        if len(names) != published:
            logging.warning(
                "%s holds %d of the %d published pictures; the splits are tenths of those.",
                self.declaration.absolute_path,
                len(names),
                published,
            )
        return names[order], scaled_splits(self.declaration.splits, len(names))

    def segmentation_file(self, picture: Path) -> Path:
        """Returns the file with a picture's segmentation."""
        return picture.with_name(f"{picture.stem}_flat.png")

    def object_counts(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the number of objects in each record, background not counted."""
        times = self.times()

        def compute() -> cache.Arrays:
            return {"times": times, "num_objects": self._read_object_counts()}

        def is_current(arrays: cache.Arrays) -> bool:
            return np.array_equal(arrays["times"], times)

        key = ("ClevrTex object counts", str(self.declaration.absolute_path))
        key = (*key, self.declaration.fields["image"])
        return cache.cached(key, compute, is_current)["num_objects"][records]

    def _read_object_counts(self) -> Int64[np.ndarray, " n"]:
        """Reads all scene files, many at a time."""
        root = os.fsencode(self.declaration.absolute_path)

        def count(name: bytes) -> int:
            file = os.fsdecode(os.path.join(root, name)).removesuffix(".png") + ".json"
            try:
                with open(file, "rb") as scene:
                    return int(json.loads(scene.read())["num_objects"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"The scene file {file} cannot be read ({error!r}). Restore it, or leave out "
                    "--config.data.max_objects, which needs it."
                ) from error

        names = self.names().tolist()
        with ThreadPoolExecutor(16) as threads:
            counts = threads.map(count, names)
            progress = tqdm(counts, "counting objects", len(names), unit=" scenes")
            try:
                return np.fromiter(progress, np.int64, len(names))
            except DataError:
                threads.shutdown(cancel_futures=True)
                raise
