"""Small files in the exact layouts that readers read, made from a set's declaration.

`LAYOUTS` names the writers by reader, so a new data set with a known reader needs nothing here.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np

from objdisc_jax.data import splits
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.hdf5 import Hdf5Reader


@dataclasses.dataclass(frozen=True)
class Example:
    """What a written file holds: full pictures and label maps, counts without the background."""

    image: np.ndarray
    segmentation: np.ndarray
    num_objects: np.ndarray
    splits: Mapping[str, range]


def draw(declaration: DatasetDeclaration, num_images: int) -> Example:
    """Random pictures with 1 to `largest_num_objects` objects, each a random rectangle."""
    rng = np.random.default_rng(len(declaration.name))
    rows, cols = declaration.image_size
    counts = rng.permutation(np.arange(num_images) % declaration.largest_num_objects) + 1
    segmentation = np.zeros((num_images, rows, cols), np.uint8)
    for labels, count in zip(segmentation, counts, strict=True):
        for label in range(1, count + 1):
            top, left = rng.integers(rows), rng.integers(cols)
            labels[top : top + rows // 3, left : left + cols // 3] = label
    image = rng.integers(256, size=(num_images, rows, cols, 3), dtype=np.uint8)
    ranges = splits.scaled_splits(declaration.splits, num_images)
    return Example(image, segmentation, counts, ranges)


def write_ours(path: Path, declaration: DatasetDeclaration, num_images: int) -> Example:
    """Label maps and counts, one record a chunk."""
    example = draw(declaration, num_images)
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=example.image, chunks=(1, *example.image.shape[1:]))
        file["segmentation"] = example.segmentation
        file["num_objects"] = example.num_objects
        file.attrs.update(splits.to_attributes(example.splits))
    return example


def write_published(path: Path, declaration: DatasetDeclaration, num_images: int) -> Example:
    """One plane of 0 or 255 per entity, visibility with the background; gzip, automatic chunks."""
    example = draw(declaration, num_images)
    entities = np.arange(declaration.num_entities)
    planes = example.segmentation[:, None] == entities[:, None, None]
    arrays = {
        "image": example.image,
        "mask": (planes * np.uint8(255))[..., None],
        "visibility": (entities <= example.num_objects[:, None]).astype(np.float32),
    }
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file.create_dataset(
                key, data=values, maxshape=(None, *values.shape[1:]), compression="gzip"
            )
        # The published files are large enough for the declared splits; this one states its own.
        file.attrs.update(splits.to_attributes(example.splits))
    return example


Writer = Callable[[Path, DatasetDeclaration, int], Example]
LAYOUTS: Mapping[object, Mapping[str, Writer]] = {
    Hdf5Reader: {"ours": write_ours, "published": write_published},
}


def layouts(declaration: DatasetDeclaration) -> Mapping[str, Writer]:
    """The writers for a data set; an error tells how to add one for a new reader."""
    if declaration.reader not in LAYOUTS:
        raise LookupError(
            f"Nothing in tests/data/examples.py writes files for {declaration.reader}, the reader "
            f"of '{declaration.name}': add a writer to LAYOUTS."
        )
    return LAYOUTS[declaration.reader]
