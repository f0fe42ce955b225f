"""The contract of data sets: runs over every module in data/sets/ and every layout it reads."""

import itertools
import pickle
import re
import subprocess
import sys
from pathlib import Path

import ml_collections
import numpy as np
import pytest
from PIL import Image

from objdisc_jax.data import loader, sets
from objdisc_jax.data.config import shared_config
from objdisc_jax.data.errors import DataError
from tests.data import examples

NUM_IMAGES = 24
ROOT = Path(__file__).parents[2]


def _declaration(name, **changes):
    return sets.get(name).declare(_config(name, **changes))


def _config(name, **changes):
    config = sets.get(name).default_config()
    config.update(changes)
    return config


CASES = [(name, layout) for name in sets.names() for layout in examples.layouts(_declaration(name))]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, tmp_path_factory):
    """A data set's config with a small file, and what the file holds."""
    name, layout = request.param
    path = tmp_path_factory.mktemp(name) / layout
    config = _config(name, path=str(path))
    config.num_test_images = None
    declaration = sets.get(name).declare(config)
    example = examples.layouts(declaration)[layout](path, declaration, NUM_IMAGES)
    return config, example


@pytest.mark.parametrize("name", sets.names())
def test_default_config_has_its_name_and_all_shared_keys(name):
    config = sets.get(name).default_config()
    assert isinstance(config, ml_collections.ConfigDict)
    assert config.name == name
    assert set(shared_config(name, "")) <= set(config)


@pytest.mark.parametrize("name", sets.names())
def test_declaration_can_be_sent_to_a_worker(name):
    declaration = _declaration(name)
    assert pickle.loads(pickle.dumps(declaration)) == declaration


@pytest.mark.parametrize("name", sets.names())
def test_declared_splits_have_neither_gaps_nor_overlaps(name):
    ranges = sorted(_declaration(name).splits.values(), key=lambda split: split.start)
    assert ranges[0].start == 0
    assert all(a.stop == b.start for a, b in itertools.pairwise(ranges))
    assert {"train", "val", "test"} == set(_declaration(name).splits)


@pytest.mark.parametrize("name", sets.names())
def test_crop_lies_inside_the_image(name):
    declaration = _declaration(name)
    if declaration.crop is not None:
        for (start, stop), length in zip(declaration.crop, declaration.image_size, strict=True):
            assert 0 <= start < stop <= length


@pytest.mark.parametrize("name", sets.names())
def test_missing_data_error_names_the_path_and_the_commands(name, tmp_path):
    path = tmp_path / "elsewhere"
    with pytest.raises(DataError) as error:
        loader.load(_config(name, path=str(path)), "train")
    declaration = _declaration(name, path=str(path))
    assert str(path) in str(error.value)
    assert declaration.download_command in str(error.value)
    assert (declaration.generate_command or "") in str(error.value)


@pytest.mark.parametrize("name", sets.names())
def test_scripts_that_the_commands_call_exist(name):
    declaration = _declaration(name)
    commands = f"{declaration.download_command} {declaration.generate_command}"
    for script in re.findall(r"data_scripts/\w+\.\w+", commands):
        assert (ROOT / script).is_file()


@pytest.mark.parametrize("name", sets.names())
def test_other_kind_of_path_is_an_error(name, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for path in (file, tmp_path):
        with pytest.raises(DataError, match=re.escape(str(path))):
            loader.load(_config(name, path=str(path)), "train")


def test_splits_have_all_records_once_in_order(case):
    config, example = case
    indices = {split: loader.load(config, split).indices for split in example.splits}
    for split, records in example.splits.items():
        np.testing.assert_array_equal(indices[split], np.array(records))
        assert indices[split].dtype == np.int64


def test_batches_hold_the_cropped_records(case):
    config, example = case
    for split in example.splits:
        dataset = loader.load(config, split)
        (batch,) = loader.eval_batches(dataset, batch_size=len(dataset))
        image = example.image[dataset.indices]
        labels = example.segmentation[dataset.indices]
        assert labels.max() < dataset.declaration.num_entities
        expected = {
            "image": _prepared(image, dataset.declaration, Image.Resampling.BILINEAR),
            "valid": np.ones(len(dataset), bool),
            "index": dataset.indices,
        }
        if dataset.has_masks:
            nearest = Image.Resampling.NEAREST
            expected["segmentation"] = _prepared(labels, dataset.declaration, nearest)
        assert set(batch) == set(expected)
        for key, values in expected.items():
            np.testing.assert_array_equal(batch[key], values, strict=True)
        assert batch["image"].shape[1:3] == dataset.image_size


def _prepared(images, declaration, resample):
    """The declared crop and resizing, done by slices and by Pillow."""
    (top, bottom), (left, right) = declaration.crop or ((0, None), (0, None))
    images = images[:, top:bottom, left:right]
    if declaration.resize is None:
        return images
    return np.stack([Image.fromarray(x).resize(declaration.resize, resample) for x in images])


def test_object_filter_does_not_count_the_background(case):
    config, example = case
    records = np.array(example.splits["train"])
    most = _declaration(config.name).largest_num_objects
    if most is None:
        config = config.copy_and_resolve_references()
        config.max_objects = 1
        with pytest.raises(DataError, match="does not tell how many objects"):
            loader.load(config, "train")
        return
    for max_objects in np.unique(example.num_objects[records])[:2].tolist():
        filtered = config.copy_and_resolve_references()
        filtered.max_objects = max_objects
        expected = records[example.num_objects[records] <= max_objects]
        np.testing.assert_array_equal(loader.load(filtered, "train").indices, expected)


def test_test_split_can_be_limited_after_the_filter(case):
    config, example = case
    limited = config.copy_and_resolve_references()
    limited.num_test_images = 1
    assert len(loader.load(limited, "test")) == 1
    assert len(loader.load(limited, "val")) == len(example.splits["val"])


def test_filter_that_leaves_nothing_is_an_error(case):
    filtered = case[0].copy_and_resolve_references()
    filtered.max_objects = 0
    with pytest.raises(DataError, match=r"No image is left .* max_objects = 0|does not tell"):
        loader.load(filtered, "train")


def test_unknown_split_error_lists_the_splits(case):
    with pytest.raises(DataError, match=r"'valid' \(did you mean 'val'\?\).*train"):
        loader.load(case[0], "valid")


def test_loaded_data_set_can_be_sent_to_a_worker_after_reading(case):
    dataset = loader.load(case[0], "train")
    first = dataset.read([0, 1])
    again = pickle.loads(pickle.dumps(dataset)).read([0, 1])
    np.testing.assert_array_equal(first["image"], again["image"])


def test_unknown_data_set_error_lists_the_nearest():
    with pytest.raises(DataError, match=r"'tetromino' \(did you mean 'tetrominoes'\?\)"):
        sets.get("tetromino")


def test_published_filter_repeats_the_subset_that_counted_the_background():
    declared = {
        published: _declaration("clevr_with_masks", max_objects=6, published_filter=published)
        for published in (False, True)
    }
    assert declared[False].max_objects == 6
    assert declared[True].max_objects == 5
    assert _declaration("clevr_with_masks", published_filter=True).max_objects is None


def test_clevr_test_scores_use_320_images():
    assert _declaration("clevr_with_masks").num_test_images == 320


def test_no_module_below_data_imports_jax():
    code = """
import importlib, pkgutil, sys
import objdisc_jax.data as data
for module in pkgutil.walk_packages(data.__path__, "objdisc_jax.data."):
    importlib.import_module(module.name)
sys.exit("jax" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
