"""A data set in a package of one's own: the contract, workers, and a field beside the image."""

import sys

import numpy as np
import pytest

from objdisc_jax.data import datasets, inspect, loader
from objdisc_jax.errors import ConfigError
from objdisc_jax.testing import check_dataset
from tests.conftest import tiny_experiment

SOURCE = """
from objdisc_jax.data import examples, hdf5
from objdisc_jax.data.config import shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration, Field


class Reader(hdf5.Hdf5Reader):
    pass


def default_config():
    return shared_config(__name__, path="boxes.h5")


def declare(config):
    return DatasetDeclaration(
        **shared_settings(config),
        reader=Reader,
        image_size=(20, 24),
        splits={"train": range(80), "val": range(80, 90), "test": range(90, 100)},
        fields={"boxes": Field("float32", (2, 4)), "weight": Field("float32", ())},
        num_entities=3,
        largest_num_objects=2,
    )


write_example = examples.writer(default_config, declare)
"""


@pytest.fixture
def name(tmp_path, monkeypatch):
    """The path of a data set's module in a package that Python finds."""
    package = tmp_path / f"outside_{tmp_path.name}"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "boxes.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield f"{package.name}.boxes"
    for module in [module for module in sys.modules if module.startswith(package.name)]:
        del sys.modules[module]


def test_data_set_elsewhere_passes_the_contract(name):
    check_dataset(name)
    check_dataset(sys.modules[name])


def test_data_set_with_a_test_split_alone_passes_the_contract(name, tmp_path):
    splits = '{"train": range(80), "val": range(80, 90), "test": range(90, 100)}'
    assert splits in SOURCE
    file = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
    file.write_text(SOURCE.replace(splits, '{"test": range(100)}'))
    check_dataset(name)


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("shared_config(__name__", "shared_config('tetrominoes'", "which is another module"),
        ("range(90, 100)", "range(91, 100)", "gap or overlap"),
        ("num_entities=3", "num_entities=2", "num_entities counts the labels"),
        (
            "    pass",
            "    object_counts = lambda self, records: records * 0",
            "of at most 1 object",
        ),
        (
            "    pass",
            "    read = lambda self, record, names: super().read(record, ('image', 'boxes'))",
            "asked for 'image' returns image, boxes",
        ),
    ],
)
def test_broken_contract_is_told(name, tmp_path, right, wrong, message):
    file = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
    file.write_text(SOURCE.replace(right, wrong).replace("super()", "super(Reader, self)"))
    with pytest.raises(AssertionError, match=message):
        check_dataset(name)


def test_workers_find_a_data_set_elsewhere(name, tmp_path):
    example = datasets.get(name).write_example(tmp_path / "boxes.h5")
    config = datasets.get(name).default_config()
    config.path = str(tmp_path / "boxes.h5")
    dataset = loader.load(config, "train")
    asked = {"fields": ("boxes", "image"), "batch_size": 6, "seed": 0}
    batches = loader.train_batches(dataset, num_workers=2, **asked)
    batch = next(batches)
    batches.close()
    assert set(batch) == {"image", "boxes", "valid", "index"}
    np.testing.assert_array_equal(batch["image"], example.image[batch["index"]])
    np.testing.assert_array_equal(batch["boxes"], example.fields["boxes"][batch["index"]])


def test_further_fields_are_shown_by_inspect(name, tmp_path, capsys):
    datasets.get(name).write_example(tmp_path / "boxes.h5")
    config = tiny_experiment("unused").unlock()
    config.data = datasets.get(name).default_config()
    config.data.update(path=str(tmp_path / "boxes.h5"), num_workers=0)
    inspect.inspect(config, tmp_path / "sheet.png", seconds=0.1)
    out = capsys.readouterr().out
    assert "field    boxes float32 [2, 4]\nfield    weight float32 []\n" in out


def test_module_that_python_does_not_find_is_an_error():
    with pytest.raises(ConfigError, match="add its folder to PYTHONPATH"):
        datasets.get("nowhere_at_all.boxes")
