"""Converts a source of records to an HDF5 file in our layout: in parallel, and restartable.

Records are decoded and compressed by threads and written to the output as they are. The output is
of no use before it is complete, so they are also kept as parts, of a thousand records or less, in
the folder `.NAME.parts` beside it. Each part takes its name when it is complete; after an
interruption the same command copies the parts and goes on behind the last one. What they were made
from, and how, stands in a manifest: parts of anything else are never used.
"""

import collections
import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import pathlib
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np
from tqdm import tqdm

from objdisc_jax.data import hdf5_writer, datasets
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.hdf5_writer import Packed, Records
from objdisc_jax.files import write_atomically

VERSION = 1
"""Bumped whenever the converted files change."""

# A part is finished when it has so many records, or bytes.
_PART_RECORDS = 1000
_PART_BYTES = 16 << 20
_MANIFEST = "manifest.json"

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Source(Generic[Item]):
    """Where records come from.

    Attributes:
        identity: what distinguishes this conversion from any other; JSON.
        num_records: how many records to convert; there may be fewer.
        items: yields what there is to decode from record number k on, one item a record.
        decode: turns the number of the first record and some items into arrays, [n, ...] each;
            called by several threads at once.
        block: how many records to decode at once.
        pictures: names of the arrays that are read one record at a time.
    """

    identity: Mapping[str, Any]
    num_records: int
    items: Callable[[int], Iterator[Item]]
    decode: Callable[[int, list[Item]], Mapping[str, np.ndarray]]
    block: int
    pictures: Collection[str] = hdf5_writer.PICTURES


def generated(
    identity: Mapping[str, Any],
    num_records: int,
    decode: Callable[[int, list[int]], Mapping[str, np.ndarray]],
    block: int,
    pictures: Collection[str] = hdf5_writer.PICTURES,
) -> Source[int]:
    """Returns a source whose records are made from their numbers alone.

    Args:
        identity: of what makes them; the number of records is added.
        num_records: how many.
        decode: as in `Source`; the items are the records' numbers.
        block: as in `Source`.
        pictures: as in `Source`.
    """
    return Source(
        identity={**identity, "num_images": num_records},
        num_records=num_records,
        items=lambda start: iter(range(start, num_records)),
        decode=decode,
        block=block,
        pictures=pictures,
    )


def declared(dataset: str, variant: str = "") -> DatasetDeclaration:
    """Returns a data set as its module declares it by default, or a variant of it.

    Raises:
        DataError: there is no such data set, or variant.
    """
    module = datasets.get(dataset)
    config = module.default_config()
    if variant:
        if "variant" not in config:
            raise DataError(f"The data set '{dataset}' has no variants: leave out --variant.")
        config.variant = variant
    return module.declare(config)


def identity_of(path: pathlib.Path) -> dict[str, Any]:
    """Returns what distinguishes a file from its earlier and later versions.

    Raises:
        DataError: there is no such file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(
            f"The input {path} cannot be read: {error.strerror or error}. "
            "Name the downloaded file with --input FILE."
        ) from None
    return {"input": str(path), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def convert(
    source: Source[Any],
    path: str | os.PathLike[str],
    *,
    attributes: Callable[[int], Mapping[str, Any]],
    arrays: Mapping[str, np.ndarray] | None = None,
    overwrite: bool = False,
    workers: int = 1,
    show_progress: bool = True,
) -> int:
    """Converts a source to a file, under a progress bar.

    Args:
        source: of the records.
        path: the file.
        attributes: of a file of so many records.
        arrays: further ones, which do not have one entry for each record.
        overwrite: whether the file may be replaced, and parts of another conversion removed.
        workers: number of threads.
        show_progress: whether to draw progress bars.

    Returns:
        The number of records.

    Raises:
        DataError: an input is damaged or empty, or the file exists or cannot be written.
    """
    path = pathlib.Path(path).expanduser().absolute()
    hdf5_writer.check_free(path, overwrite)
    with (
        locked(path),
        _Parts(path, source.identity, overwrite) as parts,
        hdf5_writer.new_file(
            path,
            num_records=source.num_records,
            attributes={},
            pictures=source.pictures,
            overwrite=overwrite,
            partial=parts.folder / f"output.{os.getpid()}.tmp",
        ) as writer,
        tqdm(
            total=source.num_records, desc=path.name, unit=" records", disable=not show_progress
        ) as progress,
        futures.ThreadPoolExecutor(1) as background,
    ):
        num_records = 0
        for start, records in parts.load():
            if start != num_records:
                raise DataError(f"{parts.folder} lacks a part: remove the folder.")
            writer.write(start, records)
            num_records += _length(records)
        progress.reset()
        progress.initial = progress.n = num_records

        def store(start: int, blocks: list[Records]) -> None:
            records = _joined(blocks)
            parts.add(start, records)
            writer.write(start, records)

        def counted(blocks: Iterator[Records]) -> Iterator[Records]:
            for block in blocks:
                progress.update(_length(block))
                yield block

        storing = background.submit(int)
        for blocks in _batched(counted(_packed_blocks(source, num_records, workers))):
            storing.result()  # one at a time: more would only fill the memory
            storing = background.submit(store, num_records, blocks)
            num_records += sum(map(_length, blocks))
        storing.result()
        if not num_records:
            raise DataError(f"There is nothing to write to {path}: the input holds no records.")
        writer.finish(num_records, attributes(num_records), arrays or {})
    parts.remove()
    return num_records


def _batched(blocks: Iterator[Records]) -> Iterator[list[Records]]:
    """Yields as many blocks at a time as make a part."""
    batch: list[Records] = []
    num_records = num_bytes = 0
    for block in blocks:
        batch.append(block)
        num_records += _length(block)
        num_bytes += _size(block)
        if num_records >= _PART_RECORDS or num_bytes >= _PART_BYTES:
            yield batch
            batch, num_records, num_bytes = [], 0, 0
    if batch:
        yield batch


def _packed_blocks(source: Source[Item], start: int, workers: int) -> Iterator[Records]:
    """Yields decoded and compressed blocks of records in order; `workers` threads make them."""

    def packed(numbered: tuple[int, list[Item]]) -> Records:
        return hdf5_writer.pack(source.decode(*numbered), source.pictures)

    items = itertools.islice(source.items(start), source.num_records - start)
    blocks = iter(lambda: list(itertools.islice(items, source.block)), [])
    return in_order(packed, zip(itertools.count(start, source.block), blocks), workers)


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yields a function's results in the order of the items; `workers` threads call it.

    Items are taken, and results kept, no further ahead than keeps the threads busy: more would only
    fill the memory.
    """
    waiting: collections.deque[futures.Future[Result]] = collections.deque()
    with futures.ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                del item
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class _Parts:
    """The finished parts of an output.

    A `with` statement removes a folder that holds none in the end, and adds to a `DataError` that
    they are kept.
    """

    def __init__(self, output: pathlib.Path, identity: Mapping[str, Any], overwrite: bool):
        self.folder = output.with_name(f".{output.name}.parts")
        self._output = output
        self._files: list[pathlib.Path] = []
        versions = {"converter": VERSION, "layout": hdf5_writer.LAYOUT_VERSION}
        with self._explained():
            self._open(json.dumps({**versions, **identity}, indent=1), overwrite)

    def _open(self, manifest: str, overwrite: bool) -> None:
        """Finds the finished parts, and removes what else an interruption left behind."""
        file = self.folder / _MANIFEST
        found = file.read_text() if file.exists() else ""
        parts = sorted(self.folder.glob("*.npz"))
        if found != manifest:
            if found and parts and not overwrite:
                raise DataError(
                    f"The folder {self.folder} holds what an interrupted conversion has done, but "
                    f"of another input, or to another end:\n{found}\nRepeat that command to "
                    "finish it, or drop what it has done with --overwrite."
                )
            shutil.rmtree(self.folder, ignore_errors=True)
            write_atomically(file, manifest)
            return
        self._files = parts
        for stray in set(self.folder.iterdir()) - {file, *parts}:
            stray.unlink()

    def load(self) -> Iterator[tuple[int, Records]]:
        """Yields the finished parts in order: the number of the first record, and the records."""
        return ((int(part.stem), _load(part)) for part in self._files)

    def add(self, start: int, records: Records) -> None:
        """Makes a part of the records from number `start` on."""
        part = self.folder / f"{start:09d}.npz"
        partial = part.with_suffix(f".{os.getpid()}.tmp")
        with self._explained():
            try:
                with open(partial, "wb") as file:
                    _save(file, records)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(part)
            finally:
                partial.unlink(missing_ok=True)
        self._files.append(part)

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "_Parts":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if not self._files:
            self.remove()
        elif isinstance(error, DataError):
            raise DataError(
                f"{error} What is done is kept in {self.folder}: the same command goes on there, "
                "as long as the input stays the same."
            ) from None

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what goes wrong with the parts' files into a `DataError`."""
        try:
            yield
        except OSError as error:
            raise DataError(
                f"The parts of {self._output} could not be written to {self.folder}: "
                f"{error.strerror or error}. Free some space, or see to the permissions."
            ) from None


@contextlib.contextmanager
def locked(output: pathlib.Path) -> Iterator[None]:
    """Keeps others that call this away from an output, a file or a folder.

    Raises:
        DataError: another process has called this, or the output's folder cannot be written to.
    """
    lock = output.with_name(f".{output.name}.lock")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        file = open(lock, "w")
    except OSError as error:
        raise DataError(
            f"{output} could not be written: {error.strerror or error}. See to the permissions, or "
            "write elsewhere with --output FILE."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"Another command is writing {output}. Wait for it, or end it."
            ) from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _length(records: Records) -> int:
    return len(next(iter(records.values())))


def _size(records: Records) -> int:
    """Returns the bytes that records take in memory."""
    return sum(
        len(values.chunks) if isinstance(values, Packed) else values.nbytes
        for values in records.values()
    )


def _joined(blocks: list[Records]) -> Records:
    """Returns consecutive records as one."""

    def joined(pieces: list[Any]) -> np.ndarray | Packed:
        if not isinstance(pieces[0], Packed):
            return np.concatenate(pieces)
        fields = [field.name for field in dataclasses.fields(Packed)]
        return Packed(*(np.concatenate([getattr(p, name) for p in pieces]) for name in fields))

    return {key: joined([block[key] for block in blocks]) for key in blocks[0]}


def _save(file: BinaryIO, records: Records) -> None:
    """Writes the records of a part."""
    arrays: dict[str, np.ndarray] = {}
    for key, values in records.items():
        if isinstance(values, Packed):
            for field in dataclasses.fields(Packed):
                arrays[f"{key}:{field.name}"] = getattr(values, field.name)
        else:
            arrays[key] = values
    np.savez(file, allow_pickle=False, **arrays)


def _load(part: pathlib.Path) -> Records:
    """Reads the records of a part."""
    records: dict[str, Any] = {}
    try:
        with np.load(part) as arrays:
            for name in arrays:
                key, _, field = name.partition(":")
                if field:
                    records.setdefault(key, {})[field] = arrays[name]
                else:
                    records[key] = arrays[name]
    except (ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"The part {part} is damaged ({error}). Remove its folder.") from None
    return {
        key: Packed(**values) if isinstance(values, dict) else values
        for key, values in records.items()
    }
