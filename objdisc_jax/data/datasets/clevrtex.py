"""ClevrTex: 240x320 images of three to ten textured objects, with segmentations.

Read from the published folders, or those that `data_scripts/render_clevrtex.py` makes
(`clevrtex_full/0/CLEVRTEX_full_000000.png`, ...), wherever they lie below the data folder.
Splits are those of the authors, by position in the order of the images' numbers: the first tenth
is for the test, the next for validation. Crop (the true centre) and resizing are theirs, too:
Pillow, bilinear with antialiasing.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Int64
from ml_collections import ConfigDict
from PIL import Image
from tqdm.contrib.concurrent import thread_map

from objdisc_jax.data import cache
from objdisc_jax.data.config import check_choice, shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.examples import Example, save_image, writer
from objdisc_jax.data.folder import FolderReader, Names
from objdisc_jax.data.splits import scaled_splits

SIZE = (240, 320)
PALETTE = [0, 0, 0, 255, 0, 0, 0, 128, 0, 0, 0, 255, 255, 255, 0, 141, 211, 199, 255, 255, 179]
"""Of the published masks (other sets differ in nothing but the indices)."""
NUM_IMAGES = {"full": 50_000, "outd": 10_000}
NUM_IMAGES |= dict.fromkeys(("pbg", "vbg", "grassbg", "camo"), 20_000)


def default_config() -> ConfigDict:
    """Returns the variant `full`."""
    config = shared_config("clevrtex", path="data/clevrtex")
    # full | pbg (plain background) | vbg (plain objects) | grassbg | camo | outd. The last, other
    # shapes and materials, has a test split alone.
    config.variant = "full"
    # Rows and columns to which images are brought; an experiment sets it to the model's.
    config.resolution = (128, 128)
    # Rows and columns of the stored images; rendered ones may be smaller, for small models.
    config.image_size = SIZE
    return config


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    variant = check_choice(config, "variant", NUM_IMAGES)
    splits = {"test": range(NUM_IMAGES[variant])}
    if variant != "outd":
        tenth = NUM_IMAGES[variant] // 10
        val, train = range(tenth, 2 * tenth), range(2 * tenth, 10 * tenth)
        splits = {"train": train, "val": val, "test": range(tenth)}
    return DatasetDeclaration(
        **shared_settings(config),
        reader=ClevrTexReader,
        sources={"image": rf"CLEVRTEX_{variant}_\d{{6}}\.png"},
        image_size=SIZE,
        crop=((24, 216), (64, 256)),
        resize=tuple(config.resolution),
        splits=splits,
        num_entities=11,
        largest_num_objects=10,
        download_command=f"bash data_scripts/download_clevrtex.sh {variant}",
        generate_command=(
            f"python data_scripts/render_clevrtex.py --variant {variant} --output {config.path}"
        ),
    ).at_size(config.image_size)


class ClevrTexReader(FolderReader):
    """Reads images and, of the same name, palette masks and scene files."""

    def arrange(self, names: Names) -> tuple[Names, Mapping[str, range]]:
        """Puts the images into the order of their numbers."""
        declared = self.declaration
        files = np.array([os.path.basename(name) for name in names.tolist()])
        order = np.argsort(files, kind="stable")
        twice = np.flatnonzero(files[order][1:] == files[order][:-1])
        if len(twice):
            first, second = map(os.fsdecode, names[order[twice[0] :][:2]].tolist())
            raise DataError(
                f"The folder {declared.absolute_path} has the same image twice: {first} and "
                f"{second}. Remove one copy of the data set from it, or name one copy's folder "
                "with --config.data.path."
            )
        published = max(split.stop for split in declared.splits.values())
        if len(names) != published:
            logging.warning(
                "%s holds %d of the %d published images; the splits are tenths of those.",
                declared.absolute_path,
                len(names),
                published,
            )
        return names[order], scaled_splits(declared.splits, len(names))

    def segmentation_file(self, image: Path) -> Path:
        """Returns the file with an image's segmentation."""
        return image.with_name(f"{image.stem}_flat.png")

    def object_counts(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the number of objects in each record, background not counted."""
        key = (str(self.declaration.absolute_path), self.declaration.source("image"))
        return cache.cached_while(
            ("ClevrTex object counts", *key), self.times(), self._read_object_counts
        )[records]

    def _read_object_counts(self) -> Int64[np.ndarray, " n"]:
        """Reads all scene files, many at a time."""

        def count(record: int) -> int:
            file = self.path(record).with_suffix(".json")
            try:
                return int(json.loads(file.read_bytes())["num_objects"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"The scene file {file} cannot be read ({error!r}). Restore it, or leave out "
                    "--config.data.max_objects, which needs it."
                ) from error

        records = range(len(self.names()))
        options = {"max_workers": 16, "desc": "counting objects", "unit": " scenes"}
        return np.array(thread_map(count, records, **options), np.int64)


def _write(declaration: DatasetDeclaration, example: Example) -> Example:
    """Writes RGBA images, palette masks, another layer and scene files, in numbered folders."""
    variant = declaration.source("image").split("_")[1]
    for record, image in enumerate(example.image):
        stem = f"clevrtex_{variant}/{record // 10}/CLEVRTEX_{variant}_{record:06d}"
        path = declaration.absolute_path / stem
        save_image(path.with_suffix(".png"), image, mode="RGBA")
        save_image(path.with_name(f"{path.name}_albedo_0001.png"), image[:6, :8])
        mask = Image.fromarray(example.segmentation[record])
        mask.putpalette(PALETTE)
        mask.save(path.with_name(f"{path.name}_flat.png"))
        scene = {"num_objects": int(example.num_objects[record]), "objects": []}
        path.with_suffix(".json").write_text(json.dumps(scene))
    return example


write_example = writer(default_config, declare, _write)
