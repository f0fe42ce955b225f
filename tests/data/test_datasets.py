"""The contract of data sets: runs over every module in data/datasets/ and every layout it reads."""

import itertools
import pickle
import re
import subprocess
import sys
from pathlib import Path

import h5py
import ml_collections
import numpy as np
import pytest
from PIL import Image

from objdisc_jax.data import loader, datasets
from objdisc_jax.data.config import shared_config
from objdisc_jax.data.errors import DataError
from tests.data import examples

NUM_IMAGES = 24
ROOT = Path(__file__).parents[2]


def _declaration(name, **changes):
    return datasets.get(name).declare(_config(name, **changes))


def _config(name, **changes):
    config = datasets.get(name).default_config()
    config.update(changes)
    return config


CASES = [(name, layout) for name in datasets.names() for layout in examples.layouts(_declaration(name))]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, tmp_path_factory):
    """A data set's config with a small file, and what the file holds."""
    name, layout = request.param
    path = tmp_path_factory.mktemp(name) / layout
    config = _config(name, path=str(path))
    config.num_test_images = None
    declaration = datasets.get(name).declare(config)
    example = examples.layouts(declaration)[layout](path, declaration, NUM_IMAGES)
    return config, example


@pytest.mark.parametrize("name", datasets.names())
def test_default_config_has_its_name_and_all_shared_keys(name):
    config = datasets.get(name).default_config()
    assert isinstance(config, ml_collections.ConfigDict)
    assert config.name == name
    assert set(shared_config(name, "")) <= set(config)


@pytest.mark.parametrize("name", datasets.names())
def test_declaration_can_be_sent_to_a_worker(name):
    declaration = _declaration(name)
    assert pickle.loads(pickle.dumps(declaration)) == declaration


@pytest.mark.parametrize("name", datasets.names())
def test_declared_splits_have_neither_gaps_nor_overlaps(name):
    ranges = sorted(_declaration(name).splits.values(), key=lambda split: split.start)
    assert ranges[0].start == 0
    assert all(a.stop == b.start for a, b in itertools.pairwise(ranges))
    assert {"train", "val", "test"} == set(_declaration(name).splits)


@pytest.mark.parametrize("name", datasets.names())
def test_crop_lies_inside_the_image(name):
    declaration = _declaration(name)
    if declaration.crop is not None:
        for (start, stop), length in zip(declaration.crop, declaration.image_size, strict=True):
            assert 0 <= start < stop <= length


@pytest.mark.parametrize("name", datasets.names())
def test_missing_data_error_names_the_path_and_the_commands(name, tmp_path):
    path = tmp_path / "elsewhere"
    with pytest.raises(DataError) as error:
        loader.load(_config(name, path=str(path)), "train")
    declaration = _declaration(name, path=str(path))
    assert str(path) in str(error.value)
    assert declaration.download_command in str(error.value)
    assert (declaration.generate_command or "") in str(error.value)
    generated = {"tetrominoes", "multi_dsprites", "clevr_with_masks", "clevrtex", "shapes3d"}
    assert (declaration.generate_command is not None) == (name in generated)


@pytest.mark.parametrize("name", datasets.names())
def test_scripts_that_the_commands_call_exist(name):
    declaration = _declaration(name)
    commands = f"{declaration.download_command} {declaration.generate_command}"
    for script in re.findall(r"data_scripts/\w+\.\w+", commands):
        assert (ROOT / script).is_file()


@pytest.mark.parametrize("name", datasets.names())
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
        datasets.get("tetromino")


def test_published_filter_repeats_the_subset_that_counted_the_background(tmp_path):
    config = _config("clevr_with_masks", path=str(tmp_path / "clevr.h5"), max_objects=6)
    examples.write_ours(tmp_path / "clevr.h5", datasets.get(config.name).declare(config), 40)
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


# Of the papers, the published code and the files' own readers. Split bounds, image size, crop,
# entities, background labels, largest number of objects.
FACTS = {
    ("tetrominoes",): ((60_000, 60_320, 65_000), (35, 35), None, 4, 1, 3),
    ("multi_dsprites", "binarized"): ((60_000, 60_320, 65_000), (64, 64), None, 4, 1, 3),
    ("multi_dsprites", "colored_on_grayscale"): ((60_000, 60_320, 65_000), (64, 64), None, 6, 1, 5),
    ("multi_dsprites", "colored_on_colored"): ((60_000, 60_320, 65_000), (64, 64), None, 5, 1, 4),
    ("objects_room", "train"): ((980_000, 990_000, 1_000_000), (64, 64), None, 7, 4, 3),
    ("objects_room", "empty_room"): ((922,), (64, 64), None, 4, 4, 0),
    ("objects_room", "six_objects"): ((922,), (64, 64), None, 10, 4, 6),
    ("objects_room", "identical_color"): ((922,), (64, 64), None, 10, 4, 6),
    ("clevr_with_masks",): (
        (70_000, 85_000, 100_000),
        (240, 320),
        ((29, 221), (64, 256)),
        11,
        1,
        10,
    ),
    ("clevr_v1",): ((70_000, 85_000, 100_000), (320, 480), ((24, 312), (96, 384)), 1, 1, 10),
    ("clevrtex", "full"): ((5_000, 10_000, 50_000), (240, 320), ((24, 216), (64, 256)), 11, 1, 10),
    ("clevrtex", "camo"): ((2_000, 4_000, 20_000), (240, 320), ((24, 216), (64, 256)), 11, 1, 10),
    ("clevrtex", "outd"): ((10_000,), (240, 320), ((24, 216), (64, 256)), 11, 1, 10),
    ("shapes3d",): ((400_000, 430_000, 480_000), (64, 64), None, 1, 1, 1),
    ("boxworld",): ((200_000, 215_000, 230_000), None, None, 19, 1, 18),
    ("ravens",): ((65_001, 70_002, 85_002), (480, 640), ((0, 480), (70, 570)), 13, 5, 8),
    ("sketchy",): ((337_498, 378_924, 420_350), (128, 128), None, 1, 1, None),
}


@pytest.mark.parametrize("key", FACTS, ids="-".join)
def test_declared_facts_are_the_published_ones(key):
    name, *variant = key
    declaration = _declaration(name, **({"variant": variant[0]} if variant else {}))
    splits = sorted(declaration.splits.values(), key=lambda split: split.start)
    assert (
        tuple(split.stop for split in splits),
        declaration.image_size,
        declaration.crop,
        declaration.num_entities,
        len(declaration.background_labels),
        declaration.largest_num_objects,
    ) == FACTS[key]


def test_facts_cover_every_set_with_facts():
    assert {name for name, *_ in FACTS} == set(datasets.names()) - {"image_folder"}


def test_ravens_table_is_seen_from_the_front_alone(tmp_path):
    config = _config("ravens", path=str(tmp_path / "ravens"), crop="table")
    examples.write_ravens(tmp_path / "ravens", _declaration("ravens"), 36)
    for split in ("train", "val", "test"):
        dataset = loader.load(config, split)
        assert (dataset.indices % 3 == 0).all()
        assert dataset.image_size == (238, 540)


def test_ravens_with_a_count_for_every_picture_is_an_error(tmp_path):
    config = _config("ravens", path=str(tmp_path / "ravens"), max_objects=3)
    examples.write_ravens(tmp_path / "ravens", _declaration("ravens"), 36)
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
    with pytest.raises(DataError, match="has 3 pictures, but training and validation need"):
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
    assert "download" not in declaration.how_to_fix()  # only pictures of the published size can be
    for size in ((240,), (0, 320), (240.0, 320)):
        config = _config(name)
        with config.unlocked(), config.ignore_type():
            config.image_size = size
        with pytest.raises(DataError, match=r"data\.image_size: got .* as in \(240, 320\)"):
            datasets.get(name).declare(config)
