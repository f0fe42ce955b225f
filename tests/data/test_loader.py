import dataclasses
import itertools
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from objdisc_jax.data import datasets, loader
from objdisc_jax.data.errors import DataError

# Four workers are more than some test machines have cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def config(tetrominoes_file):
    config = datasets.get("tetrominoes").default_config()
    config.path = str(tetrominoes_file)
    return config


@pytest.fixture(scope="module")
def dataset(config):
    return loader.load(config, "train")


@pytest.fixture(scope="module")
def expected(dataset):
    """The first five training batches, read in this process."""
    return _take(loader.train_batches(dataset, batch_size=12, seed=5), 5)


def _take(batches, count):
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def _assert_equal(batches, expected):
    for batch, other in zip(batches, expected, strict=True):
        assert batch.keys() == other.keys()
        for key, values in other.items():
            assert type(batch[key]) is np.ndarray
            np.testing.assert_array_equal(batch[key], values, strict=True)


@pytest.mark.parametrize("num_workers", [1, 4])
def test_training_batches_are_the_same_for_any_number_of_workers(dataset, expected, num_workers):
    batches = loader.train_batches(dataset, batch_size=12, seed=5, num_workers=num_workers)
    _assert_equal(_take(batches, 5), expected)


def test_spawned_workers_read_the_same(dataset, monkeypatch):
    # All batches: a spawned worker that is ended while it sends one may abort (see
    # `_workers_context`).
    expected = list(loader.eval_batches(dataset, batch_size=24))
    monkeypatch.setattr(loader, "_workers_context", lambda: multiprocessing.get_context("spawn"))
    _assert_equal(loader.eval_batches(dataset, batch_size=24, num_workers=2), expected)


def test_two_epochs_have_different_orders(dataset):
    batches = _take(loader.train_batches(dataset, batch_size=64, seed=5), 2)
    first, second = (batch["index"] for batch in batches)
    assert sorted(first) == sorted(second) == list(dataset.indices)
    assert (first != second).any()


def test_evaluation_batches_are_the_same_with_workers(dataset):
    here, there = (list(loader.eval_batches(dataset, batch_size=24, num_workers=n)) for n in (0, 2))
    _assert_equal(there, here)


def test_resumed_training_continues_the_batches(dataset, expected):
    batches = loader.train_batches(dataset, batch_size=12, seed=5, start_step=3)
    _assert_equal(_take(batches, 2), expected[3:])


def test_processes_share_the_global_batch(dataset, expected):
    parts = [
        _take(
            loader.train_batches(dataset, batch_size=12, seed=5, process_index=p, process_count=3),
            5,
        )
        for p in range(3)
    ]
    joined = [
        {key: np.concatenate([part[key] for part in batch]) for key in batch[0]}
        for batch in zip(*parts, strict=True)
    ]
    _assert_equal(joined, expected)


@pytest.mark.parametrize("process_count", [1, 3])
def test_training_runs_through_epochs_without_dropping_anything(dataset, process_count):
    batches = [
        batch
        for process in range(process_count)
        for batch in _take(
            loader.train_batches(
                dataset,
                batch_size=12,
                seed=0,
                process_index=process,
                process_count=process_count,
            ),
            16,  # three epochs
        )
    ]
    index = np.concatenate([batch["index"] for batch in batches])
    np.testing.assert_array_equal(np.bincount(index), np.full(len(dataset), 3))
    assert all(batch["valid"].all() for batch in batches)


@pytest.mark.parametrize("process_count", [1, 3])
def test_last_evaluation_batch_is_padded(dataset, process_count):
    parts = [
        list(
            loader.eval_batches(
                dataset,
                batch_size=24,
                num_images=40,
                process_index=p,
                process_count=process_count,
            )
        )
        for p in range(process_count)
    ]
    for batches in parts:
        assert [len(batch["image"]) for batch in batches] == [24 // process_count] * 2
    batches = [batch for step in zip(*parts, strict=True) for batch in step]
    valid = np.concatenate([batch["valid"] for batch in batches])
    index = np.concatenate([batch["index"] for batch in batches])
    np.testing.assert_array_equal(index[valid], dataset.indices[:40])
    assert (index[~valid] == -1).all()
    assert all((batch["image"][~batch["valid"]] == 0).all() for batch in batches)


def test_evaluation_on_more_images_than_there_are_uses_all(dataset):
    batches = list(loader.eval_batches(dataset, batch_size=24, num_images=10**6))
    assert sum(batch["valid"].sum() for batch in batches) == len(dataset)


def test_batch_is_not_divisible_error_comes_before_the_first_batch(dataset):
    with pytest.raises(DataError, match="cannot be divided evenly"):
        loader.train_batches(dataset, batch_size=10, seed=0, process_count=3)


def test_set_without_masks_has_no_segmentation(dataset):
    declaration = dataclasses.replace(dataset.declaration, has_masks=False)
    bare = dataclasses.replace(
        dataset, declaration=declaration, reader=declaration.reader(declaration)
    )
    assert set(bare.read([0])) == {"image", "valid", "index"}


class _Probe:
    """A reader whose images tell what the process that reads them is like."""

    def read(self, record, names):
        image = np.zeros((35, 35, 3), np.uint8)
        image[0, 0] = "jax" in sys.modules, torch.get_num_threads(), "torch" in sys.modules
        return {"image": image}


def test_workers_never_import_jax_and_use_one_thread(dataset):
    probe = dataclasses.replace(dataset, reader=_Probe())
    (batch,) = _take(loader.train_batches(probe, batch_size=2, seed=0, num_workers=1), 1)
    np.testing.assert_array_equal(batch["image"][0, 0, 0], [False, 1, True])


def test_data_error_of_a_worker_arrives_with_its_message_alone(config, tmp_path):
    broken = tmp_path / "broken.h5"
    broken.write_bytes(b"")
    dataset = loader.load(config, "train")
    declaration = dataclasses.replace(dataset.declaration, path=str(broken))
    dataset = dataclasses.replace(
        dataset, declaration=declaration, reader=declaration.reader(declaration)
    )
    errors = []
    for num_workers in (0, 1):
        batches = loader.train_batches(dataset, batch_size=4, seed=0, num_workers=num_workers)
        with pytest.raises(DataError, match=r"broken\.h5") as error:
            next(batches)
        errors.append(str(error.value))
    assert errors[0] == errors[1]
    assert "Traceback" not in errors[0]


class _Crashing:
    """A reader that takes its process down, as lack of memory would."""

    def read(self, record, names):
        os._exit(1)


def test_dead_worker_is_an_error_that_says_what_to_do(dataset):
    deadly = dataclasses.replace(dataset, reader=_Crashing())
    batches = loader.train_batches(deadly, batch_size=4, seed=0, num_workers=1)
    with pytest.raises(DataError, match=r"worker process died .*num_workers=0"):
        next(batches)


def test_program_that_leaves_an_iterator_open_ends_cleanly(tetrominoes_file, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"""
from objdisc_jax.data import datasets, loader

if __name__ == "__main__":
    config = datasets.get("tetrominoes").default_config()
    config.path = {str(tetrominoes_file)!r}
    dataset = loader.load(config, "train")
    closed = loader.train_batches(dataset, batch_size=4, seed=0, num_workers=1)
    next(closed)
    closed.close()
    left_open = loader.train_batches(dataset, batch_size=4, seed=0, num_workers=1)
    print(next(left_open)["image"].shape)
"""
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(script)], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "(4, 35, 35, 3)\n", "")
