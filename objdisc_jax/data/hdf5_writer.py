"""Writes HDF5 files in our layout: complete or not at all, and quick to read at random."""

import contextlib
import io
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import h5py
import numpy as np

from objdisc_jax.data.errors import DataError

# These are read one record at a time, so each record is a chunk of its own.
_READ_AT_RANDOM = ("image", "segmentation")
# The others are read in bulk: chunks of about this many bytes.
_CHUNK_BYTES = 1 << 18


class RecordWriter:
    """Writes records into an open HDF5 file; `new_file` makes one."""

    def __init__(self, file: h5py.File, sink: "_Sink", num_records: int):
        self._file = file
        self._sink = sink
        self._num_records = num_records

    def write(self, start: int, records: Mapping[str, np.ndarray]) -> None:
        """Writes consecutive records, [n, ...] each, from number `start` on.

        Raises:
            OSError: there is no space left; `new_file` explains that to the user.
        """
        for key, values in records.items():
            if key not in self._file:
                self._create(key, values)
            array = cast(h5py.Dataset, self._file[key])
            array[start : start + len(values)] = values
        self._sink.check()

    def _create(self, key: str, values: np.ndarray) -> None:
        record_shape = values.shape[1:]
        if key in _READ_AT_RANDOM:
            chunk = 1
        else:
            record_bytes = values.dtype.itemsize * int(np.prod(record_shape))
            chunk = min(self._num_records, max(1, _CHUNK_BYTES // record_bytes))
        self._file.create_dataset(
            key,
            shape=(self._num_records, *record_shape),
            dtype=values.dtype,
            chunks=(chunk, *record_shape),
            compression="gzip",
            compression_opts=1,
        )


@contextlib.contextmanager
def new_file(
    path: str | os.PathLike[str],
    *,
    num_records: int,
    attributes: Mapping[str, Any],
    overwrite: bool = False,
) -> Iterator[RecordWriter]:
    """Opens a new HDF5 file that takes its name only when the block ends without an error.

    Until then the data lies in a hidden file beside it, which an error removes.

    Args:
        path: the file; missing folders above it are made.
        num_records: how many records it will hold.
        attributes: of the file: where the data comes from, and its splits.
        overwrite: whether an existing file may be replaced.

    Raises:
        DataError: the file exists and may not be overwritten, or cannot be written (no
            permission, no space).
    """
    path = pathlib.Path(path).expanduser().absolute()
    _check_free(path, overwrite)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _Sink(partial, "w+b") as sink:
            with h5py.File(sink, "w") as file:
                file.attrs.update(attributes)
                yield RecordWriter(file, sink, num_records)
            sink.check()
        os.replace(partial, path)
    except OSError as error:
        raise DataError(
            f"The file {path} could not be written: {error.strerror or error}. No part of it was "
            "left behind. Free some space, see to the permissions, or write elsewhere with "
            "--output FILE."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _check_free(path: pathlib.Path, overwrite: bool) -> None:
    if path.is_dir():
        raise DataError(f"The output {path} is a folder. Name a file: --output {path}/NAME.h5")
    if path.exists() and not overwrite:
        raise DataError(
            f"The output {path} exists already and was left as it is. Replace it with "
            "--overwrite, or write elsewhere with --output FILE."
        )


class _Sink(io.FileIO):
    """A file that keeps its first error for `check` and from then on swallows what is written.

    The HDF5 library crashes the process if it cannot write what it still holds when it closes a
    file, so it must not notice that a disk is full.
    """

    _error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        with self._kept():
            while len(rest) and self._error is None:
                rest = rest[super().write(rest) :]
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        with self._kept():
            if self._error is None:
                super().truncate(size)
        return self.tell() if size is None else size

    def check(self) -> None:
        """Raises the first error, if there was one."""
        if self._error is not None:
            raise self._error

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._error = error
