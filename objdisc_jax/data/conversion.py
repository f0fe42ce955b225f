"""Converts a source of records to an HDF5 file in our layout: in parallel, and restartable.

Records are decoded and compressed by threads and written to the output as they are. The output is
of no use before it is complete, so they are also kept as parts, of a thousand records or less, in
the folder `.NAME.parts` beside it. Each part takes its name when it is complete; after an
interruption the same command copies the parts and goes on behind the last one. What they were made
from, and how, stands in a manifest: parts of anything else are never used.
"""

import collections
import dataclasses
import itertools
import os
import pathlib
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any, Generic, TypeVar

import numpy as np
from tqdm import tqdm

from objdisc_jax import files
from objdisc_jax.data import datasets, hdf5_writer, outputs
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.hdf5_writer import Records, length
from objdisc_jax.data.splits import scaled_splits, to_attributes

VERSION = 1
"""Bumped whenever the converted files change."""

# A part is finished when it has so many records, or bytes.
_PART_RECORDS = 1000
_PART_BYTES = 16 << 20

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Source(Generic[Item]):
    """Where records come from.

    `items(k)` yields what there is to decode from record number k on, one item per record.
    `decode(first, items)` makes arrays, [n, ...] each, of items and the number of the first; it is
    called by several threads at once.
    """

    identity: Mapping[str, Any]  # what distinguishes this conversion from any other; JSON
    num_records: int  # how many records to convert; there may be fewer
    items: Callable[[int], Iterator[Item]]
    decode: Callable[[int, list[Item]], Records]
    block: int  # how many records to decode at once
    images: Collection[str] = hdf5_writer.IMAGES  # arrays that are read one record at a time


def declared(dataset: str, variant: str = "") -> DatasetDeclaration:
    """Returns a data set as its module declares it by default, or a variant; both must exist."""
    module = datasets.get(dataset)
    config = module.default_config()
    if variant:
        if "variant" not in config:
            raise DataError(f"The data set '{dataset}' has no variants: leave out --variant.")
        config.variant = variant
    return module.declare(config)


def identity_of(path: pathlib.Path) -> dict[str, Any]:
    """Returns what distinguishes a file, which must exist, from its earlier and later versions."""
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
    identity = {"converter": VERSION, "layout": hdf5_writer.LAYOUT_VERSION, **source.identity}
    with (
        outputs.restartable(path, identity, parts="*.npz", overwrite=overwrite) as folder,
        hdf5_writer.new_file(
            path,
            num_records=source.num_records,
            attributes={},
            images=source.images,
            overwrite=overwrite,
            partial=folder / "output.tmp",
        ) as writer,
        tqdm(
            total=source.num_records, desc=path.name, unit=" records", disable=not show_progress
        ) as progress,
        futures.ThreadPoolExecutor(1) as background,
    ):
        num_records = 0
        for part in sorted(folder.glob("*.npz")):
            if int(part.stem) != num_records:
                raise DataError(f"{folder} lacks a part: remove the folder.")
            records = _load(part)
            writer.write(num_records, records)
            num_records += length(records)
        progress.reset()
        progress.initial = progress.n = num_records

        def store(start: int, blocks: list[Records]) -> None:
            records = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}
            part = folder / f"{start:09d}.npz"
            with files.replacing(part, durable=True) as partial, partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **records)
            writer.write(start, records)

        def counted(blocks: Iterator[Records]) -> Iterator[Records]:
            for block in blocks:
                progress.update(length(block))
                yield block

        storing = background.submit(int)
        for blocks in _batched(counted(_packed_blocks(source, num_records, workers))):
            storing.result()  # one at a time: more would only fill the memory
            storing = background.submit(store, num_records, blocks)
            num_records += sum(map(length, blocks))
        storing.result()
        if not num_records:
            raise DataError(f"There is nothing to write to {path}: the input holds no records.")
        writer.finish(num_records, attributes(num_records), arrays or {})
    return num_records


def generate(
    path: str | os.PathLike[str],
    num_records: int,
    decode: Callable[[int, list[int]], Records],
    *,
    made_by: Mapping[str, Any],
    block: int,
    splits: Mapping[str, range] | None = None,
    attributes: Mapping[str, Any] | None = None,
    images: Collection[str] = hdf5_writer.IMAGES,
    **options: Any,
) -> None:
    """Writes a file of records that are made from their numbers alone, under a progress bar.

    Args:
        path: the file.
        num_records: how many.
        decode: as in `Source`; the items are the records' numbers.
        made_by: the generator, its version and its arguments; attributes of the file, too.
        block: as in `Source`.
        splits: declared ones, which are scaled to the number of records; None states none.
        attributes: further ones of the file.
        images: as in `Source`.
        **options: of `convert`.

    Raises:
        DataError: there are too few records to divide, or the file exists or cannot be written.
    """
    stated = {**made_by, **(attributes or {})}
    if splits is not None:
        stated |= to_attributes(scaled_splits(splits, num_records))
    source = Source(
        identity={**made_by, "num_images": num_records},
        num_records=num_records,
        items=lambda start: iter(range(start, num_records)),
        decode=decode,
        block=block,
        images=images,
    )
    convert(source, path, attributes=lambda _: stated, **options)


def _batched(blocks: Iterator[Records]) -> Iterator[list[Records]]:
    """Yields as many blocks at a time as make a part."""
    batch: list[Records] = []
    num_records = num_bytes = 0
    for block in blocks:
        batch.append(block)
        num_records += length(block)
        num_bytes += sum(values.nbytes for values in block.values())
        if num_records >= _PART_RECORDS or num_bytes >= _PART_BYTES:
            yield batch
            batch, num_records, num_bytes = [], 0, 0
    if batch:
        yield batch


def _packed_blocks(source: Source[Item], start: int, workers: int) -> Iterator[Records]:
    """Yields decoded and compressed blocks of records in order; `workers` threads make them."""

    def packed(numbered: tuple[int, list[Item]]) -> Records:
        return hdf5_writer.pack(source.decode(*numbered), source.images)

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


def _load(part: pathlib.Path) -> Records:
    """Reads the records of a part."""
    try:
        with np.load(part) as arrays:
            return dict(arrays)
    except (ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"The part {part} is damaged ({error}). Remove its folder.") from None
