"""Which examples make up which batch: a pure function of seed, step and process.

Training sees one endless stream, the permutations of all epochs laid end to end. Global batch n
is stream[n * b : (n + 1) * b], and process p of P takes the p-th of P equal, contiguous blocks of
it. So many processes see what one would see, nothing is dropped, and a run resumes from its step
number alone. Examples are numbered by their position in the split, from 0 to num_examples - 1.
"""

import functools
import itertools
from collections.abc import Iterator

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

    The order of epoch e is that of (seed, e). Other arguments and errors are those of
    `loader.train_batches`; there is at least one example.
    """
    block = _process_block(batch_size, process_index, process_count)

    # One batch spans two epochs at most, unless the epochs are tiny.
    @functools.lru_cache(maxsize=2)
    def permutation(epoch: int) -> Int64[np.ndarray, " n"]:
        return epoch_permutation(num_examples, seed, epoch)

    def elements(start: int, stop: int) -> Int64[np.ndarray, " m"]:
        epochs = range(start // num_examples, (stop - 1) // num_examples + 1)
        origins = [(epoch, epoch * num_examples) for epoch in epochs]
        return np.concatenate([permutation(e)[max(start - o, 0) : stop - o] for e, o in origins])

    starts = itertools.count(start_step * batch_size, batch_size)
    return (elements(start + block.start, start + block.stop) for start in starts)


def eval_positions(
    num_examples: int, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[Int64[np.ndarray, " b"]]:
    """Returns this process's part of the batches that hold every example once, in order.

    The last global batch is filled up with `PADDING`, so every process gets the same number of
    batches, all of the same size.
    """
    block = _process_block(batch_size, process_index, process_count)
    starts = range(0, num_examples, batch_size)
    batches = (np.arange(start + block.start, start + block.stop) for start in starts)
    return (np.where(batch < num_examples, batch, PADDING) for batch in batches)


def epoch_permutation(num_examples: int, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    """Returns the order of the examples in one epoch."""
    return np.random.default_rng((seed, epoch)).permutation(num_examples)


def _process_block(batch_size: int, process_index: int, process_count: int) -> range:
    """Returns the part of a global batch that one process reads, as a range into the batch."""
    if batch_size < 1 or batch_size % process_count:
        raise DataError(
            f"The batch size {batch_size} cannot be divided evenly among {process_count} "
            f"process(es). It counts all processes together: choose a positive multiple of "
            f"{process_count}."
        )
    size = batch_size // process_count
    return range(process_index * size, (process_index + 1) * size)
