"""Looks at an experiment's data: what every split holds, how fast it is read, and 32 images of it.

    objdisc inspect --config configs/demo.py [--output inspect.png]

Any key can be set as for training: `--config.data.path=FILE --config.data.max_objects=6`.
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np
from absl import flags
from ml_collections import config_flags
from PIL import Image

from objdisc_jax import visualize
from objdisc_jax.cli import exit_on_usage, parse_absl, run
from objdisc_jax.config import check
from objdisc_jax.data import datasets, loader
from objdisc_jax.data.errors import DataError
from objdisc_jax.errors import UserError

SAMPLE = 256
"""Images of each split that are looked at for values and labels, evenly spread."""
_LINE = "{:8} {:>8} {:>8} {:>9} {:>8} {:>13} {:>7} {:>17}  {}"
HEADER = _LINE.format(
    "split", "images", "of", "size", "values", "mean RGB", "labels", "visible objects", "unreadable"
)
SHEET_ROWS, SHEET_COLUMNS, LARGEST_TILE = 4, 8, 160


def parse(argv: Sequence[str]) -> tuple[ml_collections.ConfigDict, Path, float]:
    """Returns the arguments of `inspect` that the command line states."""
    config = config_flags.DEFINE_config_file("config", help_string="the experiment, a Python file")
    output = flags.DEFINE_string(
        "output", None, "contact sheet (default: inspect/<name of the config file>.png)"
    )
    seconds = flags.DEFINE_float(
        "seconds", 5.0, "how long to measure the loader's speed (default: 5)", 0.1
    )
    parse_absl(argv)
    if config.value is None:
        exit_on_usage("Name an experiment, for example --config configs/demo.py")
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    sheet = Path(output.value or f"inspect/{name}.png")
    return config.value, sheet, seconds.value


def inspect(config: ml_collections.ConfigDict, sheet: Path, seconds: float) -> None:
    """Prints facts of a config's data, and writes a contact sheet of the training images.

    Measures the loader's speed for so many seconds.

    Raises:
        UserError: there is no such data, or the sheet cannot be written.
    """
    check(config)
    with config.unlocked():
        config.data.on_bad_image = "skip"  # to tell of them all
    splits = list(datasets.get(config.data.name).declare(config.data).splits)
    first = loader.load(config.data, splits[0])
    print(f"data set {config.data.name}   {first.declaration.absolute_path}\n{HEADER}", flush=True)
    for split in splits:
        try:
            print(describe(loader.load(config.data, split)), flush=True)
        except UserError as error:
            print(f"{split:8} {error}")
    for name, field in first.declaration.fields.items():
        print(f"field    {name} {field.dtype} {list(field.shape)}")
    speed = images_per_second(first, config, seconds)
    print(
        f"loader   {speed:.0f} images/s of split '{first.split}' "
        f"(batches of {config.batch_size}, {config.data.num_workers} workers)"
    )
    try:
        visualize.save_png(sheet, contact_sheet(first))
    except OSError as error:
        raise UserError(f"--output: {sheet} cannot be written ({error}). Name another.") from error
    print(f"sheet    {sheet}")


def describe(dataset: loader.Dataset) -> str:
    """Returns a line, below `HEADER`, that says what a split holds.

    Values, labels and visible objects are those of a sample; objects are counted after the crop.
    """
    batch, bad = _sample(dataset, SAMPLE)
    image = batch["image"]
    labels = objects = "-"
    if "segmentation" in batch:
        segmentation = batch["segmentation"]
        labels = f"{segmentation.min()}..{segmentation.max()}"
        background = dataset.declaration.background_labels
        counts = [len(np.setdiff1d(one, background)) for one in segmentation]
        objects = f"{min(counts)}..{max(counts)}, mean {np.mean(counts):.1f}"
    return _LINE.format(
        dataset.split,
        len(dataset),
        len(dataset.reader.splits()[dataset.split]),
        "x".join(map(str, dataset.image_size)),
        f"{image.min()}..{image.max()}",
        " ".join(f"{value:.0f}" for value in image.mean(axis=(0, 1, 2))),
        labels,
        objects,
        f"{len(bad)} of {len(bad) + len(image)} looked at",
    )


def images_per_second(
    dataset: loader.Dataset, config: ml_collections.ConfigDict, seconds: float
) -> float:
    """Returns how many images per second training batches bring, workers' start left out."""
    num_workers = config.data.num_workers
    batches = loader.train_batches(
        dataset, batch_size=config.batch_size, seed=config.seed, num_workers=num_workers
    )
    with contextlib.closing(batches):
        # What was read ahead while the workers started is no measure of their speed.
        for _ in range(1 + 2 * num_workers):
            next(batches)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            count += len(next(batches)["image"])
        return count / (time.perf_counter() - start)


def contact_sheet(dataset: loader.Dataset) -> np.ndarray:
    """Returns an image, uint8 [height, width, 3], of images with their segmentations below."""
    batch, _ = _sample(dataset, SHEET_ROWS * SHEET_COLUMNS)
    lines = {"": _thumbnails(batch["image"], Image.Resampling.BOX)}
    if "segmentation" in batch:
        lines[" labels"] = _thumbnails(batch["segmentation"], Image.Resampling.NEAREST)
    columns = min(SHEET_COLUMNS, len(batch["index"]))
    rows = {}
    for start in range(0, len(batch["index"]), columns):
        for what, tiles in lines.items():
            row = tiles[start : start + columns]
            black = np.zeros_like(tiles[: columns - len(row)])
            rows[f"{batch['index'][start]}{what}"] = np.concatenate([row, black])
    return visualize.panel(rows)


def _sample(dataset: loader.Dataset, count: int) -> tuple[loader.Batch, dict[int, str]]:
    """Returns up to `count` images that can be read, evenly spread, and what the others lack."""
    last = len(dataset) - 1
    positions = np.unique(np.linspace(0, last, min(count, len(dataset))).astype(np.int64))
    batch, bad = dataset.read_or_replace(positions, replace=False)
    if not batch["valid"].any():
        raise DataError(
            f"None of {len(positions)} images of split '{dataset.split}' can be read. "
            f"The first: {next(iter(bad.values()))}"
        )
    return {key: values[batch["valid"]] for key, values in batch.items()}, bad


def _thumbnails(images: np.ndarray, resample: Image.Resampling) -> np.ndarray:
    """Returns images brought down to a tile's size."""
    tiles = [Image.fromarray(image) for image in images]
    for tile in tiles:
        tile.thumbnail((LARGEST_TILE, LARGEST_TILE), resample)
    return np.stack([np.asarray(tile) for tile in tiles])


if __name__ == "__main__":
    run(lambda arguments: inspect(*arguments), parse)
