"""The contract of a data set, checked on the small one that its `write_example` writes."""

import contextlib
import dataclasses
import itertools
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

from objdisc_jax.data import datasets, images, loader
from objdisc_jax.data.config import shared_config
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.examples import Example


@dataclasses.dataclass(frozen=True)
class DatasetCase:
    """A data set, with small files to read.

    Attributes:
        module: of the data set.
        path: of the files.
        example: what they hold.
    """

    module: datasets.DatasetModule
    path: Path
    example: Example

    @classmethod
    def written(cls, module: datasets.DatasetModule, path: Path) -> "DatasetCase":
        """The case of the files that the data set's own `write_example` writes."""
        return cls(module, path, module.write_example(path))

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


def declaration_can_be_sent_to_a_worker(case: DatasetCase) -> None:
    """The declaration survives pickling."""
    declaration = case.declaration()
    assert pickle.loads(pickle.dumps(declaration)) == declaration


def declared_splits_have_neither_gaps_nor_overlaps(case: DatasetCase) -> None:
    """Training, validation and test split cover the records from 0 on."""
    splits = case.declaration().splits
    assert set(splits) == {"train", "val", "test"}, f"there are the splits {', '.join(splits)}"
    ranges = sorted(splits.values(), key=lambda split: split.start)
    assert ranges[0].start == 0, "no split begins with record 0"
    for one, following in itertools.pairwise(ranges):
        assert one.stop == following.start, f"there is a gap or overlap of {one} and {following}"


def declared_fields_have_names_of_their_own(case: DatasetCase) -> None:
    """What every batch has anyway is not declared once more."""
    taken = {"image", "segmentation", "valid", "index"} & set(case.declaration().fields)
    assert not taken, f"the fields {taken} mean something else in a batch: choose other names"


def crop_lies_inside_the_image(case: DatasetCase) -> None:
    """The declared crop fits the declared size."""
    declaration = case.declaration()
    if declaration.crop is not None and declaration.image_size is not None:
        for (start, stop), length in zip(declaration.crop, declaration.image_size, strict=True):
            assert 0 <= start < stop <= length, f"{declaration.crop} is not inside the image"


def missing_data_error_names_the_path_and_the_commands(case: DatasetCase) -> None:
    """Missing files are an error that says how to get them."""
    path = str(case.path.with_name("missing"))
    declaration = case.declaration(path=path)
    commands = (declaration.download_command or "", declaration.generate_command or "")
    with _data_error(path, *commands):
        case.load("train", path=path)


def other_kind_of_path_is_an_error(case: DatasetCase) -> None:
    """An empty file and an empty folder are both errors that name the path."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.touch()
        with _data_error(str(file)):
            case.load("train", path=str(file))
        file.unlink()
        with _data_error(folder):
            case.load("train", path=folder)


def splits_have_all_records_once_in_order(case: DatasetCase) -> None:
    """A split has the records that were written for it."""
    for split, records in case.example.splits.items():
        found = case.load(split).indices
        assert found.dtype == np.int64
        _assert_equal(found, np.array(records), f"the records of split '{split}'")


def batches_hold_the_cropped_records(case: DatasetCase) -> None:
    """Every field of a batch is what was written, with the declared type, shape, crop and size."""
    declared, example = case.declaration(), case.example
    assert example.segmentation.max() < declared.num_entities, "num_entities counts the labels"
    assert set(example.fields) == set(declared.fields), "write_example() returns all fields"
    for split in example.splits:
        dataset = case.load(split)
        (batch,) = loader.eval_batches(dataset, batch_size=len(dataset))
        records = dataset.indices
        labels = example.segmentation[records]
        image = _prepared(example.image[records], declared, Image.Resampling.BILINEAR)
        expected = {"image": image, "valid": np.ones(len(dataset), bool), "index": records}
        if declared.has_masks:
            expected["segmentation"] = _prepared(labels, declared, Image.Resampling.NEAREST)
        for name, values in example.fields.items():
            expected[name] = values[records].astype(declared.fields[name].dtype, casting="no")
        assert set(batch) == set(expected)
        for name, values in expected.items():
            _assert_equal(batch[name], values, f"{name!r} of split '{split}'")
        assert batch["image"].shape[1:3] == dataset.image_size


def reader_returns_what_is_asked_for(case: DatasetCase) -> None:
    """A reader returns the fields that are asked for and no others, as they are declared."""
    dataset = case.load("train")
    for name, field in dataset.fields.items():
        found = dataset.reader.read(int(dataset.indices[0]), (name,))
        assert set(found) == {name}, f"a reader asked for {name!r} returns {', '.join(found)}"
        described = found[name].dtype, found[name].shape
        assert described[1] == field.shape, f"{name!r} is {described}, but is declared as {field}"
        if name != "segmentation":  # whose labels may be of any integer type
            assert described[0] == field.dtype, f"{name!r} is {described}, declared as {field}"


def fields_are_read_alone_as_together(case: DatasetCase) -> None:
    """A batch of some fields has the values that a batch of all has."""
    dataset = case.load("train")
    positions = np.array([1, -1, 0])
    whole = dataset.read(positions)
    for name in dataset.fields:
        part = dataset.read(positions, (name,))
        assert set(part) == {name, "valid", "index"}
        for key, values in part.items():
            _assert_equal(values, whole[key], f"{key!r}, read with {name!r} alone,")
        assert not part[name][1].any(), "padding is zeros"
    with _data_error("'of no data set'", ", ".join(dataset.fields)):
        dataset.read(positions, ("of no data set",))


def object_filter_does_not_count_the_background(case: DatasetCase) -> None:
    """`max_objects` keeps the images of at most so many objects, or is an error."""
    if case.declaration().largest_num_objects is None:
        with _data_error("does not tell how many objects"):
            case.load("train", max_objects=1)
        return
    records = np.array(case.example.splits["train"])
    counts = case.example.num_objects[records]
    for max_objects in np.unique(counts)[:2].tolist():
        found = case.load("train", max_objects=max_objects).indices
        expected = records[counts <= max_objects]
        _assert_equal(found, expected, f"the records of at most {max_objects} objects")


def limit_of_the_test_split_leaves_others_alone(case: DatasetCase) -> None:
    """`num_test_images` shortens the test split alone."""
    assert len(case.load("test", num_test_images=1)) == 1
    assert len(case.load("val", num_test_images=1)) == len(case.example.splits["val"])


def filter_that_leaves_nothing_is_an_error(case: DatasetCase) -> None:
    """No image at all is an error that names the filter."""
    few = int(case.example.num_objects.min()) - 1
    known = case.declaration().largest_num_objects is not None
    with _data_error(f"max_objects = {few}" if known else "does not tell"):
        case.load("train", max_objects=few)


def unknown_split_error_lists_the_splits(case: DatasetCase) -> None:
    """Another split is an error with the nearest name."""
    with _data_error("'valid' (did you mean 'val'?)", "train"):
        case.load("valid")


def dataset_can_be_sent_to_a_worker_after_reading(case: DatasetCase) -> None:
    """A reader that has opened its files can be pickled, and reads the same."""
    dataset = case.load("train")
    first = dataset.read(np.array([0, 1]))
    again = pickle.loads(pickle.dumps(dataset)).read([0, 1])
    for name, values in first.items():
        _assert_equal(again[name], values, f"{name!r} in another process")


DATASET_CHECKS = (
    default_config_has_its_name_and_the_shared_keys,
    declaration_can_be_sent_to_a_worker,
    declared_splits_have_neither_gaps_nor_overlaps,
    declared_fields_have_names_of_their_own,
    crop_lies_inside_the_image,
    missing_data_error_names_the_path_and_the_commands,
    other_kind_of_path_is_an_error,
    splits_have_all_records_once_in_order,
    reader_returns_what_is_asked_for,
    batches_hold_the_cropped_records,
    fields_are_read_alone_as_together,
    object_filter_does_not_count_the_background,
    limit_of_the_test_split_leaves_others_alone,
    filter_that_leaves_nothing_is_an_error,
    unknown_split_error_lists_the_splits,
    dataset_can_be_sent_to_a_worker_after_reading,
)


def _prepared(
    values: np.ndarray, declared: DatasetDeclaration, resample: Image.Resampling
) -> np.ndarray:
    """The declared crop and resizing, done by slices and by Pillow."""
    (top, bottom), (left, right) = declared.crop or ((0, None), (0, None))
    if declared.resize is None:
        return values[:, top:bottom, left:right]
    rows, columns = declared.resize
    if declared.crop is None:
        size = values.shape[2], values.shape[1]
        left, top, right, bottom = images.centred_box(size, columns / rows)
    cropped = values[:, top:bottom, left:right]
    size = columns, rows
    return np.stack([np.asarray(Image.fromarray(x).resize(size, resample)) for x in cropped])


def _assert_equal(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    np.testing.assert_array_equal(found, expected, err_msg=f"{what} differ", strict=True)


@contextlib.contextmanager
def _data_error(*parts: str) -> Iterator[None]:
    """Asserts that a `DataError` is raised whose message has all these parts."""
    message = None
    try:
        yield
    except DataError as error:
        message = str(error)
    assert message is not None, f"there is no DataError that says {' and '.join(parts)}"
    for part in parts:
        assert part in message, f"the error does not say {part!r}: {message}"
