"""Endless training batches and complete evaluation batches, read by PyTorch's DataLoader."""

import atexit
import contextlib
import functools
import multiprocessing
import pickle
import signal
import weakref
from collections.abc import Collection, Generator, Iterable, Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import torch
from absl import logging
from torch.utils.data import DataLoader

from objdisc_jax.data import sampler
from objdisc_jax.data.dataset import Batch, Dataset, load
from objdisc_jax.data.errors import DataError

_OF_THE_MAIN_PROCESS = {signal.SIGTERM, signal.SIGINT}
"""Signals that whole groups of processes get, and that are for the main one to handle."""

__all__ = ["Batch", "Dataset", "eval_batches", "load", "train_batches"]


def train_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    fields: Collection[str] = ("image",),
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
) -> Generator[Batch, None, None]:
    """Returns the endless training batches from `start_step` on, as this process sees them.

    Batch n depends on the data set, the batch size, the seed and n alone; how many processes share
    it and how many workers read it makes no difference.

    Args:
        dataset: the split to train on.
        batch_size: global batch size; this process gets batch_size / process_count of each batch.
        seed: of the order of the examples.
        fields: what is read of them.
        start_step: number of the first batch, which is the step to resume from.
        process_index: this process, in 0 ... process_count - 1.
        process_count: number of processes that share a batch.
        num_workers: worker processes that read; 0 reads in this process.

    Raises:
        DataError: the batch cannot be divided evenly among the processes or, while iterating,
            the set lacks a field or a record cannot be read. A data set with
            `on_bad_image = "skip"` puts another example in the place of one that cannot be read.
    """
    positions = sampler.train_positions(
        len(dataset),
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        process_index=process_index,
        process_count=process_count,
    )
    return _batches(_Source(dataset, fields, replace=True), positions, num_workers)


def eval_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    fields: Collection[str] | None = None,
    num_images: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
) -> Generator[Batch, None, None]:
    """Returns batches that hold every example once, in order, padded to full size.

    Padding has `valid` False, and so has an example that cannot be read if the data set has
    `on_bad_image = "skip"`. All processes get the same number of batches.

    Arguments and errors are those of `train_batches`, except that `fields` None reads all fields,
    and that `num_images`, if given, ends the split after so many examples.
    """
    positions = sampler.eval_positions(
        len(dataset) if num_images is None else min(num_images, len(dataset)),
        batch_size=batch_size,
        process_index=process_index,
        process_count=process_count,
    )
    return _batches(_Source(dataset, fields, replace=False), positions, num_workers)


class _Source:
    """The data set as processes read it: what DataLoader takes for a data set."""

    def __init__(self, dataset: Dataset, fields: Collection[str] | None, *, replace: bool):
        self.read = functools.partial(dataset.read_or_replace, names=fields, replace=replace)

    def __getitems__(self, positions: np.ndarray) -> tuple[dict[str, Any], Any] | DataError:
        # A raised error would arrive with the worker's traceback in its message: hand it over.
        try:
            batch, skipped = self.read(positions)
        except DataError as error:
            return error
        # Large arrays go by shared memory as tensors; small arrays travel faster through the pipe.
        return {k: v if v.ndim == 1 else torch.from_numpy(v) for k, v in batch.items()}, skipped


def _batches(
    source: _Source, positions: Iterable[np.ndarray], num_workers: int
) -> Generator[Batch, None, None]:
    """Yields batches; logs and counts the bad images that were skipped, each once."""
    bad: set[int] = set()
    with contextlib.closing(
        read_ahead(
            source, positions, num_workers=num_workers, in_process="--config.data.num_workers=0"
        )
    ) as batches:
        for found in batches:
            if isinstance(found, DataError):
                raise found
            batch, skipped = found
            for record in sorted(skipped.keys() - bad):
                bad.add(record)
                logging.warning(
                    "Skipped image %d (%d skipped so far). %s", record, len(bad), skipped[record]
                )
            yield {key: np.asarray(value) for key, value in batch.items()}


def read_ahead(
    source: Any, requests: Iterable[Any], *, num_workers: int, in_process: str, prefetch: int = 2
) -> Generator[Any, None, None]:
    """Returns `source.__getitems__(request)` of each request, in their order.

    Worker processes begin at once, before the first result is asked for.

    Args:
        source: can be pickled.
        requests: what is asked of it, one after another.
        num_workers: worker processes; 0 reads in this process, when a result is asked for.
        in_process: the option that says so to a user.
        prefetch: requests that each worker may be ahead.

    Raises:
        DataError: while iterating, if a worker process dies.
    """
    loader = DataLoader(
        source,
        batch_sampler=requests,  # pyright: ignore[reportArgumentType]
        collate_fn=_unchanged,
        num_workers=num_workers,
        multiprocessing_context=_workers_context() if num_workers else None,
        worker_init_fn=_start_worker,
        prefetch_factor=prefetch if num_workers else None,
    )
    results = _until_one_dies(iter(loader), in_process)
    _open.add(results)
    return results


_open: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()


@atexit.register
def _close_open_ones() -> None:
    """Ends workers when a program ends: SIGTERM, which multiprocessing sends then, does not."""
    for results in list(_open):
        results.close()


def _until_one_dies(results: Iterator[Any], in_process: str) -> Generator[Any, None, None]:
    try:
        yield from results
        return
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        # PyTorch notices a death itself, or a batch in shared memory is no longer there.
        is_of_death = not isinstance(error, RuntimeError) or "exited unexpectedly" in str(error)
        if not is_of_death or "in DataLoader worker process" in str(error):
            raise
        reason = str(error) or type(error).__name__
    finally:
        # The traceback of an error keeps this frame, but must not keep the workers.
        del results
    # Out here, where no traceback of the first error keeps the workers either.
    raise DataError(
        f"A data worker process died ({reason}). It may have run out of memory or of shared "
        "memory (/dev/shm), or was killed. Free memory, or try fewer workers: "
        f"{in_process} reads in the main process."
    )


def _workers_context() -> BaseContext:
    """Workers fork from a fresh server: neither this process's threads nor its JAX reach them.

    They end at once. A spawned worker would let Python clean up first, which aborts it ("terminate
    called without an active exception") if PyTorch is just then sending a batch on another thread.

    Schedulers send SIGTERM, and terminals SIGINT, to all processes of a job. The main one ends the
    workers when it has saved; server and workers inherit that the signals are blocked. The tracker
    of resources ignores them; it has to run before, since starting it unblocks them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_MAIN_PROCESS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _start_worker(worker: int) -> None:
    """Leaves the processor to the other workers, and requests to stop to the main process."""
    del worker
    torch.set_num_threads(1)
    # Once more: another library's server, whose signals are not blocked, may have been running.
    signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_MAIN_PROCESS)


def _unchanged(batch: object) -> object:
    return batch
