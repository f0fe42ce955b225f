"""The script and the file it writes."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from objdisc_jax.data import datasets, hdf5_writer, loader
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.synthetic import tetrominoes
from tests.data.examples import with_small_disk

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "generate_tetrominoes.py"


def _run(*arguments, largest=None):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    if largest is not None:
        command = with_small_disk(command, largest)
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("generated") / "new folder" / "tetrominoes.h5"
    _run("--num-images", 1300, "--seed", 4, "--output", path).check_returncode()
    return path


def test_file_holds_the_generated_records(file):
    expected = tetrominoes.generate(4, 0, 1300)
    with h5py.File(file) as written:
        assert set(written) == set(expected)
        for key, values in expected.items():
            np.testing.assert_array_equal(written[key][()], values, strict=True)


def test_images_are_chunked_for_random_reads(file):
    with h5py.File(file) as written:
        assert written["image"].chunks == (1, 35, 35, 3)
        assert written["segmentation"].chunks == (1, 35, 35)


def test_attributes_say_where_the_file_comes_from(file):
    with h5py.File(file) as written:
        attributes = dict(written.attrs)
    assert attributes["seed"] == 4
    assert attributes["generator_version"] == tetrominoes.VERSION


def test_reader_obeys_the_splits_of_a_small_file(file):
    config = datasets.get("tetrominoes").default_config()
    config.path = str(file)
    sizes = {split: len(loader.load(config, split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 1201, "val": 93, "test": 6}


def test_existing_file_is_kept_unless_told_otherwise(file):
    before = file.read_bytes()
    refused = _run("--num-images", 5, "--output", file)
    assert refused.returncode == 1
    assert "exists already" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert file.read_bytes() == before


def test_existing_file_is_replaced_when_told_so(tmp_path):
    path = tmp_path / "old.h5"
    path.write_text("something old")
    _run("--num-images", 5, "--output", path, "--overwrite").check_returncode()
    assert h5py.is_hdf5(path)
    assert [*tmp_path.iterdir()] == [path]


def test_full_disk_is_an_error_that_leaves_nothing_behind(tmp_path):
    ended = _run("--num-images", 5_000, "--output", tmp_path / "a.h5", largest=200_000)
    assert ended.returncode == 1
    assert "could not be written: File too large" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--num-images", 2], "at least 3"), (["--seed", -1], "0 to 2147483647")],
)
def test_wrong_arguments_are_errors(tmp_path, arguments, message):
    ended = _run(*arguments, "--output", tmp_path / "a.h5")
    assert ended.returncode in (1, 2)
    assert message in ended.stderr
    assert not [*tmp_path.iterdir()]


def test_interrupted_writing_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.h5"

    def write_half():
        with hdf5_writer.new_file(path, num_records=10, attributes={}) as writer:
            writer.write(0, tetrominoes.generate(0, 0, 5))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert not [*tmp_path.iterdir()]


def test_folder_in_place_of_the_output_is_an_error(tmp_path):
    writing = hdf5_writer.new_file(tmp_path, num_records=10, attributes={}, overwrite=True)
    with pytest.raises(DataError, match="is a folder"), writing:
        pass
