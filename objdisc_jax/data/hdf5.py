"""Reads HDF5 files in two layouts: ours and the published one.

| role         | ours            | published                                  |
| ------------ | --------------- | ------------------------------------------ |
| image        | uint8 [n,h,w,3] | uint8 [n,h,w,3]                            |
| segmentation | uint8 [n,h,w]   |                                            |
| mask         |                 | uint8 [n,e,h,w,1], 0 or 255, a partition   |
| num_objects  | [n]             |                                            |
| visibility   |                 | [n,e], 0 or 1, counts background entities  |

Where a file has both, the left column is read. Single records are read one after another, since
h5py's fancy indexing is many times slower than that.
"""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np
from jaxtyping import Int64, UInt8

from objdisc_jax.data import splits
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError

# The arrays' names, by role, in both layouts.
FIELDS: Mapping[str, str] = {
    role: role for role in ("image", "segmentation", "mask", "num_objects", "visibility")
}


class Hdf5Reader:
    """Reads the records of a declared HDF5 file.

    The file is opened at the first read, in the process that reads, and stays open; pickling a
    reader leaves the open file behind.

    Attributes:
        declaration: the data set; all methods raise a `DataError` if its file is missing, damaged
            or not as declared.
    """

    def __init__(self, declaration: DatasetDeclaration):
        self.declaration = declaration
        self._arrays: dict[str, h5py.Dataset] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"declaration": self.declaration, "_arrays": None}

    def splits(self) -> Mapping[str, range]:
        """Returns the splits that the file states, else the declared ones."""
        with self._opened() as (file, arrays):
            num_records = len(arrays["image"])
            try:
                found = splits.from_attributes(file.attrs) or self.declaration.splits
            except DataError as error:
                raise self._invalid(str(error)) from None
        for name, split in found.items():
            if not 0 <= split.start <= split.stop <= num_records:
                raise self._invalid(
                    f"Its split '{name}' covers the records {split.start} to {split.stop}, but the "
                    f"file holds {num_records}."
                )
        return found

    def object_counts(self, records: range) -> Int64[np.ndarray, " n"]:
        """Returns the number of objects in each record, background not counted."""
        fields = self.declaration.fields
        selection = slice(records.start, records.stop)
        with self._opened() as (file, _):
            if fields["num_objects"] in file:
                counts = self._array(file, "num_objects", (None,))[selection]
                return np.asarray(counts, np.int64)
            visibility = self._array(file, "visibility", (None, None))[selection]
        num_background = len(self.declaration.background_labels)
        return np.asarray(visibility, np.int64).sum(axis=1) - num_background

    def read(
        self, record: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"] | None]:
        """Returns a record's cropped image and segmentation (None if the set has no masks)."""
        if self._arrays is None:
            with self._explained(self.declaration.file()) as path:
                self._arrays = self._checked_arrays(h5py.File(path, "r"))
        rows, cols = (slice(*bounds) for bounds in self.declaration.crop_box)
        with self._explained(self.declaration.path):
            image = self._arrays["image"][record, rows, cols]
            if "segmentation" in self._arrays:
                return image, self._arrays["segmentation"][record, rows, cols]
            if "mask" in self._arrays:
                planes = self._arrays["mask"][record, :, rows, cols, 0]
                return image, np.argmax(planes, axis=0).astype(np.uint8)
        return image, None

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[h5py.File, dict[str, h5py.Dataset]]]:
        """Opens the file for a look at its contents, and closes it again."""
        with self._explained(self.declaration.file()) as path, h5py.File(path, "r") as file:
            yield file, self._checked_arrays(file)

    def _checked_arrays(self, file: h5py.File) -> dict[str, h5py.Dataset]:
        """Returns the arrays that `read` needs, by role, after checking what they hold."""
        size = self.declaration.image_size
        arrays = {"image": self._array(file, "image", (None, *size, 3), np.uint8)}
        num_records = len(arrays["image"])
        if self.declaration.has_masks:
            if self.declaration.fields["segmentation"] in file:
                shape = (num_records, *size)
                arrays["segmentation"] = self._array(file, "segmentation", shape, np.uint8)
            else:
                shape = (num_records, None, *size, 1)
                arrays["mask"] = self._array(file, "mask", shape, np.uint8)
        return arrays

    def _array(
        self,
        file: h5py.File,
        role: str,
        shape: tuple[int | None, ...],
        dtype: type[np.generic] | None = None,
    ) -> h5py.Dataset:
        """Returns the array of a role; None in `shape` allows any length, None in `dtype` any."""
        key = self.declaration.fields[role]
        array = file.get(key)
        if not isinstance(array, h5py.Dataset):
            other = {"mask": "segmentation", "visibility": "num_objects"}.get(role)
            wanted = f"'{key}'" + (f" or '{self.declaration.fields[other]}'" if other else "")
            raise self._invalid(
                f"It has no array {wanted}; it holds {', '.join(sorted(file)) or 'nothing'}."
            )
        fits = len(array.shape) == len(shape) and all(
            allowed in (None, found) for found, allowed in zip(array.shape, shape, strict=True)
        )
        if not fits or dtype not in (None, array.dtype):
            allowed = ", ".join("any" if length is None else str(length) for length in shape)
            raise self._invalid(
                f"Its array '{key}' is {array.dtype} of shape {array.shape}, but must be "
                f"{np.dtype(dtype).name if dtype else 'numbers'} of shape ({allowed})."
            )
        return array

    @contextlib.contextmanager
    def _explained(self, path: pathlib.Path | str) -> Iterator[pathlib.Path | str]:
        """Turns what h5py says of a damaged file into a `DataError`."""
        try:
            yield path
        except OSError as error:
            raise self._invalid(
                f"HDF5 cannot read it ({error}): it may be truncated, damaged, or no HDF5 file."
            ) from error

    def _invalid(self, reason: str) -> DataError:
        path = pathlib.Path(self.declaration.path).expanduser().absolute()
        return DataError(
            f"The file {path} of data set '{self.declaration.name}' is not as it should be. "
            f"{reason} {self.declaration.remedy()}"
        )
