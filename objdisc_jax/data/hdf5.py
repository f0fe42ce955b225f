"""Reads HDF5 files in two layouts: ours and the published one.

| role         | ours            | published                                  |
| ------------ | --------------- | ------------------------------------------ |
| image        | uint8 [n,h,w,3] | uint8 [n,h,w,3]                            |
| segmentation | uint8 [n,h,w]   | integers [n,h,w]                           |
| mask         |                 | uint8 [n,e,h,w,1], 0 or 255, a partition   |
| num_objects  | [n]             | [n,1]                                      |
| visibility   |                 | [n,e], 0 or 1, counts background entities  |

Fields that a data set declares are arrays [n, *shape] of a type that can be cast to theirs. Where a
file has several, the upper rows and the left column are read. Single records are read one
after another, since h5py's fancy indexing is many times slower than that.
"""

import contextlib
import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import h5py
import numpy as np
from jaxtyping import Int64

from objdisc_jax.data import cache, hdf5_file, splits
from objdisc_jax.data.declaration import Box, DatasetDeclaration
from objdisc_jax.data.errors import BadImageError, DataError
from objdisc_jax.data.hdf5_file import isal_zlib
from objdisc_jax.data.hdf5_writer import LAYOUT_VERSION


class Hdf5Reader:
    """Reads the records of a declared HDF5 file.

    The file is opened when it is first needed, in the process that needs it, and stays open;
    pickling a reader leaves the open file behind.

    Attributes:
        declaration: the data set; all methods raise a `DataError` if its file is missing, damaged
            or not as declared.
    """

    records_per_count = 1
    """Consecutive records for which one number of objects is given."""

    def __init__(self, declaration: DatasetDeclaration):
        self.declaration = declaration

    def __getstate__(self) -> dict[str, Any]:
        return {"declaration": self.declaration}

    def splits(self) -> Mapping[str, range]:
        """Returns the splits that the file states, else the declared ones."""
        with self._explained(DataError):
            attributes = dict(self._file.attrs)
        try:
            found = splits.from_attributes(attributes) or self.declaration.splits
        except DataError as error:
            raise self._invalid(str(error)) from None
        for name, split in found.items():
            if not 0 <= split.start <= split.stop <= self.num_records():
                raise self._invalid(
                    f"Its split '{name}' covers the records {split.start} to {split.stop}, but the "
                    f"file holds {self.num_records()}."
                )
        return found

    def num_records(self) -> int:
        """Returns the number of records in the file."""
        return self._arrays["image"].shape[0]

    def image_size(self) -> tuple[int, int]:
        """Returns rows and columns of the images that `read` returns."""
        (top, bottom), (left, right) = self._crop
        return bottom - top, right - left

    def object_counts(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the number of objects in each record, background not counted."""
        declared = self.declaration
        key = ("object counts", declared.name, declared.sources, declared.background_labels)
        file = declared.existing("file")
        return cache.cached_for_file(key, file, self._all_object_counts)[records]

    def read(self, record: int, names: Collection[str]) -> dict[str, np.ndarray]:
        """Returns the fields of a record that are asked for; image and segmentation are cropped."""
        with self._explained(BadImageError):
            return {name: self._field(record, name) for name in names}

    def _field(self, record: int, name: str) -> np.ndarray:
        arrays = self._arrays
        if name in self.declaration.fields:
            return arrays[name].read(record).astype(self.declaration.fields[name].dtype, copy=False)
        rows, columns = (slice(*bounds) for bounds in self._crop)
        if name in arrays:
            return arrays[name].read(record, rows, columns)
        planes = arrays["mask"].read(record, slice(None), rows, columns, 0)
        return np.argmax(planes, axis=0).astype(np.uint8)

    @property
    def _crop(self) -> Box:
        rows, columns = self._arrays["image"].shape[1:3]
        return self.declaration.crop or ((0, rows), (0, columns))

    def _all_object_counts(self) -> Int64[np.ndarray, " n"]:
        """Reads the number of objects in every record of the file."""
        num_records = self.num_records()
        with self._explained(DataError):
            if self.declaration.source("num_objects") in self._file:
                length = -(-num_records // self.records_per_count)
                counts = self._array("num_objects", (length,), (length, 1))[()]
                return np.repeat(counts.astype(np.int64), self.records_per_count)[:num_records]
            visibility = self._array("visibility", (num_records, None))[()]
        num_background = len(self.declaration.background_labels)
        return visibility.astype(np.int64).sum(axis=1) - num_background

    @functools.cached_property
    def _file(self) -> h5py.File:
        path = self.declaration.existing("file")
        with self._explained(DataError):
            return hdf5_file.open_to_read(path)

    @functools.cached_property
    def _arrays(self) -> dict[str, "RecordArray"]:
        """The arrays that `read` needs, by role, after checking what they hold."""
        declared = self.declaration
        with self._explained(DataError):
            version = self._file.attrs.get("layout_version", LAYOUT_VERSION)
            if not isinstance(version, (int, np.integer)) or version > LAYOUT_VERSION:
                raise self._invalid(
                    f"Its layout has version {version}, and this program reads versions up to "
                    f"{LAYOUT_VERSION}: a newer program has written it. Update objdisc_jax, or "
                    "make the file anew."
                )
            size = declared.image_size or (None, None)
            arrays = {"image": self._array("image", (None, *size, 3), dtype="uint8")}
            shape = arrays["image"].shape[:3]
            if declared.has_masks and declared.source("segmentation") in self._file:
                arrays["segmentation"] = self._array("segmentation", shape, dtype="integer")
            elif declared.has_masks:
                planes = (shape[0], None, *shape[1:], 1)
                arrays["mask"] = self._array("mask", planes, dtype="uint8")
            for name, field in declared.fields.items():
                field_shape = (shape[0], *field.shape)
                arrays[name] = self._array(name, field_shape, dtype=field.dtype, cast=True)
            return {role: RecordArray(array) for role, array in arrays.items()}

    def _array(
        self, role: str, *shapes: tuple[int | None, ...], dtype: str = "number", cast: bool = False
    ) -> h5py.Dataset:
        """Returns the array of a role, checking its shape (None allows any length) and type.

        The type is `dtype` or, if `cast`, one that can be cast to it within its kind.
        """
        key = self.declaration.source(role)
        array = self._file.get(key)
        if not isinstance(array, h5py.Dataset):
            other = {"mask": "segmentation", "visibility": "num_objects"}.get(role)
            wanted = f"'{key}'" + (f" or '{self.declaration.source(other)}'" if other else "")
            held = ", ".join(sorted(self._file)) or "nothing"
            raise self._invalid(f"It has no array {wanted}; it holds {held}.")
        fits = any(
            len(shape) == array.ndim
            and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
            for shape in shapes
        )
        if cast:
            fits &= np.can_cast(array.dtype, dtype, "same_kind")
        else:
            fits &= np.issubdtype(array.dtype, getattr(np, dtype))
        if not fits:
            allowed = " or ".join(map(str, shapes)).replace("None", "any")
            raise self._invalid(
                f"Its array '{key}' is {array.dtype} of shape {array.shape}, but must be "
                f"{dtype} of shape {allowed}."
            )
        return array

    @contextlib.contextmanager
    def _explained(self, kind: type[DataError]) -> Iterator[None]:
        """Turns what h5py says of a file into an error of ours."""
        try:
            with hdf5_file.explained(self.declaration.absolute_path):
                yield
        except hdf5_file.Unreadable as error:
            if error.is_unsound:
                raise self._invalid(str(error), kind) from error
            raise kind(f"{self._subject()} cannot be read. {error}") from error

    def _invalid(self, reason: str, kind: type[DataError] = DataError) -> DataError:
        return kind(
            f"{self._subject()} is not as it should be. {reason} {self.declaration.how_to_fix()}"
        )

    def _subject(self) -> str:
        return f"The file {self.declaration.absolute_path} of data set '{self.declaration.name}'"


class RecordArray:
    """An array [n, ...] of which boxes of single records are read."""

    def __init__(self, array: h5py.Dataset):
        self.shape, self.dtype = array.shape, array.dtype
        self._array = array
        # A record that is one chunk is unpacked whole, and NumPy cuts faster than HDF5.
        self._whole = array.chunks == (1, *array.shape[1:])
        properties = array.id.get_create_plist()
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        self._inflate = self._whole and filters == [h5py.h5z.FILTER_DEFLATE] and isal_zlib

    def read(self, record: int, *box: slice | int) -> np.ndarray:
        """Reads a box of one record."""
        if self._inflate:
            origin = (record, *[0] * (self._array.ndim - 1))
            try:
                skipped_filters, chunk = self._array.id.read_direct_chunk(origin)
            except MemoryError:  # h5py takes a chunk that was never written for a huge one
                raise OSError(f"there is no record {record}") from None
            if not skipped_filters:
                values = np.frombuffer(self._inflate.decompress(chunk), self._array.dtype)
                return np.asarray(values.reshape(self.shape[1:])[box])
        return np.asarray(self._array[record][box] if self._whole else self._array[record, *box])
