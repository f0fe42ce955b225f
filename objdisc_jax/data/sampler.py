"""Which examples make up which batch: a pure function of seed, step and process.

Training sees one endless stream, the permutations of all epochs laid end to end. Global batch n
is stream[n * b : (n + 1) * b], and process p of P takes the p-th of P equal, contiguous blocks of
it. So many processes see what one would see, nothing is dropped, and a run resumes from its step
number alone. Examples are numbered by their position in the split, from 0 to num_examples - 1.
"""

import functools
import itertools
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Int64

from objdisc_jax.data.errors import DataError

# Stands for "no example": fills up the last evaluation batch.
PADDING = -1


def train_positions(
    num_examples: int,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Int64[np.ndarray, " b"]]:
    """Returns this process's part of the training batches `start_step`, `start_step + 1`, ...

    Args:
        num_examples: size of the split, at least 1.
        batch_size: global batch size, over all processes.
        seed: of the order; epoch e is permuted by (seed, e).
        start_step: number of the first batch.
        process_index: this process, in 0 ... process_count - 1.
        process_count: number of processes that share a batch.

    Raises:
        DataError: the batch cannot be divided evenly among the processes.
    """
    block = process_block(batch_size, process_index, process_count)
    # One batch spans two epochs at most, unless the epochs are tiny.
    permutation = functools.lru_cache(maxsize=2)(
        functools.partial(epoch_permutation, num_examples, seed)
    )
    starts = (step * batch_size for step in itertools.count(start_step))
    return (
        _stream(permutation, num_examples, start + block.start, start + block.stop)
        for start in starts
    )


def eval_positions(
    num_examples: int, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Int64[np.ndarray, " b"]]:
    """Returns this process's part of the batches that hold every example once, in order.

    The last global batch is filled up with `PADDING`, so every process gets the same number of
    batches, all of the same size. Arguments and errors are those of `train_positions`.
    """
    block = process_block(batch_size, process_index, process_count)
    batches = (
        np.arange(start + block.start, start + block.stop)
        for start in range(0, num_examples, batch_size)
    )
    return (np.where(batch < num_examples, batch, PADDING) for batch in batches)


def process_block(batch_size: int, process_index: int, process_count: int) -> range:
    """Returns the part of a global batch that one process reads, as a range into the batch."""
    if batch_size < 1 or batch_size % process_count:
        raise DataError(
            f"The batch size {batch_size} cannot be divided evenly among {process_count} "
            f"process(es). It counts all processes together: choose a positive multiple of "
            f"{process_count}."
        )
    size = batch_size // process_count
    return range(process_index * size, (process_index + 1) * size)


def epoch_permutation(num_examples: int, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    """Returns the order of the examples in one epoch."""
    return np.random.default_rng((seed, epoch)).permutation(num_examples)


def _stream(
    permutation: Callable[[int], Int64[np.ndarray, " n"]], num_examples: int, start: int, stop: int
) -> Int64[np.ndarray, " m"]:
    """Returns the elements start ... stop - 1 of the permutations of all epochs, end to end."""
    first, last = start // num_examples, (stop - 1) // num_examples
    origins = ((epoch, epoch * num_examples) for epoch in range(first, last + 1))
    return np.concatenate(
        [permutation(epoch)[max(start - origin, 0) : stop - origin] for epoch, origin in origins]
    )
