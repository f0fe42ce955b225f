"""Solids against distance functions written independently, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objdisc_jax.render import shapes
from objdisc_jax.render.vectors import vec


def _rounded_box(p):
    q = np.abs(p) - (1 - shapes.ROUNDING)
    outside = np.linalg.norm(np.maximum(q, 0), axis=-1)
    return outside + np.minimum(q.max(-1), 0) - shapes.ROUNDING


def _cylinder(p):
    q = np.stack([np.hypot(p[..., 0], p[..., 1]) - 1, np.abs(p[..., 2]) - 1], -1)
    return np.minimum(q.max(-1), 0) + np.linalg.norm(np.maximum(q, 0), axis=-1)


def _cone(p):
    # Not a distance, but of its sign: negative inside.
    return np.maximum(np.hypot(p[..., 0], p[..., 1]) - (1 - p[..., 2]) / 2, -1 - p[..., 2])


def _torus(p):
    return np.hypot(np.hypot(p[..., 0], p[..., 1]) - (1 - shapes.TUBE), p[..., 2]) - shapes.TUBE


INSIDE = {
    "sphere": lambda p: np.linalg.norm(p, axis=-1) - 1,
    "cube": _rounded_box,
    "cylinder": _cylinder,
    "cone": _cone,
    "torus": _torus,
}


@pytest.fixture(scope="module")
def rays():
    """Origins on a sphere of radius 4, and directions near to the solids."""
    rng = np.random.default_rng(0)
    origin = rng.standard_normal((4000, 3))
    origin *= 4 / np.linalg.norm(origin, axis=-1, keepdims=True)
    direction = rng.uniform(-1.5, 1.5, (4000, 3)) - origin
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    return origin.astype(np.float32), direction.astype(np.float32)


def _samples(origin, direction):
    t = np.linspace(1, 7, 3001)
    return t, origin[:, None].astype(float) + t[:, None] * direction[:, None]


def test_every_shape_is_tested():
    assert set(INSIDE) == set(shapes.SHAPES) == set(shapes.BOTTOM)


@pytest.mark.parametrize("name", INSIDE)
def test_rays_end_where_they_first_enter(name, rays):
    origin, direction = rays
    found = jax.jit(shapes.SHAPES[name][0])(vec(jnp.asarray(origin)), vec(jnp.asarray(direction)))
    t, points = _samples(*rays)
    inside = INSIDE[name](points) < 0
    first = t[inside.argmax(1)]
    hit = np.asarray(found.t) < shapes.FAR
    # A ray that only grazes the surface may go either way.
    depth = -INSIDE[name](points).min(1)
    clear = np.abs(depth) > (0.08 if name == "cube" else 0.01)
    assert (hit == inside.any(1))[clear].all()
    both = hit & inside.any(1) & clear
    assert both.sum() > 500
    np.testing.assert_allclose(np.asarray(found.t)[both], first[both], atol=0.02)


@pytest.mark.parametrize("name", INSIDE)
def test_normals_point_out_of_the_surface(name, rays):
    origin, direction = rays
    found = jax.jit(shapes.SHAPES[name][0])(vec(jnp.asarray(origin)), vec(jnp.asarray(direction)))
    normal = np.stack([found.normal.x, found.normal.y, found.normal.z], -1)
    hit = np.asarray(found.t) < shapes.FAR
    np.testing.assert_allclose(np.linalg.norm(normal[hit], axis=-1), 1, atol=1e-3)
    point = origin + np.where(hit, found.t, 0)[:, None] * direction
    assert (INSIDE[name](point + 0.05 * normal) > INSIDE[name](point - 0.05 * normal))[hit].all()
    if name != "cube":  # the rounded edges of a cube may be passed at a grazing angle
        assert (np.sum(normal * direction, -1) < 0.2)[hit].all()


@pytest.mark.parametrize("name", INSIDE)
def test_silhouette_distance_is_negative_where_the_line_hits(name, rays):
    origin, direction = rays
    distance, t = shapes.SHAPES[name][1](vec(jnp.asarray(origin)), vec(jnp.asarray(direction)))
    _, points = _samples(*rays)
    depth = -INSIDE[name](points).min(1)
    clear = np.abs(depth) > (0.1 if name == "cube" else 0.05)
    np.testing.assert_array_equal((np.asarray(distance) < 0)[clear], (depth > 0)[clear])
    # Lights stand high: of lines that are steep the closest point is by the solid.
    near = (np.abs(distance) < 0.3) & (np.abs(direction[:, 2]) > 0.4)
    point = origin + np.asarray(t)[:, None] * direction
    assert (np.linalg.norm(point, axis=-1) < 2.7)[near].all()
