"""Small data sets, written in the layouts that are read, to try and to test things on.

`write_example` of a data set's module writes one; `writer` makes that function for HDF5 files.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from objdisc_jax.data import splits
from objdisc_jax.data.declaration import DatasetDeclaration


@dataclasses.dataclass(frozen=True)
class Example:
    """What the files of a small data set hold."""

    image: np.ndarray  # uint8 [n, h, w, 3], as stored, neither cropped nor resized
    segmentation: np.ndarray  # labels, uint8 [n, h, w]; zeros if the set has no masks
    num_objects: np.ndarray  # int64 [n], background not counted
    splits: Mapping[str, range]  # numbers of the records of each split
    # The values of each further field that the set declares, [n, *shape].
    fields: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def draw(declaration: DatasetDeclaration, num_images: int) -> Example:
    """Returns random images of 1 to `largest_num_objects` objects, each a random rectangle."""
    rng = np.random.default_rng(len(declaration.name))
    rows, cols = declaration.image_size or (70, 70)
    most = 1 if declaration.largest_num_objects is None else declaration.largest_num_objects
    counts = rng.permutation(np.arange(num_images) % max(1, most)) + min(1, most)
    segmentation = np.zeros((num_images, rows, cols), np.uint8)
    if declaration.has_masks:
        background = len(declaration.background_labels)
        segmentation[:, rows // 2 :] = declaration.background_labels[-1]
        for labels, count in zip(segmentation, counts, strict=True):
            for label in range(background, background + count):
                top, left = rng.integers(rows), rng.integers(cols)
                labels[top : top + rows // 3, left : left + cols // 3] = label
    return Example(
        image=rng.integers(256, size=(num_images, rows, cols, 3), dtype=np.uint8),
        segmentation=segmentation,
        num_objects=counts,
        splits=splits.scaled_splits(declaration.splits, num_images),
        fields={
            name: rng.integers(100, size=(num_images, *field.shape)).astype(field.dtype)
            for name, field in declaration.fields.items()
        },
    )


def write_hdf5(declaration: DatasetDeclaration, example: Example) -> Example:
    """Writes an HDF5 file in our layout."""
    arrays = {"image": example.image, "num_objects": example.num_objects, **example.fields}
    if declaration.has_masks:
        arrays["segmentation"] = example.segmentation
    named = {declaration.source(role): values for role, values in arrays.items()}
    write_arrays(declaration.absolute_path, named, example.splits, chunk=1)
    return example


def write_arrays(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    ranges: Mapping[str, range] | None = None,
    chunk: int | None = None,
) -> None:
    """Writes a gzipped HDF5 file of arrays [n, ...] that states the splits.

    Of so many records is each chunk; None leaves that to h5py, as in the published files.
    """
    with h5py.File(path, "w", locking=False) as file:
        for name, values in arrays.items():
            chunks = (chunk, *values.shape[1:]) if chunk else True
            file.create_dataset(name, data=values, chunks=chunks, compression="gzip")
        file.attrs.update(splits.to_attributes(ranges or {}))


def save_image(path: Path, image: np.ndarray, mode: str = "RGB") -> None:
    """Writes an image, uint8 [h, w, 3], in a mode of Pillow, making the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).convert(mode).save(path)


def writer(
    default_config: Callable[[], ConfigDict],
    declare: Callable[[ConfigDict], DatasetDeclaration],
    write: Callable[[DatasetDeclaration, Example], Example] = write_hdf5,
) -> Callable[..., Example]:
    """Returns the function `write_example` of a data set with these functions.

    `write` writes an example as it is declared, and returns it as it is read: in other splits, say.
    """

    def write_example(path: Path, num_images: int = 24, **changes: Any) -> Example:
        config = default_config()
        config.update(path=str(path), **changes)
        declaration = declare(config)
        return write(declaration, draw(declaration, num_images))

    return write_example
