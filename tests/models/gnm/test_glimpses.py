"""Placing glimpses against a gather and PyTorch; boxes; what lies nearer hides what is behind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from objdisc_jax.interop import glimpses as torch_glimpses
from objdisc_jax.models.gnm.boxes import draw_boxes, to_boxes
from objdisc_jax.models.gnm.glimpses import compose, pixel_centres, place
from objdisc_jax.models.gnm.local_latents import to_transform

RNG = np.random.default_rng(0)
# Scale x, scale y, shift x, shift y; no pixel falls on another's centre, where tents have a kink.
WHERE = [
    [0.3127, 0.4213, 0.1019, -0.2031],
    [1.0, 1.0, 0.0137, 0.0079],
    [0.5119, 0.2027, 0.9151, -0.8093],  # partly outside
    [0.2143, 0.2019, 3.0, 0.0],  # entirely outside
    [1e-6, 0.3141, 0.0523, 0.0],  # thinner than a pixel
    [2.5171, 3.0193, 0.3079, 0.1033],  # larger than the image
]


def gathered(maps, z_where, size):
    """Bilinear sampling of `[n, p, c, q]` pixel by pixel, zeros outside."""
    out = []
    for m, (scale_x, scale_y, shift_x, shift_y) in zip(maps, z_where, strict=True):
        rows, columns = (
            0.5 * (((pixel_centres(n) - shift) / (scale + 1e-15) + 1.0) * k - 1.0)
            for n, shift, scale, k in (
                (size[0], shift_y, scale_y, m.shape[0]),
                (size[1], shift_x, scale_x, m.shape[2]),
            )
        )
        padded = jnp.pad(m, ((1, 1), (0, 0), (1, 1)))
        first_row, first_column = jnp.floor(rows), jnp.floor(columns)
        total = 0.0
        for down in (0, 1):
            for right in (0, 1):
                r, c = first_row + down, first_column + right
                weight_r = 1.0 - jnp.abs(rows - r)
                weight_c = 1.0 - jnp.abs(columns - c)
                r, c = (
                    jnp.clip(x + 1, 0, k + 1).astype(int)
                    for x, k in ((r, m.shape[0]), (c, m.shape[2]))
                )
                part = padded[r][:, :, c]
                total += part * weight_r[:, None, None] * weight_c[None, None, :]
        out.append(total)
    return jnp.stack(out)


@pytest.mark.parametrize(("glimpse", "size"), [((8, 8), (16, 16)), ((5, 7), (12, 9))])
def test_placement_equals_a_gather(glimpse, size):
    maps = jnp.asarray(RNG.normal(size=(len(WHERE), glimpse[0], 3, glimpse[1])), jnp.float32)
    where = jnp.asarray(WHERE)
    expected, their_gradient = jax.vjp(lambda *a: gathered(*a, size), maps, where)
    found, gradient = jax.vjp(lambda *a: place(*a, size), maps, where)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not found[3].any()
    direction = jnp.asarray(RNG.normal(size=expected.shape), jnp.float32)
    for ours, theirs in zip(gradient(direction), their_gradient(direction), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)


def test_placement_equals_pytorch():
    maps = RNG.normal(size=(len(WHERE), 6, 4, 6)).astype(np.float32)
    where, size = np.array(WHERE, np.float32), (15, 11)
    found = place(jnp.asarray(maps), jnp.asarray(where), size)
    theirs = torch_glimpses.place(
        torch.from_numpy(maps).movedim(2, 1), torch.from_numpy(where), size
    )
    np.testing.assert_allclose(found, theirs.movedim(1, 2), atol=1e-4)


def scene(depths, pres=(1.0, 1.0)):
    """A red and a green opaque glimpse, both over all of a blue image."""
    glimpses = np.zeros((1, 2, 4, 4, 4), np.float32)
    glimpses[..., 3] = 1.0
    glimpses[0, 0, ..., 0] = glimpses[0, 1, ..., 1] = 1.0
    return compose(
        jnp.asarray(glimpses),
        jnp.asarray([pres]),
        jnp.asarray([depths]),
        jnp.asarray([[[2.0, 2.0, 0.0, 0.0]] * 2]),
        jnp.broadcast_to(jnp.asarray([0.0, 0.0, 1.0]), (1, 4, 4, 3)),
        fixed_alpha=0.9,
        is_early=jnp.array(False),
    )


def test_nearer_glimpses_hide_those_behind():
    np.testing.assert_allclose(scene([-20.0, 20.0]).image[0, 2, 2], [1, 0, 0], atol=1e-5)
    np.testing.assert_allclose(scene([20.0, -20.0]).image[0, 2, 2], [0, 1, 0], atol=1e-5)


def test_absent_glimpses_show_the_background():
    found = scene([0.0, 0.0], pres=(0.0, 0.0))
    np.testing.assert_allclose(found.image[0, 2, 2], [0, 0, 1], atol=1e-6)
    assert not found.masks.any()


def test_gradient_goes_through_the_clamp_of_full_coverage():
    def coverage(pres):
        return scene([0.0, 0.0], pres=(pres, 1.0)).alpha[0, 2, 2]

    assert coverage(1.0) == 1.0
    assert jax.grad(coverage)(1.0) == 1.0


def test_masks_and_sums_agree():
    glimpses = jnp.asarray(RNG.uniform(size=(2, 4, 6, 6, 4)), jnp.float32)
    where = jnp.asarray(RNG.uniform(0.2, 0.6, size=(2, 4, 4)), jnp.float32)
    pres, depth = (jnp.asarray(RNG.uniform(size=(2, 4)), jnp.float32) for _ in range(2))
    background = jnp.asarray(RNG.uniform(size=(2, 10, 12, 3)), jnp.float32)
    found = compose(
        glimpses, pres, depth, where, background, fixed_alpha=0.9, is_early=jnp.array(False)
    )
    np.testing.assert_allclose(found.alpha, jnp.clip(found.masks.sum(1), 0, 1), atol=1e-5)
    early = compose(
        glimpses, pres, depth, where, background, fixed_alpha=0.9, is_early=jnp.array(True)
    )
    np.testing.assert_allclose(early.image, found.foreground + 0.1 * background, atol=1e-5)


def test_transforms_are_those_of_the_cells():
    where = jnp.zeros((1, 6, 4)).at[0, 5].set(jnp.asarray([0.0, 2.0, 20.0, -20.0]))
    transforms = to_transform(where, (2, 3))
    np.testing.assert_allclose(transforms[0, 0], [0.5, 0.5, 2 / 3 * 0.5 - 1, -0.5], atol=1e-6)
    scales = [0.5 / np.e, 0.5 * np.e]
    np.testing.assert_allclose(transforms[0, 5], [*scales, 2 / 3 * 3.5 - 1, -0.5], atol=1e-6)
    boxes = to_boxes(transforms, (20, 30))
    np.testing.assert_allclose(boxes[0, 0], [0, 10, -2.5, 12.5], atol=1e-5)


def test_boxes_are_drawn_green_and_red():
    image = jnp.full((1, 10, 10, 3), 0.5)
    boxes = jnp.asarray([[[2.0, 6.0, 3.0, 8.0], [2.0, 9.0, 3.0, 20.0]]])
    found = np.asarray(draw_boxes(image, boxes, jnp.asarray([[True, False]])))[0]
    np.testing.assert_array_equal(found[2, 3:8], [[0, 1, 0]] * 5)
    np.testing.assert_array_equal(found[2, 8:], [[1, 0, 0]] * 2)
    np.testing.assert_array_equal(found[6:9, 3], [[1, 0, 0]] * 3)
    np.testing.assert_array_equal(found[3, 5], [0.5] * 3)
    np.testing.assert_array_equal(found[9], [[0.5] * 3] * 10)
