"""The contract of a data set, checked on the small one that its `write_example` writes."""

import contextlib
import dataclasses
import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from unittest import mock

import ml_collections
import numpy as np
from PIL import Image

from objdisc_jax import files
from objdisc_jax.data import datasets, images, loader
from objdisc_jax.data.config import shared_config
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.examples import Example


@dataclasses.dataclass(frozen=True)
class DatasetCase:
    """A data set, with small files to read."""

    module: datasets.DatasetModule
    path: Path  # of the files
    example: Example  # what they hold

    @classmethod
    def written(cls, module: datasets.DatasetModule, path: Path) -> "DatasetCase":
        """The case of the files that the data set's own `write_example` writes."""
        return cls(module, path, module.write_example(path))

    @property
    def largest_split(self) -> str:
        """The name of the split that has the most images."""
        return max(self.example.splits, key=lambda split: len(self.example.splits[split]))

    def config(self, **changes: Any) -> ml_collections.ConfigDict:
        """Returns the default config with the files' path and changes; all test images count."""
        config = self.module.default_config()
        config.update({"path": str(self.path), "num_test_images": None, **changes})
        return config

    def declaration(self, **changes: Any) -> DatasetDeclaration:
        """Returns what the data set declares for such a config."""
        return self.module.declare(self.config(**changes))

    def load(self, split: str, **changes: Any) -> loader.Dataset:
        """Returns a split of the data set for such a config."""
        return loader.load(self.config(**changes), split)


def check_dataset(dataset: ModuleType | str) -> None:
    """Runs all checks on a data set; what they write is temporary.

    Args:
        dataset: its module, or its name: of one of ours, or the dotted path of another.

    Raises:
        AssertionError: the data set breaks the contract; says how.
    """
    module = datasets.get(dataset) if isinstance(dataset, str) else dataset
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, XDG_CACHE_HOME=f"{folder}/cache"),
    ):
        case = DatasetCase.written(cast(datasets.DatasetModule, module), Path(folder) / "example")
        for check in DATASET_CHECKS:
            check(case)


def default_config_has_its_name_and_the_shared_keys(case: DatasetCase) -> None:
    """The config is found by its name again, and has the keys that all data sets have."""
    config = case.module.default_config()
    assert isinstance(config, ml_collections.ConfigDict), "default_config() returns a ConfigDict"
    assert datasets.get(config.name) is case.module, (
        f"default_config() has the name {config.name!r}, which is another module than {case.module}"
    )
    missing = set(shared_config("", "").keys()) - set(config.keys())
    assert not missing, f"default_config() lacks {missing}: begin with shared_config()"


def declared_ranges_fit(case: DatasetCase) -> None:
    """Splits cover the records from 0 on, crops lie inside the image, names are not taken."""
    declared = case.declaration()
    start = 0
    for split in sorted(declared.splits.values(), key=lambda split: split.start):
        assert split.start == start, f"there is a gap or overlap before {split}"
        start = split.stop
    if declared.crop is not None and declared.image_size is not None:
        for (start, stop), length in zip(declared.crop, declared.image_size, strict=True):
            assert 0 <= start < stop <= length, f"{declared.crop} is not inside the image"
    taken = {"image", "segmentation", "valid", "index"} & set(declared.fields)
    assert not taken, f"the fields {taken} mean something else in a batch: choose other names"


def absent_data_error_names_the_path_and_the_commands(case: DatasetCase) -> None:
    """Where there is nothing, an empty file or an empty folder, an error says how to get data."""
    path = case.path.with_name("absent")
    declared = case.declaration(path=str(path))
    commands = (declared.download_command or "", declared.generate_command or "")
    for make in (lambda: None, path.touch, path.mkdir):
        make()
        with _data_error(str(path), *commands):
            case.load(case.largest_split, path=str(path))
        files.remove(path)


def reader_returns_what_is_asked_for(case: DatasetCase) -> None:
    """A reader returns the fields that are asked for and no others, as they are declared."""
    dataset = case.load(case.largest_split)
    for name, field in dataset.fields.items():
        found = dataset.reader.read(int(dataset.indices[0]), (name,))
        assert set(found) == {name}, f"a reader asked for {name!r} returns {', '.join(found)}"
        is_field = found[name].dtype == field.dtype and found[name].shape == field.shape
        # The labels of a segmentation may be of any integer type.
        assert is_field or name == "segmentation", f"{name!r} is declared as {field}, but differs"


def batches_hold_the_cropped_records(case: DatasetCase) -> None:
    """Every split has its records, in order, and of them what was written, as it is declared."""
    declared, example = case.declaration(), case.example
    assert example.segmentation.max() < declared.num_entities, "num_entities counts the labels"
    assert set(example.fields) == set(declared.fields), "write_example() returns all fields"
    for split, written in example.splits.items():
        dataset = case.load(split)
        records = np.array(written)
        image = _prepared(example.image[records], declared, Image.Resampling.BILINEAR)
        expected = {"image": image, "valid": np.ones(len(records), bool), "index": records}
        if declared.has_masks:
            labels = example.segmentation[records]
            expected["segmentation"] = _prepared(labels, declared, Image.Resampling.NEAREST)
        for name, values in example.fields.items():
            expected[name] = values[records].astype(declared.fields[name].dtype, casting="no")
        (batch,) = loader.eval_batches(dataset, batch_size=len(dataset))
        assert set(batch) == set(expected)
        for name, values in expected.items():
            _assert_equal(batch[name], values, f"{name!r} of split '{split}'")
        assert batch["image"].shape[1:3] == dataset.image_size


def fields_are_read_alone_as_together(case: DatasetCase) -> None:
    """A batch of one field has the values that a batch of all has, in other processes, too."""
    dataset = case.load(case.largest_split)
    positions = np.array([1, -1, 0])
    whole = dataset.read(positions)
    sent = pickle.loads(pickle.dumps(dataset))
    assert sent.declaration == dataset.declaration, "pickling changes the declaration"
    for name in dataset.fields:
        part = sent.read(positions, (name,))
        assert set(part) == {name, "valid", "index"}
        for key, values in part.items():
            _assert_equal(values, whole[key], f"{key!r}, read with {name!r} alone,")
        assert not part[name][1].any(), "padding is zeros"
    with _data_error("'of no data set'", ", ".join(dataset.fields)):
        dataset.read(positions, ("of no data set",))


def object_filter_does_not_count_the_background(case: DatasetCase) -> None:
    """`max_objects` keeps the images of at most so many objects; keeping none is an error."""
    split = case.largest_split
    if case.declaration().largest_num_objects is None:
        with _data_error("does not tell how many objects"):
            case.load(split, max_objects=1)
        return
    records = np.array(case.example.splits[split])
    counts = case.example.num_objects[records]
    for most in np.unique(counts)[:2].tolist():
        found = case.load(split, max_objects=most).indices
        _assert_equal(found, records[counts <= most], f"the records of at most {most} objects")
    few = int(counts.min()) - 1
    with _data_error(f"max_objects = {few}"):
        case.load(split, max_objects=few)


def limit_of_the_test_split_leaves_others_alone(case: DatasetCase) -> None:
    """`num_test_images` shortens the test split alone; there are no splits of other names."""
    for split, records in case.example.splits.items():
        left = 1 if split == "test" else len(records)
        assert len(case.load(split, num_test_images=1)) == left, f"split '{split}' is not {left}"
        with _data_error(f"'{split}s' (did you mean", *case.example.splits):
            case.load(f"{split}s")


DATASET_CHECKS = (
    default_config_has_its_name_and_the_shared_keys,
    declared_ranges_fit,
    absent_data_error_names_the_path_and_the_commands,
    reader_returns_what_is_asked_for,
    batches_hold_the_cropped_records,
    fields_are_read_alone_as_together,
    object_filter_does_not_count_the_background,
    limit_of_the_test_split_leaves_others_alone,
)


def _prepared(
    values: np.ndarray, declared: DatasetDeclaration, resample: Image.Resampling
) -> np.ndarray:
    """The declared crop and resizing, done by slices and by Pillow."""
    size = declared.resize
    if resample == Image.Resampling.NEAREST:
        size = declared.mask_size or size
    rows, columns = size or values.shape[1:3]
    if declared.crop is not None:
        (top, bottom), (left, right) = declared.crop
    else:
        left, top, right, bottom = images.centred_box(values.shape[2:0:-1], columns / rows)
    cropped = values[:, top:bottom, left:right]
    if size is None:
        return cropped
    tiles = [Image.fromarray(image).resize((columns, rows), resample) for image in cropped]
    return np.stack([np.asarray(tile) for tile in tiles])


def _assert_equal(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    np.testing.assert_array_equal(found, expected, err_msg=f"{what} differ", strict=True)


@contextlib.contextmanager
def _data_error(*parts: str) -> Iterator[None]:
    """Asserts that a `DataError` is raised whose message has all these parts."""
    message = "there is none"
    try:
        yield
    except DataError as error:
        message = str(error)
    for part in parts:
        assert part in message, f"a DataError should say {part!r}: {message}"
