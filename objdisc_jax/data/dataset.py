"""One split of a data set: which records it has, and batches of them as NumPy arrays."""

import dataclasses

import ml_collections
import numpy as np
from jaxtyping import Int, Int64

from objdisc_jax.data import sets
from objdisc_jax.data.declaration import DatasetDeclaration, Reader
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.sampler import PADDING
from objdisc_jax.names import closest

# image uint8 [b, h, w, 3]; segmentation uint8 [b, h, w], absent if the set has no masks;
# valid bool [b], False for padding; index int64 [b], record number, -1 for padding.
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A split of a data set; it holds no open files and can be sent to other processes.

    Attributes:
        declaration: the data set.
        split: name of the split.
        indices: the numbers, int64 [n], of the records that belong to the split and pass the
            filter, in the order of the file.
        reader: reads the records.
    """

    declaration: DatasetDeclaration
    split: str
    indices: np.ndarray
    reader: Reader

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def image_size(self) -> tuple[int, int]:
        """Rows and columns of the images, cropped."""
        return self.declaration.cropped_size

    @property
    def has_masks(self) -> bool:
        """Whether batches have a segmentation."""
        return self.declaration.has_masks

    def read(self, positions: Int[np.ndarray, " b"]) -> Batch:
        """Reads the examples at these positions of the split.

        Args:
            positions: numbers from 0 to len(self) - 1; -1 gives a black padding image with
                `valid` False and `index` -1.

        Raises:
            DataError: a record cannot be read.
        """
        positions = np.asarray(positions, np.int64)
        valid = positions != PADDING
        index = np.where(valid, self.indices[positions], PADDING)
        shape = (len(positions), *self.image_size)
        batch = {"image": np.zeros((*shape, 3), np.uint8), "valid": valid, "index": index}
        if self.has_masks:
            batch["segmentation"] = np.zeros(shape, np.uint8)
        for row in np.flatnonzero(valid):
            image, segmentation = self.reader.read(int(index[row]))
            batch["image"][row] = image
            if segmentation is not None:
                batch["segmentation"][row] = segmentation
        return batch


def load(config: ml_collections.ConfigDict, split: str) -> Dataset:
    """Returns a split of the data set that a configuration describes.

    Args:
        config: a data set's `default_config()`, possibly changed; `config.name` says which set.
        split: name of the split, usually "train", "val" or "test".

    Raises:
        DataError: the data set or the split is unknown, the file is missing or invalid, or no
            image of the split passes the filter.
    """
    declaration = sets.get(str(config.name)).declare(config)
    reader = declaration.reader(declaration)
    splits = reader.splits()
    if split not in splits:
        raise DataError(
            f"Data set '{declaration.name}' has no split '{split}'{closest(split, splits)}. "
            f"Ask for one of: {', '.join(splits)}."
        )
    indices = _filtered(declaration, reader, splits[split])
    if not len(indices):
        raise DataError(
            f"No image is left in split '{split}' of data set '{declaration.name}': of its "
            f"{len(splits[split])} images, none has at most max_objects = "
            f"{declaration.max_objects} objects. Raise --config.data.max_objects, or leave it "
            "out to use all images."
        )
    if split == "test":
        indices = indices[: declaration.num_test_images]
    return Dataset(declaration, split, indices, reader)


def _filtered(
    declaration: DatasetDeclaration, reader: Reader, records: range
) -> Int64[np.ndarray, " n"]:
    """Returns the numbers of the records with at most `max_objects` objects."""
    indices = np.arange(records.start, records.stop, dtype=np.int64)
    if declaration.max_objects is None:
        return indices
    return indices[reader.object_counts(records) <= declaration.max_objects]
