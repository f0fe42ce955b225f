import pytest

from objdisc_jax.data import splits
from objdisc_jax.data.errors import DataError

PUBLISHED = {
    "train": range(0, 60_000),
    "val": range(60_320, 65_000),
    "test": range(60_000, 60_320),
}


def test_full_files_keep_the_published_ranges():
    assert splits.scaled_splits(PUBLISHED, 65_000) == PUBLISHED


def test_files_of_another_size_scale_them():
    assert splits.scaled_splits(PUBLISHED, 130_000)["train"] == range(0, 120_000)
    assert splits.scaled_splits(PUBLISHED, 6_500) == {
        "train": range(0, 6_000),
        "test": range(6_000, 6_032),
        "val": range(6_032, 6_500),
    }


@pytest.mark.parametrize("num_records", [3, 4, 10, 100, 999, 70_001])
def test_scaled_splits_cover_the_file_and_none_is_empty(num_records):
    scaled = splits.scaled_splits(PUBLISHED, num_records)
    assert sorted(record for split in scaled.values() for record in split) == [*range(num_records)]
    assert all(scaled.values())


def test_fewer_records_than_splits_are_refused():
    with pytest.raises(DataError, match="ask for at least 3"):
        splits.scaled_splits(PUBLISHED, 2)


def test_attributes_state_the_splits():
    attributes = splits.to_attributes(PUBLISHED)
    assert splits.from_attributes({"seed": 0, **attributes}) == PUBLISHED


@pytest.mark.parametrize("value", ["0-100", [0, 1, 2], [0.0, 5.0]])
def test_odd_attribute_is_refused(value):
    with pytest.raises(DataError, match="split_train"):
        splits.from_attributes({"split_train": value})
