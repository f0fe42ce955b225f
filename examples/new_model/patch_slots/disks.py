"""Disks: 32x32 images of two to four coloured disks on grey.

`python -m patch_slots.disks` draws them into data/disks.h5.
"""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from objdisc_jax.data import examples, splits
from objdisc_jax.data.config import shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.hdf5 import Hdf5Reader

SIDE = 32
SPLITS = {"train": range(5_000), "val": range(5_000, 5_320), "test": range(5_320, 5_640)}


def draw(seed: int, num_images: int) -> dict[str, np.ndarray]:
    """Draws images, their labels (0 is background), and the number of disks that are visible.

    Returns:
        `image` uint8 [n, 32, 32, 3], `segmentation` uint8 [n, 32, 32], `num_objects` int64 [n].
    """
    rng = np.random.default_rng(seed)
    image = np.full((num_images, SIDE, SIDE, 3), 90, np.uint8)
    segmentation = np.zeros((num_images, SIDE, SIDE), np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    for pixels, labels in zip(image, segmentation, strict=True):
        for label in range(1, rng.integers(2, 5) + 1):
            (row, column), radius = rng.uniform(4, SIDE - 4, 2), rng.uniform(4, 7)
            inside = (y - row) ** 2 + (x - column) ** 2 < radius**2
            pixels[inside], labels[inside] = rng.integers(256, size=3), label
    visible = [len(np.unique(labels[labels > 0])) for labels in segmentation]
    return {"image": image, "segmentation": segmentation, "num_objects": np.array(visible)}


def write(path: Path, num_images: int = SPLITS["test"].stop, seed: int = 0) -> None:
    """Writes an HDF5 file that states its splits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ranges = splits.scaled_splits(SPLITS, num_images)
    examples.write_arrays(path, draw(seed, num_images), ranges, chunk=1)


def default_config() -> ConfigDict:
    """Returns the keys that all data sets share."""
    return shared_config(__name__, path="data/disks.h5")


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    return DatasetDeclaration(
        **shared_settings(config),
        reader=Hdf5Reader,
        image_size=(SIDE, SIDE),
        splits=SPLITS,
        num_entities=5,
        largest_num_objects=4,
        generate_command="python -m patch_slots.disks",
    )


write_example = examples.writer(default_config, declare)

if __name__ == "__main__":
    write(Path("data/disks.h5"))
