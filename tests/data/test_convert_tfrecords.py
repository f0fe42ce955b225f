import dataclasses
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from objdisc_jax.data import conversion, datasets, hdf5_writer, loader, multi_object, tfrecord
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.synthetic import tetrominoes
from tests.data import tfrecords
from tests.data.examples import with_small_disk

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "convert_tfrecords.py"
LAYOUT = multi_object.layout("tetrominoes")
NUM_RECORDS = 260
RECORDS = tetrominoes.generate(3, 0, NUM_RECORDS)
SERIALIZED = [
    tfrecords.example({key: RECORDS[key][number] for key in LAYOUT.features})
    for number in range(NUM_RECORDS)
]
KEYS = LAYOUT.features.keys() - {"mask"} | {"segmentation", "num_objects"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "tetrominoes_train.tfrecords"
    tfrecords.write(path, SERIALIZED, compress=True)
    return path


@pytest.fixture
def output(tmp_path):
    return tmp_path / "new folder" / "tetrominoes.h5"


def _run(*arguments, largest=None):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    if "--dataset" not in arguments:
        command += ["--dataset", "tetrominoes"]
    if largest is not None:
        command = with_small_disk(command, largest)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def _failed(*arguments, **options):
    ended = _run(*arguments, **options)
    assert ended.returncode in (1, 2)
    assert "Traceback" not in ended.stderr
    return ended.stderr


def _convert(file, output, *, block=20, num_records=NUM_RECORDS, overwrite=False, decoded=None):
    """Converts in this process; collects the numbers of the blocks' first records."""
    source = multi_object.source(LAYOUT, file, num_records)

    def decode(first, records):
        if decoded is not None:
            decoded.append(first)
        return source.decode(first, records)

    return conversion.convert(
        dataclasses.replace(source, decode=decode, block=block),
        output,
        attributes=lambda num_records: {"records": num_records},
        overwrite=overwrite,
        show_progress=False,
    )


def _check(output, num_records=NUM_RECORDS):
    """The file holds the first records, and nothing was left beside it."""
    with h5py.File(output) as written:
        assert set(written) == KEYS
        for key in KEYS:
            np.testing.assert_array_equal(written[key][()], RECORDS[key][:num_records], strict=True)
    assert [*output.parent.iterdir()] == [output]


def test_file_holds_the_records_in_our_layout(file, output):
    ended = _run("--input", file, "--output", output)
    ended.check_returncode()
    _check(output)
    assert "tetrominoes_train.tfrecords holds 260 records, not 65000: all were" in ended.stdout
    assert "260/65000" in ended.stderr  # the progress bar
    with h5py.File(output) as written:
        assert written["image"].chunks == (1, 35, 35, 3)
        assert written["segmentation"].chunks == (1, 35, 35)
        assert written["x"].chunks == (16384, 4)
        attributes = dict(written.attrs)
    assert attributes.pop("source_records").tolist() == [0, 260]
    assert attributes.pop("split_train").tolist() == [0, 241]
    assert attributes.pop("split_test").tolist() == [241, 242]
    assert attributes.pop("split_val").tolist() == [242, 260]
    assert attributes == {
        "layout_version": hdf5_writer.LAYOUT_VERSION,
        "dataset": "tetrominoes",
        "variant": "",
        "source": "tetrominoes_train.tfrecords",
        "converter": "objdisc_jax.data.conversion",
        "converter_version": conversion.VERSION,
    }


def test_loader_reads_the_converted_file(file, output):
    _run("--input", file, "--output", output, "--num-records", 100).check_returncode()
    config = datasets.get("tetrominoes").default_config()
    config.path = str(output)
    batch = loader.load(config, "train").read([0, 50])
    np.testing.assert_array_equal(batch["image"], RECORDS["image"][[0, 50]])
    np.testing.assert_array_equal(batch["segmentation"], RECORDS["segmentation"][[0, 50]])


def test_number_of_records_can_be_chosen(file, output):
    ended = _run("--input", file, "--output", output, "--num-records", 7)
    ended.check_returncode()
    assert ended.stdout == ""
    _check(output, 7)


def test_variants_are_converted_with_their_splits(tmp_path, output):
    layout = multi_object.layout("objects_room", "empty_room")
    labels = np.repeat(np.arange(4, dtype=np.uint8), 16)[:, None, None] == np.arange(4)
    planes = np.broadcast_to(labels.T[..., None], (4, 64, 64, 1)) * np.uint8(255)
    features = {"image": np.zeros((64, 64, 3), np.uint8), "mask": planes.swapaxes(1, 2)}
    assert features.keys() == layout.features.keys()
    tfrecords.write(tmp_path / "room.tfrecords", [tfrecords.example(features)] * 5)
    _run(
        *("--dataset", "objects_room", "--variant", "empty_room"),
        *("--input", tmp_path / "room.tfrecords", "--output", output),
    ).check_returncode()
    with h5py.File(output) as written:
        assert written.attrs["variant"] == "empty_room"
        assert written.attrs["split_test"].tolist() == [0, 5]
        assert written["num_objects"][()].tolist() == [0] * 5


def test_result_does_not_depend_on_threads_and_blocks(file, output):
    for workers, block in ((1, 1), (3, 7), (2, 1000)):
        source = dataclasses.replace(multi_object.source(LAYOUT, file, NUM_RECORDS), block=block)
        conversion.convert(source, output, attributes=lambda _: {}, workers=workers, overwrite=True)
        _check(output)


def test_existing_file_is_kept_unless_told_otherwise(file, output):
    output.parent.mkdir()
    output.write_text("something old")
    error = _failed("--input", file, "--output", output)
    assert "exists already" in error
    assert "--overwrite" in error
    assert output.read_text() == "something old"
    _run("--input", file, "--output", output, "--overwrite").check_returncode()
    _check(output)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"".join(map(tfrecords.framed, SERIALIZED[:3]))[:-9], "record 2, at byte 51920"),
        (tfrecords.framed(SERIALIZED[0]) + tfrecords.framed(b"?"), "Record 1 of .*file.tfrecords"),
        (b"", "holds no records"),
        (None, "cannot be read: No such file"),
    ],
)
def test_damaged_input_is_an_error_that_leaves_nothing_behind(tmp_path, output, content, message):
    file = tmp_path / "file.tfrecords"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        _convert(file, output, block=100)
    assert not [*output.parent.glob("*")]


def test_wrong_data_set_is_an_error_without_a_traceback(file, output):
    error = _failed(
        *("--dataset", "multi_dsprites", "--variant", "binarized"),
        *("--input", file, "--output", output),
    )
    assert "It fits --dataset tetrominoes." in error
    assert not [*output.parent.glob("*")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-records", 2], "ask for at least 3"),
        (["--num-records", 0], "at least 1"),
        (["--workers", 0], "at least 1"),
        (["--variant", "train"], "Leave out --variant"),
    ],
)
def test_wrong_arguments_are_errors(file, output, arguments, message):
    assert message in _failed("--input", file, "--output", output, *arguments)
    assert not [*output.parent.glob("*")]


KILLED = """
import dataclasses, os, pathlib, signal
from objdisc_jax.data import conversion, datasets, hdf5_writer, multi_object

def write(self, start, records, write=hdf5_writer.RecordWriter.write):
    if start == {written}:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, start, records)

def decode(first, records):
    if first == {decoded}:
        os.kill(os.getpid(), signal.SIGKILL)
    return source.decode(first, records)

hdf5_writer.RecordWriter.write = write
conversion._PART_BYTES = 1
source = multi_object.source(
    multi_object.layout("tetrominoes"), pathlib.Path({file!r}), {num_records}
)
conversion.convert(
    dataclasses.replace(source, decode=decode, block=20),
    {output!r},
    attributes=lambda num_records: dict(),
)
"""


def _kill(file, output, *, decoded=-1, written=-1):
    """Converts in a process that is killed where that record is decoded, or written."""
    code = KILLED.format(
        file=str(file),
        output=str(output),
        num_records=NUM_RECORDS,
        decoded=decoded,
        written=written,
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert ended.returncode == -9
    assert not output.exists()
    return sorted(path.name for path in output.parent.glob(".*/*.npz"))


def test_killed_conversion_goes_on_behind_the_finished_parts(file, output):
    parts = _kill(file, output, decoded=200)
    assert parts[:2] == ["000000000.npz", "000000020.npz"]
    decoded = []
    assert _convert(file, output, decoded=decoded) == NUM_RECORDS
    assert sorted(decoded) == list(range(20 * len(parts), NUM_RECORDS, 20))
    _check(output)


def test_conversion_may_be_killed_again_and_again(file, output):
    first = _kill(file, output, decoded=200)
    assert _kill(file, output, written=20) == first  # while the finished parts are copied
    again = _kill(file, output, decoded=240)
    assert again[: len(first)] == first
    assert len(again) > len(first)
    decoded = []
    assert _convert(file, output, decoded=decoded) == NUM_RECORDS
    assert sorted(decoded) == list(range(20 * len(again), NUM_RECORDS, 20))
    _check(output)


def test_two_conversions_to_one_file_do_not_meet(file, output):
    output.parent.mkdir()
    with open(output.parent / f".{output.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=r"Another command is writing"):
            _convert(file, output)
    _convert(file, output)
    assert [entry.name for entry in output.parent.iterdir()] == [output.name]


def test_parts_of_another_conversion_are_never_used(file, output, tmp_path):
    _kill(file, output, decoded=200)
    with pytest.raises(DataError, match="Repeat that command") as error:
        _convert(file, output, num_records=100)
    assert '"num_records": 260' in str(error.value)
    other = tmp_path / "other.tfrecords"
    tfrecords.write(other, SERIALIZED[::-1])
    with pytest.raises(DataError, match="of another input"):
        _convert(other, output)
    decoded = []
    _convert(file, output, num_records=100, overwrite=True, decoded=decoded)
    assert sorted(decoded) == list(range(0, 100, 20))
    _check(output, 100)


def test_parts_of_a_changed_input_are_never_used(file, output, tmp_path):
    changing = tmp_path / "changing.tfrecords"
    changing.write_bytes(file.read_bytes())
    _kill(changing, output, decoded=200)
    os.utime(changing, (1, 1))
    with pytest.raises(DataError, match="of another input"):
        _convert(changing, output)


def test_full_disk_is_an_error_and_what_is_done_is_kept(file, output):
    error = _failed("--input", file, "--output", output, largest=20_000)
    assert "could not be written: File too large" in error
    assert not [*output.parent.iterdir()]
    # The part fits, the whole does not.
    error = _failed("--input", file, "--output", output, largest=130_000)
    assert "could not be written: File too large" in error
    assert "the same command goes on there" in error
    assert [path.name for path in output.parent.iterdir()] == [".tetrominoes.h5.parts"]
    assert len([*output.parent.glob("*/*.npz")]) == 1
    _run("--input", file, "--output", output).check_returncode()
    _check(output)


def test_records_before_the_start_are_passed_over_without_decoding(file):
    assert next(tfrecord.read_records(file, 250)) == SERIALIZED[250]
