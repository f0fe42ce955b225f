import itertools

import numpy as np
import pytest

from objdisc_jax.data import sampler
from objdisc_jax.data.errors import DataError


def _stream(num_batches, num_examples=50, batch_size=12, seed=3, **kwargs):
    batches = sampler.train_positions(num_examples, batch_size=batch_size, seed=seed, **kwargs)
    return list(itertools.islice(batches, num_batches))


def test_every_example_comes_once_per_epoch():
    stream = np.concatenate(_stream(25))  # 300 positions, six epochs of 50
    for epoch in stream.reshape(6, 50):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(50))


def test_epochs_differ_in_order():
    first, second = np.concatenate(_stream(25))[:100].reshape(2, 50)
    assert (first != second).any()


def test_seeds_differ_in_order():
    assert (np.concatenate(_stream(4)) != np.concatenate(_stream(4, seed=4))).any()


@pytest.mark.parametrize("start_step", [1, 4, 5, 1000])
def test_resumed_stream_equals_the_uninterrupted_one(start_step):
    whole = _stream(start_step + 6)
    np.testing.assert_array_equal(_stream(6, start_step=start_step), whole[start_step:])


def test_three_processes_together_equal_one():
    parts = [_stream(25, process_index=p, process_count=3) for p in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), _stream(25))


def test_batch_larger_than_the_split_spans_several_epochs():
    batch = _stream(1, num_examples=5, batch_size=20)[0]
    np.testing.assert_array_equal(np.bincount(batch), [4] * 5)


def test_late_steps_are_found_without_drawing_earlier_epochs():
    batch = _stream(1, num_examples=1_000, start_step=10**9)[0]
    epoch, offset = divmod(12 * 10**9, 1_000)
    expected = sampler.epoch_permutation(1_000, 3, epoch)[offset : offset + 12]
    np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize("process_count", [1, 3])
@pytest.mark.parametrize("num_examples", [1, 12, 23])
def test_evaluation_covers_every_example_once_with_equal_batches(num_examples, process_count):
    parts = [
        list(
            sampler.eval_positions(
                num_examples, batch_size=12, process_index=p, process_count=process_count
            )
        )
        for p in range(process_count)
    ]
    stream = np.concatenate(parts, axis=1).ravel()  # fails unless all have as many batches
    np.testing.assert_array_equal(stream[:num_examples], np.arange(num_examples))
    assert (stream[num_examples:] == sampler.PADDING).all()
    assert len(stream) % 12 == 0


@pytest.mark.parametrize("batch_size", [0, -4, 10])
@pytest.mark.parametrize("positions", [sampler.train_positions, sampler.eval_positions])
def test_batch_that_does_not_divide_is_refused_at_once(positions, batch_size):
    seed = {"seed": 0} if positions is sampler.train_positions else {}
    with pytest.raises(DataError, match=r"cannot be divided evenly among 3 process"):
        positions(100, batch_size=batch_size, process_count=3, **seed)
