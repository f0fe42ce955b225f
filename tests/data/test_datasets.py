"""The contract of data sets, over every module in data/datasets/, and what single ones add."""

import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from objdisc_jax.data import datasets, loader
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.hdf5 import Hdf5Reader
from objdisc_jax.errors import ConfigError
from objdisc_jax.testing.datasets import DATASET_CHECKS, DatasetCase
from tests.data import examples

ROOT = Path(__file__).parents[2]
# Of the papers, the published code and the files' own readers.
FACTS = json.loads((ROOT / "tests" / "golden" / "datasets.json").read_text())


def _declaration(name, **changes):
    return datasets.get(name).declare(_config(name, **changes))


def _config(name, **changes):
    config = datasets.get(name).default_config()
    config.update(changes)
    return config


def _cases():
    for name in datasets.names():
        yield name, "example"
        if _declaration(name).reader is Hdf5Reader:
            yield name, "published"


@pytest.fixture(scope="module", params=_cases(), ids="-".join)
def case(request, tmp_path_factory):
    """A data set with small files in one of the layouts that are read."""
    name, layout = request.param
    module = datasets.get(name)
    path = tmp_path_factory.mktemp(name) / layout
    if layout == "example":
        return DatasetCase.written(module, path)
    declaration = _declaration(name, path=str(path))
    return DatasetCase(module, path, examples.write_published(declaration, 24))


@pytest.mark.parametrize("check", DATASET_CHECKS, ids=lambda check: check.__name__)
def test_contract(case, check):
    check(case)


@pytest.mark.parametrize("name", datasets.names())
def test_there_are_images_to_train_to_validate_and_to_test(name):
    assert set(_declaration(name).splits) == {"train", "val", "test"}


@pytest.mark.parametrize("name", datasets.names())
def test_scripts_that_the_commands_call_exist(name):
    declaration = _declaration(name)
    commands = f"{declaration.download_command} {declaration.generate_command}"
    for script in re.findall(r"data_scripts/\w+\.\w+", commands):
        assert (ROOT / script).is_file()


def test_unknown_data_set_error_lists_the_nearest():
    with pytest.raises(ConfigError, match=r"'tetromino' \(did you mean 'tetrominoes'\?\)"):
        datasets.get("tetromino")


def test_published_filter_repeats_the_subset_that_counted_the_background(tmp_path):
    config = _config("clevr_with_masks", path=str(tmp_path / "clevr.h5"), max_objects=6)
    datasets.get(config.name).write_example(tmp_path / "clevr.h5", 40)
    right = loader.load(config, "train")
    config.published_filter = True
    published = loader.load(config, "train")
    counts = right.reader.object_counts(np.arange(40))
    assert counts[right.indices].max() == 6
    assert counts[published.indices].max() == 5
    assert set(published.indices) < set(right.indices)
    config.max_objects = 0
    with pytest.raises(DataError, match="max_objects = 0 objects"):
        loader.load(config, "train")


@pytest.mark.parametrize("facts", FACTS, ids=lambda f: f"{f['dataset']}-{f.get('variant', '')}")
def test_declared_facts_are_the_published_ones(facts):
    changes = {key: facts[key] for key in ("variant",) if key in facts}
    declared = _declaration(facts["dataset"], **changes)
    found = {
        "splits_end_at": sorted(split.stop for split in declared.splits.values()),
        "image_size": declared.image_size,
        "crop": declared.crop,
        "num_entities": declared.num_entities,
        "num_background_labels": len(declared.background_labels),
        "largest_num_objects": declared.largest_num_objects,
    }
    assert json.loads(json.dumps(found)) | {"dataset": facts["dataset"], **changes} == facts


def test_ravens_table_is_seen_from_the_front_alone(tmp_path):
    config = _config("ravens", path=str(tmp_path / "ravens"), crop="table")
    datasets.get("ravens").write_example(tmp_path / "ravens", 36)
    for split in ("train", "val", "test"):
        dataset = loader.load(config, split)
        assert (dataset.indices % 3 == 0).all()
        assert dataset.image_size == (238, 540)


def test_ravens_with_a_count_for_every_image_is_an_error(tmp_path):
    config = _config("ravens", path=str(tmp_path / "ravens"), max_objects=3)
    datasets.get("ravens").write_example(tmp_path / "ravens", 36)
    with h5py.File(tmp_path / "ravens" / "ravens_robot_data_train.h5", "a") as file:
        num_records = len(file["color"])
        del file["num_objects_on_table"]
        file["num_objects_on_table"] = np.ones(num_records, int)
    with pytest.raises(DataError, match=r"'num_objects_on_table' is .* but must be"):
        loader.load(config, "train")


def test_ravens_needs_two_scenes_for_training_and_one_file_of_a_kind(tmp_path):
    config = _config("ravens", path=str(tmp_path))
    for part, num_images in (("train", 3), ("test", 3)):
        with h5py.File(tmp_path / f"ravens_robot_data_{part}.h5", "w") as file:
            file["color"] = np.zeros((num_images, 480, 640, 3), np.uint8)
            file["segm"] = np.zeros((num_images, 480, 640), np.uint8)
    with pytest.raises(DataError, match="has 3 images, but training and validation need"):
        loader.load(config, "train")
    (tmp_path / "ravens_other_test.h5").touch()
    with pytest.raises(DataError, match=r"needs one file ravens_\*_test.h5 .* there are 2"):
        loader.load(config, "train")


def test_shapes3d_splits_are_drawn_and_published_ones_are_not(tmp_path):
    config = _config("shapes3d", path=str(tmp_path / "3dshapes.h5"))
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        file.create_dataset("images", (480_000, 64, 64, 3), np.uint8, chunks=(1, 64, 64, 3))
    drawn = loader.load(config, "val").indices
    assert np.ptp(drawn) > 470_000
    assert len(drawn) == 30_000
    config.published_splits = True
    np.testing.assert_array_equal(loader.load(config, "val").indices, np.arange(400_000, 430_000))
    assert loader.load(config, "test").indices[-1] == 459_999


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


@pytest.mark.parametrize("name", ["clevr_with_masks", "clevrtex"])
def test_images_of_another_size_are_cropped_in_proportion(name):
    published = _declaration(name)
    declaration = _declaration(name, image_size=(480, 640))
    assert declaration.crop == tuple(tuple(2 * n for n in side) for side in published.crop)
    assert "--resolution 480 640" in declaration.how_to_fix()
    assert "download" not in declaration.how_to_fix()  # only images of the published size can be
    for size in ((240,), (0, 320), (240.0, 320)):
        config = _config(name)
        with config.unlocked(), config.ignore_type():
            config.image_size = size
        with pytest.raises(DataError, match=r"data\.image_size: got .* as in \(240, 320\)"):
            datasets.get(name).declare(config)
