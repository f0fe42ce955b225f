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
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import h5py
import numpy as np
from jaxtyping import Int64

from objdisc_jax.data import cache, splits
from objdisc_jax.data.declaration import Box, DatasetDeclaration
from objdisc_jax.data.errors import BadImageError, DataError
from objdisc_jax.data.hdf5_writer import LAYOUT_VERSION

try:  # inflates more than twice as fast as HDF5's own library
    from isal import isal_zlib  # pyright: ignore[reportMissingImports]
except ImportError:
    isal_zlib = None
_DAMAGED: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError)
if isal_zlib is not None:
    _DAMAGED += (isal_zlib.error,)  # pyright: ignore[reportAssignmentType]


class Hdf5Reader:
    """Reads the records of a declared HDF5 file.

    The file is opened at the first read, in the process that reads, and stays open; pickling a
    reader leaves the open file behind.

    Attributes:
        declaration: the data set; all methods raise a `DataError` if its file is missing, damaged
            or not as declared.
    """

    records_per_count = 1
    """Consecutive records for which one number of objects is given."""

    def __init__(self, declaration: DatasetDeclaration):
        self.declaration = declaration
        self._arrays: dict[str, _Array] | None = None

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

    def num_records(self) -> int:
        """Returns the number of records in the file."""
        with self._opened() as (_, arrays):
            return len(arrays["image"])

    def image_size(self) -> tuple[int, int]:
        """Returns rows and columns of the images that `read` returns."""
        with self._opened() as (_, arrays):
            rows, cols = (len(range(*bounds)) for bounds in self._crop(arrays["image"].shape))
        return rows, cols

    def object_counts(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the number of objects in each record, background not counted."""
        file = self.declaration.file()
        declared = self.declaration
        key = ("object counts", declared.name, declared.sources, declared.background_labels)
        return cache.cached_for_file(key, file, self._all_object_counts)[records]

    def read(self, record: int, names: Collection[str]) -> dict[str, np.ndarray]:
        """Returns the fields of a record that are asked for; image and segmentation are cropped."""
        if self._arrays is None:
            with self._explained(DataError):
                checked = self._checked_arrays(h5py.File(self.declaration.file(), "r"))
            self._arrays = {role: _Array(array) for role, array in checked.items()}
        with self._explained(BadImageError):
            return {name: self._read_field(self._arrays, record, name) for name in names}

    def _read_field(self, arrays: Mapping[str, "_Array"], record: int, name: str) -> np.ndarray:
        declared = self.declaration.fields.get(name)
        if declared is not None:
            return np.asarray(arrays[name].read(record), declared.dtype)
        box = (slice(*bounds) for bounds in self._crop(arrays["image"].shape))
        if name in arrays:
            return arrays[name].read(record, *box)
        planes = arrays["mask"].read(record, slice(None), *box, 0)
        return np.argmax(planes, axis=0).astype(np.uint8)

    def _crop(self, shape: tuple[int, ...]) -> Box:
        rows, cols = shape[1:3]
        return self.declaration.crop or ((0, rows), (0, cols))

    def _all_object_counts(self) -> Int64[np.ndarray, " n"]:
        """Reads the number of objects in every record of the file."""
        with self._opened() as (file, arrays):
            num_records = len(arrays["image"])
            if self.declaration.source("num_objects") in file:
                length = -(-num_records // self.records_per_count)
                counts = self._array(file, "num_objects", (length,), (length, 1))[()]
                counts = np.asarray(counts, np.int64).reshape(length)
                return counts.repeat(self.records_per_count)[:num_records]
            visibility = self._array(file, "visibility", (num_records, None))[()]
        num_background = len(self.declaration.background_labels)
        return np.asarray(visibility, np.int64).sum(axis=1) - num_background

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[h5py.File, dict[str, h5py.Dataset]]]:
        """Opens the file for a look at its contents, and closes it again."""
        path = self.declaration.file()
        with self._explained(DataError), h5py.File(path, "r") as file:
            yield file, self._checked_arrays(file)

    def _checked_arrays(self, file: h5py.File) -> dict[str, h5py.Dataset]:
        """Returns the arrays that `read` needs, by role, after checking what they hold."""
        version = file.attrs.get("layout_version", LAYOUT_VERSION)
        if not isinstance(version, (int, np.integer)) or version > LAYOUT_VERSION:
            raise self._invalid(
                f"Its layout has version {version}, and this program reads versions up to "
                f"{LAYOUT_VERSION}: a newer program has written it. Update objdisc_jax, or "
                "make the file anew."
            )
        size = self.declaration.image_size or (None, None)
        arrays = {"image": self._array(file, "image", (None, *size, 3), dtype="uint8")}
        shape = arrays["image"].shape[:3]
        if self.declaration.has_masks:
            if self.declaration.source("segmentation") in file:
                arrays["segmentation"] = self._array(file, "segmentation", shape, dtype="integer")
            else:
                planes = (shape[0], None, *shape[1:], 1)
                arrays["mask"] = self._array(file, "mask", planes, dtype="uint8")
        for name, field in self.declaration.fields.items():
            arrays[name] = self._array(
                file, name, (shape[0], *field.shape), dtype=field.dtype, cast=True
            )
        return arrays

    def _array(
        self,
        file: h5py.File,
        role: str,
        *shapes: tuple[int | None, ...],
        dtype: str = "number",
        cast: bool = False,
    ) -> h5py.Dataset:
        """Returns the array of a role, checking its shape (None allows any length) and type.

        The type is `dtype` or, if `cast`, one that can be cast to it within its kind.
        """
        key = self.declaration.source(role)
        array = file.get(key)
        if not isinstance(array, h5py.Dataset):
            other = {"mask": "segmentation", "visibility": "num_objects"}.get(role)
            wanted = f"'{key}'" + (f" or '{self.declaration.source(other)}'" if other else "")
            raise self._invalid(
                f"It has no array {wanted}; it holds {', '.join(sorted(file)) or 'nothing'}."
            )
        fits = any(
            len(array.shape) == len(shape)
            and all(a in (None, found) for found, a in zip(array.shape, shape, strict=True))
            for shape in shapes
        )
        is_type = (
            np.can_cast(array.dtype, dtype, "same_kind")
            if cast
            else np.issubdtype(array.dtype, getattr(np, dtype))
        )
        if not fits or not is_type:
            allowed = " or ".join(
                f"({', '.join('any' if length is None else str(length) for length in shape)})"
                for shape in shapes
            )
            raise self._invalid(
                f"Its array '{key}' is {array.dtype} of shape {array.shape}, but must be "
                f"{dtype} of shape {allowed}."
            )
        return array

    @contextlib.contextmanager
    def _explained(self, kind: type[DataError]) -> Iterator[None]:
        """Turns what h5py says of a damaged file into an error of ours."""
        try:
            yield
        except DataError:
            raise
        except _DAMAGED as error:
            raise self._invalid(
                f"HDF5 cannot read it ({error}): it may be truncated, damaged, or no HDF5 file.",
                kind,
            ) from error

    def _invalid(self, reason: str, kind: type[DataError] = DataError) -> DataError:
        return kind(
            f"The file {self.declaration.absolute_path} of data set '{self.declaration.name}' is "
            f"not as it should be. {reason} {self.declaration.how_to_fix()}"
        )


class _Array:
    """An array [n, ...] of which boxes of single records are read."""

    def __init__(self, array: h5py.Dataset):
        self.shape = array.shape
        self._array = array
        # A record that is one chunk is unpacked whole, and NumPy cuts faster than HDF5.
        self._whole = array.chunks == (1, *array.shape[1:])
        properties = array.id.get_create_plist()
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        self._inflate = None
        if isal_zlib is not None and self._whole and filters == [h5py.h5z.FILTER_DEFLATE]:
            self._inflate = isal_zlib.decompress

    def read(self, record: int, *box: slice | int) -> np.ndarray:
        """Reads a box of one record."""
        if self._inflate:
            origin = (record, *(0 for _ in self.shape[1:]))
            skipped_filters, chunk = self._array.id.read_direct_chunk(origin)
            if not skipped_filters:
                values = np.frombuffer(self._inflate(chunk), self._array.dtype)
                return values.reshape(self.shape[1:])[box]
        if self._whole:
            return self._array[record][box]
        return self._array[(record, *box)]
