"""ClevrTex: 240x320 images of three to ten textured objects, with segmentations.

Read from the published folders, or those that `data_scripts/render_clevrtex.py` makes
(`clevrtex_full/0/CLEVRTEX_full_000000.png`, ...), wherever they lie below the data folder.
Splits are those of the authors, by position in the order of the
images' numbers: the first tenth is for the test, the next for validation. Crop (the true centre)
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
from PIL import Image
from tqdm import tqdm

from objdisc_jax.data import cache, examples
from objdisc_jax.data.config import check_choice, shared_config, shared_fields, size_fields
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.folder import FolderReader, Names
from objdisc_jax.data.splits import scaled_splits

SIZE = (240, 320)
PALETTE = [0, 0, 0, 255, 0, 0, 0, 128, 0, 0, 0, 255, 255, 255, 0, 141, 211, 199, 255, 255, 179]
"""Of the published masks (other sets differ in nothing but the indices)."""
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
    # Rows and columns to which images are brought; an experiment sets it to the model's.
    config.resolution = (128, 128)
    # Rows and columns of the stored images; rendered ones may be smaller, for small models.
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
        sources={"image": rf"CLEVRTEX_{variant}_\d{{6}}\.png"},
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
    """Reads images and, of the same name, palette masks and scene files."""

    def arrange(self, names: Names) -> tuple[Names, Mapping[str, range]]:
        """Puts the images into the order of their numbers."""
        files = np.array([os.path.basename(name) for name in names.tolist()])
        order = np.argsort(files, kind="stable")
        twice = np.flatnonzero(files[order][1:] == files[order][:-1])
        if len(twice):
            first, second = map(os.fsdecode, names[order[twice[0] :][:2]].tolist())
            raise DataError(
                f"The folder {self.declaration.absolute_path} has the same image twice: {first} "
                f"and {second}. Remove one copy of the data set from it, or name one copy's folder "
                "with --config.data.path."
            )
        published = max(split.stop for split in self.declaration.splits.values())
        if len(names) != published:
            logging.warning(
                "%s holds %d of the %d published images; the splits are tenths of those.",
                self.declaration.absolute_path,
                len(names),
                published,
            )
        return names[order], scaled_splits(self.declaration.splits, len(names))

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


def _write(declaration: DatasetDeclaration, num_images: int) -> examples.Example:
    """Writes RGBA images, palette masks, another layer and scene files, in numbered folders."""
    example = examples.draw(declaration, num_images)
    variant = declaration.source("image").split("_")[1]
    for record in range(num_images):
        folder = declaration.absolute_path / f"clevrtex_{variant}" / str(record // 10)
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder / f"CLEVRTEX_{variant}_{record:06d}"
        image = Image.fromarray(example.image[record]).convert("RGBA")
        image.save(f"{stem}.png")
        image.resize((8, 6)).save(f"{stem}_albedo_0001.png")
        mask = Image.fromarray(example.segmentation[record])
        mask.putpalette(PALETTE)
        mask.save(f"{stem}_flat.png")
        scene = {"num_objects": int(example.num_objects[record]), "objects": []}
        stem.with_suffix(".json").write_text(json.dumps(scene))
    return example


write_example = examples.writer(default_config, declare, _write)
