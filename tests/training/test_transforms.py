"""From file to the model's input as the published pipelines do it, on their own numbers."""

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from objdisc_jax.data import datasets, loader
from objdisc_jax.data.datasets.clevrtex import PALETTE
from objdisc_jax.preprocessing import prepare_images, resize_labels
from tests.golden.published import load_npz

SIZE = (128, 128)


@pytest.fixture(scope="module")
def published():
    return load_npz("transforms.npz")


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(501).integers(0, 256, (240, 320, 3), np.uint8)


def _read(name, path, **changes):
    config = datasets.get(name).default_config()
    config.update(path=str(path), **changes)
    batch = loader.load(config, "test").read([0])
    return {name: jnp.asarray(batch[name]) for name in ("image", "segmentation")}


def _labels_that_differ(batch, published):
    """The share of pixels whose label is another than that of the published pipeline."""
    return np.mean(np.asarray(resize_labels(batch["segmentation"], SIZE))[0] != published)


def _floor_indexed(segmentation):
    """Resizing that takes floor(i * scale), as the published pipeline does to masks."""
    rows, cols = (np.arange(128) * n // 128 for n in segmentation.shape)
    return segmentation[rows[:, None], cols]


def test_clevr_equals_the_published_pipeline(published, image, tmp_path):
    with h5py.File(tmp_path / "clevr.h5", "w") as file:
        file["image"] = image[None]
        file["segmentation"] = published["labels"][None]
        file.attrs["split_test"] = [0, 1]
    batch = _read("clevr_with_masks", tmp_path / "clevr.h5")
    for name, input_range in {"01": (0.0, 1.0), "m1p1": (-1.0, 1.0)}.items():
        found = np.asarray(prepare_images(batch["image"], SIZE, input_range))[0, ::4, ::4]
        np.testing.assert_allclose(found, published[f"clevr_image_{name}"], rtol=0, atol=1e-6)
    crop = batch["segmentation"][0]
    np.testing.assert_array_equal(_floor_indexed(crop), published["clevr_mask_labels"])
    # Ours has half-pixel centres, as images have: three of four pixels come from elsewhere, but
    # few lie at the edge of a region (the regions here are made small and many).
    assert 0.05 < _labels_that_differ(batch, published["clevr_mask_labels"]) < 0.15


@pytest.mark.parametrize(("crop", "name"), [("centre", "center"), ("table", "alt")])
def test_ravens_equals_the_published_pipeline(published, tmp_path, crop, name):
    image = np.random.default_rng(502).integers(0, 256, (480, 640, 3), np.uint8)
    labels = np.random.default_rng(503).integers(0, 12, (48, 64), np.uint8)
    labels = labels.repeat(10, axis=0).repeat(10, axis=1)
    labels[5::19, 3::7] = 0
    for part in ("train", "test"):
        with h5py.File(tmp_path / f"ravens_robot_data_{part}.h5", "w") as file:
            file["color"] = image[None].repeat(6, axis=0)
            file["segm"] = labels[None].repeat(6, axis=0)
            file["num_objects_on_table"] = np.array([3, 3])
    batch = _read("ravens", tmp_path, crop=crop)
    found = np.asarray(prepare_images(batch["image"], SIZE, (-1.0, 1.0)))[0, ::4, ::4]
    expected = published[f"ravens_{name}_image_m1p1"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    expected = published[f"ravens_{name}_mask_labels"]
    np.testing.assert_array_equal(_floor_indexed(batch["segmentation"][0]), expected)
    assert 0.05 < _labels_that_differ(batch, expected) < 0.3


def test_clevrtex_equals_its_authors_pipeline(published, image, tmp_path):
    stem = tmp_path / "CLEVRTEX_outd_000000"
    Image.fromarray(image).convert("RGBA").save(f"{stem}.png")
    mask = Image.fromarray(published["labels"])
    mask.putpalette(PALETTE)
    mask.save(f"{stem}_flat.png")
    batch = _read("clevrtex", tmp_path, variant="outd")
    np.testing.assert_array_equal(batch["image"][0, ::2, ::2], published["clevrtex_image_01"])
    np.testing.assert_array_equal(batch["segmentation"][0], published["clevrtex_mask_labels"])
    # The device leaves images of this size as they are.
    prepared = np.asarray(prepare_images(batch["image"], SIZE, (0.0, 1.0)))
    np.testing.assert_allclose(prepared * 255, batch["image"], rtol=0, atol=1e-4)
