"""Scenes of CLEVR: how they are sampled, how they look, and that nothing depends on the batch."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objdisc_jax.render import clevr, lighting
from objdisc_jax.render.blocks import BlockRenderer

SETTINGS = clevr.SETTINGS
COUNT = 48
LOOK = json.loads((Path(__file__).parents[1] / "golden" / "clevr_look.json").read_text())


@pytest.fixture(scope="module")
def renderer():
    """Renders images in blocks of 48."""
    return BlockRenderer(
        lambda number, key: clevr.record(key, number, SETTINGS, 10), jax.random.key(3), size=COUNT
    )


@pytest.fixture(scope="module")
def rendered(renderer):
    """Scenes and images 0 to 47, as NumPy arrays."""
    return renderer(0, COUNT)


def test_same_image_alone_and_in_a_batch(renderer, rendered):
    scenes, rendering = renderer(21, 1)
    np.testing.assert_array_equal(rendering.image[0], rendered[1].image[21])
    np.testing.assert_array_equal(rendering.segmentation[0], rendered[1].segmentation[21])
    np.testing.assert_array_equal(scenes.camera[0], rendered[0].camera[21])


@pytest.mark.slow  # every device compiles
def test_same_image_on_every_device(rendered):
    assert len(jax.local_devices()) == 4
    turns = BlockRenderer(
        lambda number, key: clevr.record(key, number, SETTINGS, 10), jax.random.key(3), size=5
    )
    for first in (0, 5, 10, 15):
        _, rendering = turns(first, 5)
        np.testing.assert_array_equal(rendering.image, rendered[1].image[first : first + 5])


def test_other_seeds_and_numbers_are_other_scenes(rendered):
    assert len(np.unique(rendered[0].camera[:, 0])) == COUNT
    assert len(np.unique(rendered[0].objects.position[:, 0, 0])) == COUNT


def test_scenes_keep_the_published_rules(rendered):
    scenes, rendering = rendered
    assert set(np.unique(scenes.num_objects)) <= set(range(3, 11))
    assert len(np.unique(scenes.num_objects)) > 5
    assert np.abs(scenes.camera - clevr.CAMERA).max() <= 0.5
    assert np.abs(scenes.light_positions - lighting.LIGHT_POSITIONS).max() <= 1
    right, behind = np.array([0.65631, 0.75449]), np.array([-0.75449, 0.65631])
    for i, count in enumerate(scenes.num_objects):
        size = scenes.objects.size[i, :count]
        position = scenes.objects.position[i, :count]
        assert (np.isclose(size, 0.7) | np.isclose(size, 0.35)).all()
        np.testing.assert_array_equal(position[:, 2], size)
        assert np.abs(position[:, :2]).max() <= 3
        for a in range(count):
            for b in range(a):
                offset = position[a, :2] - position[b, :2]
                assert np.linalg.norm(offset) - size[a] - size[b] >= 0.25 - 1e-5
                assert min(abs(offset @ right), abs(offset @ behind)) >= 0.4 - 1e-4
        seen = np.bincount(rendering.segmentation[i].reshape(-1), minlength=11)
        assert (seen[1 : count + 1] >= 200).all()
        assert not seen[count + 1 :].any()


def test_number_of_objects_can_be_limited():
    sample = jax.jit(
        lambda keys: jax.lax.map(lambda key: clevr.sample_scene(key, SETTINGS, 4), keys)
    )
    found = sample(jax.random.split(jax.random.key(0), 16)).num_objects
    assert set(np.asarray(found).tolist()) == {3, 4}


def test_sizes_are_equally_likely():
    sample = jax.jit(jax.vmap(lambda key: clevr._sample_objects(key, jnp.int32(10))))
    size = sample(jax.random.split(jax.random.key(0), 200)).size
    assert 0.4 < np.mean(np.asarray(size) > 0.5) < 0.6


def test_background_is_as_bright_as_published(rendered):
    _, rendering = rendered
    for row, levels in LOOK["background"]["rows"].items():
        row = int(row)
        for col, level in zip(LOOK["background"]["columns"], levels, strict=True):
            free = rendering.segmentation[:, row, col] == 0
            median = np.median(rendering.image[free, row, col].mean(-1))
            assert abs(median - level) <= 8, (row, col)


def test_objects_have_the_published_colors(rendered):
    _, rendering = rendered
    arrays = clevr.arrays(*rendered)
    for color, medians in LOOK["colors"].items():
        for material, expected in medians.items():
            wanted = (arrays["color"] == 1 + list(clevr.COLORS).index(color)) & (
                arrays["material"] == 1 + clevr.MATERIALS.index(material)
            )
            pixels = [
                rendering.image[i][rendering.segmentation[i] == k] for i, k in np.argwhere(wanted)
            ]
            assert len(pixels) >= 3
            median = np.median(np.concatenate(pixels), axis=0)
            assert np.abs(median - expected).max() <= 15, (color, material, median)


def test_arrays_describe_the_objects(rendered):
    _, rendering = rendered
    arrays = clevr.arrays(*rendered)
    assert all(len(values) == COUNT for values in arrays.values())
    np.testing.assert_array_equal(arrays["visibility"].sum(1) - 1, arrays["num_objects"])
    there = arrays["visibility"][:, 1:] == 1
    for key in ("shape", "size", "color", "material"):
        assert (arrays[key][:, 0] == 0).all()
        np.testing.assert_array_equal(arrays[key][:, 1:] > 0, there)
    np.testing.assert_array_equal(
        arrays["visible_pixels"].sum(1), np.full(COUNT, np.prod(SETTINGS.resolution))
    )
    # Centres of spheres in full view lie where they are seen.
    checked = 0
    for i, k in np.argwhere(arrays["shape"] == 1 + clevr.SHAPES.index("sphere")):
        rows, cols = np.nonzero(rendering.segmentation[i] == k)
        size = (arrays["size"][i, k] == 1) * 0.35 + 0.35
        x, y, depth = arrays["pixel_coords"][i, k]
        if len(rows) > 0.97 * np.pi * (350 * size / depth) ** 2 and 0 < cols.min() < 300:
            assert abs(cols.mean() + 0.5 - x) < 1.5
            assert abs(rows.mean() + 0.5 - y) < 1.5
            assert abs(rendering.depth[i, int(y), int(x)] - (depth - size)) < 0.1 * size
            checked += 1
    assert checked > 10


@pytest.mark.slow
def test_mapped_one_by_one_or_all_at_once_is_the_same():
    settings = dataclasses.replace(SETTINGS, resolution=(60, 80))
    key = jax.random.key(5)

    def one(number):
        return clevr.record(key, number, settings, 6)

    scenes, turns = jax.jit(lambda n: jax.lax.map(one, n))(jnp.arange(4))
    other, at_once = jax.jit(jax.vmap(one))(jnp.arange(4))
    assert np.asarray(scenes.num_objects).max() <= 6
    np.testing.assert_allclose(scenes.objects.position, other.objects.position, atol=1e-5)
    np.testing.assert_array_equal(turns.segmentation, at_once.segmentation)
    away = np.abs(np.asarray(turns.image, int) - np.asarray(at_once.image, int))
    assert away.max() <= 1
