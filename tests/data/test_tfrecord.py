import gzip
import itertools
import random
import re

import numpy as np
import pytest

from objdisc_jax.data import tfrecord
from objdisc_jax.data.errors import DataError
from tests.data import tfrecords

RECORDS = [b"first", b"", b"x" * 100_000]
CONTENT = b"".join(map(tfrecords.framed, RECORDS))
FEATURES = {
    "bytes": np.arange(256, dtype=np.uint8),
    "floats": np.array([1.5, -2.0, np.inf], np.float32),
    "integers": np.array([0, -1, 300, 2**62, -(2**63)]),
    "one": np.array([7.0], np.float32),
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "file.tfrecords"


def _error(file):
    with pytest.raises(DataError) as error:
        list(tfrecord.read_records(file))
    assert str(file) in str(error.value)
    assert "fetch the file again" in str(error.value)
    return str(error.value)


def test_crc32c_is_that_of_castagnoli():
    assert tfrecord.crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("compress", [False, True])
def test_records_are_read_as_written(file, compress):
    tfrecords.write(file, RECORDS, compress=compress)
    assert list(tfrecord.read_records(file)) == RECORDS
    assert list(tfrecord.read_records(file, start=2)) == RECORDS[2:]
    assert list(tfrecord.read_records(file, start=9)) == []


def test_several_gzip_members_are_one_stream(file):
    cuts = [0, 1, 30, 50_000, len(CONTENT)]
    parts = [CONTENT[a:b] for a, b in itertools.pairwise(cuts)]
    file.write_bytes(b"".join(gzip.compress(part) for part in [*parts, b""]))
    assert list(tfrecord.read_records(file)) == RECORDS


def test_records_may_be_larger_than_what_is_inflated_at_once(file, monkeypatch):
    monkeypatch.setattr(tfrecord, "_READ_BYTES", 7)
    monkeypatch.setattr(tfrecord, "_INFLATED_BYTES", 1000)
    records = [random.Random(0).randbytes(5_000), b"\0" * 200_000]
    tfrecords.write(file, records, compress=True)
    assert list(tfrecord.read_records(file)) == records


def test_empty_file_holds_no_records(file):
    file.touch()
    assert list(tfrecord.read_records(file)) == []


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (5, "record 0, at byte 0 of .* ends within its length"),
        (15, "record 0, at byte 0 of .* ends within its 5 bytes"),
        (32, "record 1, at byte 21 of .* ends within its length"),
        (len(CONTENT) - 1, "record 2, at byte 37 of .* ends within its 100000 bytes"),
    ],
)
def test_truncated_file_is_an_error_that_names_the_record(file, kept, message):
    file.write_bytes(CONTENT[:kept])
    assert re.search(message, _error(file))


def test_truncated_gzip_file_is_an_error(file):
    tfrecords.write(file, RECORDS, compress=True)
    whole = file.read_bytes()
    for kept in (5, 25, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:kept])
        assert "cut off" in _error(file)


def test_damaged_gzip_file_is_an_error(file):
    tfrecords.write(file, [random.Random(0).randbytes(5_000)], compress=True)
    damaged = bytearray(file.read_bytes())
    damaged[-6] ^= 1  # in gzip's own checksum
    file.write_bytes(damaged)
    _error(file)


def test_wrong_crc_of_a_length_is_an_error(file):
    file.write_bytes(CONTENT[:21] + b"\1" + CONTENT[22:])
    assert "record 1, at byte 21 of the uncompressed data" in _error(file)
    assert "CRC of its length is wrong" in _error(file)


def test_wrong_crc_of_data_is_an_error(file):
    pytest.importorskip("google_crc32c")
    file.write_bytes(CONTENT[:-5] + b"y" + CONTENT[-4:])
    assert "record 2, at byte 37" in _error(file)
    assert "CRC of its data is wrong" in _error(file)


def test_data_is_not_verified_without_the_package(file, monkeypatch):
    monkeypatch.setattr(tfrecord, "google_crc32c", None)
    monkeypatch.setattr(tfrecord, "_crc32c", tfrecord.crc32c)
    file.write_bytes(CONTENT[:-5] + b"y" + CONTENT[-4:])
    assert list(tfrecord.read_records(file))[2] == b"x" * 99_999 + b"y"


def test_other_file_type_is_an_error(file):
    file.write_bytes(b"<html>Not found</html>")
    assert "no TFRecord file: record 0" in _error(file)


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        next(tfrecord.read_records(tmp_path / "none"))
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        next(tfrecord.read_records(tmp_path))


@pytest.mark.parametrize("packed", [True, False])
def test_features_are_parsed_as_written(packed):
    parsed = tfrecord.parse_example(tfrecords.example(FEATURES, packed=packed))
    assert parsed.keys() == FEATURES.keys()
    for key, values in FEATURES.items():
        np.testing.assert_array_equal(parsed[key], values, strict=True)


@pytest.mark.parametrize(
    "strings", [[b"ab", b""], [b"a", b"bc", b""], [b"\n\1x" * 5], [b"a" * 200, b"b"]]
)
def test_longer_strings_stay_strings(strings):
    assert tfrecord.parse_example(tfrecords.example({"key": strings})) == {"key": strings}


def test_empty_features_are_parsed():
    assert tfrecord.parse_example(b"") == {}
    assert tfrecord.parse_example(tfrecords.example({})) == {}
    none = np.zeros(0, np.float32)
    parsed = tfrecord.parse_example(tfrecords.example({"strings": [], "floats": none}))
    assert parsed["strings"] == []
    np.testing.assert_array_equal(parsed["floats"], none, strict=True)


def test_values_of_several_examples_are_stacked():
    examples = [{"a": np.arange(4, dtype=np.uint8) + i, "b": np.float32([i, 2])} for i in range(5)]
    split = [tfrecord.split_example(tfrecords.example(example)) for example in examples]
    for key in ("a", "b"):
        stacked = tfrecord.stack_values([features[key] for features in split])
        expected = np.stack([example[key] for example in examples])
        np.testing.assert_array_equal(stacked, expected, strict=True)


@pytest.mark.parametrize(
    "features",
    [
        [np.arange(3, dtype=np.uint8), np.arange(4, dtype=np.uint8)],
        [np.arange(3, dtype=np.uint8), [b"1234567"]],
        [[b"1234567"], np.arange(3, dtype=np.uint8)],
        [np.arange(3), np.arange(3)],
        [[], []],
    ],
)
def test_values_that_differ_in_kind_are_not_stacked(features):
    split = [
        tfrecord.split_example(tfrecords.example({"key": feature}))["key"] for feature in features
    ]
    assert tfrecord.stack_values(split) is None


def test_nonsense_is_no_example():
    whole = tfrecords.example(FEATURES)
    for data in (b"\xff" * 20, b"no protocol buffer", whole[:-1], b"\n\3\n\5abc"):
        with pytest.raises(DataError, match=r"no tf\.train\.Example"):
            tfrecord.parse_example(data)


@pytest.mark.parametrize("compress", [False, True])
def test_records_are_counted(tmp_path, compress):
    file = tmp_path / "file"
    tfrecords.write(file, [b"a" * length for length in (0, 5, 70)], compress=compress)
    assert tfrecord.count_records(file) == 3
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=str(file)):
        tfrecord.count_records(file)
