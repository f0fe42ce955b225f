"""Writes HDF5 files in our layout: complete or not at all, and quick to read at random."""

import contextlib
import io
import itertools
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from objdisc_jax import files
from objdisc_jax.data import outputs
from objdisc_jax.data.errors import DataError

try:  # deflates about four times as fast
    from isal import isal_zlib as zlib  # pyright: ignore[reportMissingImports]
except ImportError:
    import zlib

LAYOUT_VERSION = 1
"""Of the files written here, their attribute `layout_version`."""

IMAGES = ("image", "segmentation")
"""The arrays that are read one record at a time: each record is a chunk of its own."""

# The others are read in bulk: chunks of about this many bytes.
_CHUNK_BYTES = 1 << 18


Records = Mapping[str, np.ndarray]


def pack(records: Records, images: Collection[str] = IMAGES) -> Records:
    """Compresses consecutive records' images; several threads at once are of use.

    Returns:
        In place of each array of images that is not packed already, `NAME:sizes`, the bytes of each
        compressed record, `NAME:chunks`, those records end to end, and `NAME:record`, an empty
        array with the shape and the type of a record, [0, ...]; the others as they are.
    """
    packed = {}
    for key, values in records.items():
        if key in images:
            chunks = [zlib.compress(value, 1) for value in np.ascontiguousarray(values)]
            packed[f"{key}:sizes"] = np.array([len(chunk) for chunk in chunks])
            packed[f"{key}:chunks"] = np.frombuffer(b"".join(chunks), np.uint8)
            packed[f"{key}:record"] = np.empty((0, *values.shape[1:]), values.dtype)
        else:
            packed[key] = values
    return packed


def length(records: Records) -> int:
    """Returns the number of records, packed or not."""
    first = next(iter(records))
    sizes = f"{first.partition(':')[0]}:sizes"
    return len(records[sizes if sizes in records else first])


class RecordWriter:
    """Writes records into an open HDF5 file; `new_file` makes one."""

    def __init__(self, file: h5py.File, sink: "_Sink", num_records: int, images: Collection[str]):
        self._file = file
        self._sink = sink
        self._num_records = num_records
        self._images = images
        self._arrays: dict[str, h5py.Dataset] = {}

    def write(self, start: int, records: Records) -> None:
        """Writes consecutive records, packed or [n, ...] each, from number `start` on."""
        packed = pack(records, self._images)
        for name, values in packed.items():
            key, _, part = name.partition(":")
            if f"{key}:sizes" not in packed:
                record_bytes = values.dtype.itemsize * int(np.prod(values.shape[1:]))
                chunk = min(self._num_records, max(1, _CHUNK_BYTES // record_bytes))
                self._array(name, values, chunk)[start : start + len(values)] = values
            elif part == "sizes":  # compressed records as they are, past HDF5's slower compression
                array = self._array(key, packed[f"{key}:record"], chunk=1)
                bounds = itertools.pairwise([0, *np.cumsum(values).tolist()])
                for number, (begin, end) in enumerate(bounds, start):
                    origin = (number, *[0] * (array.ndim - 1))
                    array.id.write_direct_chunk(origin, packed[f"{key}:chunks"][begin:end])
        self._sink.check()

    def finish(
        self, num_records: int, attributes: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> None:
        """Cuts the arrays to the records that there are, and adds what is known only at the end.

        Those are attributes of the file, and arrays without one entry for each record.
        """
        for array in self._arrays.values():
            array.resize(num_records, axis=0)
        for key, values in arrays.items():
            self._file.create_dataset(key, data=values)
        self._file.attrs.update(attributes)
        self._sink.check()

    def _array(self, key: str, values: np.ndarray, chunk: int) -> h5py.Dataset:
        """Returns the array, made for values like those if need be."""
        if key not in self._arrays:
            record_shape = values.shape[1:]
            self._arrays[key] = self._file.create_dataset(
                key,
                shape=(self._num_records, *record_shape),
                dtype=values.dtype,
                chunks=(chunk, *record_shape),
                compression="gzip",
                compression_opts=1,
            )
        return self._arrays[key]


@contextlib.contextmanager
def new_file(
    path: str | os.PathLike[str],
    *,
    num_records: int,
    attributes: Mapping[str, Any],
    images: Collection[str] = IMAGES,
    overwrite: bool = False,
    partial: pathlib.Path | None = None,
) -> Iterator[RecordWriter]:
    """Opens a new HDF5 file that takes its name only when the block ends without an error.

    Until then the data lies in another file, which an error removes.

    Args:
        path: the file; missing folders above it are made.
        num_records: how many records it will hold.
        attributes: of the file: where the data comes from, and its splits.
        images: names of the arrays that are read one record at a time.
        overwrite: whether an existing file may be replaced.
        partial: the other file, as in `files.replacing`.

    Raises:
        DataError: the file exists and may not be overwritten, or cannot be written (no
            permission, no space).
    """
    path = pathlib.Path(path).expanduser().absolute()
    if path.is_dir():
        raise DataError(f"The output {path} is a folder. Name a file: --output {path}/NAME.h5")
    outputs.check_free(path, overwrite)
    with outputs.explained(path), files.replacing(path, partial=partial) as partial:
        with _Sink(partial, "w+b") as sink:
            with h5py.File(sink, "w") as file:
                file.attrs.update({"layout_version": LAYOUT_VERSION, **attributes})
                yield RecordWriter(file, sink, num_records, images)
            sink.check()


class _Sink(io.FileIO):
    """A file that keeps its first error for `check` and from then on swallows what is written.

    The HDF5 library crashes the process if it cannot write what it still holds when it closes a
    file, so it must not notice that a disk is full.
    """

    _error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        try:
            while len(rest) and self._error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            if self._error is None:
                super().truncate(size)
        except OSError as error:
            self._error = error
        return self.tell() if size is None else size

    def check(self) -> None:
        """Raises the first error, if there was one."""
        if self._error is not None:
            raise self._error
