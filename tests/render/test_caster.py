"""What the camera sees: projections, outlines, labels and depth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import ConvexHull

from objdisc_jax.render import camera, caster, clevr, lighting, shapes
from objdisc_jax.render.scene import Objects, Scene
from objdisc_jax.render.vectors import vec

RESOLUTION = (240, 320)


def _axes(eye):
    back = eye / np.linalg.norm(eye)
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right)
    return right, np.cross(back, right), back


def _project(eye, points):
    """The published camera model, for 320x240 images, in float64."""
    right, up, back = _axes(eye)
    offset = points - eye
    depth = -offset @ back
    px = 160 + 350 * (offset @ right) / depth
    return np.stack([px, 120 - 350 * (offset @ up) / depth, depth], -1)


def _scene(names, sizes, positions, yaws, eye=clevr.CAMERA):
    count = len(names)
    objects = Objects(
        shape=jnp.array([clevr.SHAPES.index(name) for name in names]),
        size=jnp.array(sizes, jnp.float32),
        position=jnp.array(positions, jnp.float32),
        yaw=jnp.array(yaws, jnp.float32),
        surface=clevr.plain(jnp.full((count, 3), 0.5), jnp.zeros(count)),
    )
    lights = jnp.array(lighting.LIGHT_POSITIONS, jnp.float32)
    ground = clevr.plain(jnp.full(3, 0.8), jnp.zeros(()))
    return Scene(
        objects, jnp.int32(count), jnp.array(eye, jnp.float32), lights, ground, clevr.SETTINGS
    )


@jax.jit
def _labels(scene):
    y, x = jnp.mgrid[: RESOLUTION[0], : RESOLUTION[1]].reshape(2, -1) + 0.5
    directions = camera.rays(scene.camera, x, y, RESOLUTION)
    hit = caster.first_hit(scene, vec(scene.camera), directions)
    depth = camera.depth_of(scene.camera, directions, hit.t)
    return hit.label.reshape(RESOLUTION), depth.reshape(RESOLUTION)


def test_projection_is_that_of_the_published_camera():
    rng = np.random.default_rng(0)
    for _ in range(20):
        eye = np.array(clevr.CAMERA) + rng.uniform(-0.5, 0.5, 3)
        points = rng.uniform([-3, -3, 0], [3, 3, 1.4], (50, 3))
        found = camera.project(
            jnp.asarray(eye, jnp.float32), jnp.asarray(points, jnp.float32), RESOLUTION
        )
        np.testing.assert_allclose(found, _project(eye, points), atol=2e-3)


def test_projection_scales_with_the_resolution():
    points = jnp.array([[1.0, -2.0, 0.5]])
    eye = jnp.array(clevr.CAMERA)
    small = camera.project(eye, points, (240, 320))
    large = camera.project(eye, points, (480, 640))
    np.testing.assert_allclose(large[:, :2], 2 * small[:, :2], rtol=1e-5)


def test_rays_go_to_the_points_that_are_projected_there():
    eye = jnp.array(clevr.CAMERA)
    points = np.random.default_rng(1).uniform(-3, 3, (30, 3)).astype(np.float32)
    x, y, _ = camera.project(eye, jnp.asarray(points), RESOLUTION).T
    rays = camera.rays(eye, x, y, RESOLUTION).stack()
    towards = points - np.asarray(eye)
    towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
    np.testing.assert_allclose(rays, towards, atol=1e-5)


@pytest.mark.parametrize("position", [(0, 0), (2.5, -2.0), (-2.8, 2.4)])
def test_area_of_a_sphere_is_that_of_its_ellipse(position):
    scene = _scene(["sphere"], [0.7], [(*position, 0.7)], [0])
    eye, centre = np.array(clevr.CAMERA), np.array([*position, 0.7])
    distance = np.linalg.norm(centre - eye)
    alpha = np.arcsin(0.7 / distance)
    theta = np.arccos(_project(eye, centre)[2] / distance)
    square = np.cos(theta) ** 2 - np.sin(alpha) ** 2
    long = 350 * np.sin(alpha) * np.cos(alpha) / square
    short = 350 * np.sin(alpha) / np.sqrt(square)
    area = np.sum(_labels(scene)[0] == 1)
    assert area == pytest.approx(np.pi * long * short, rel=0.01)


@pytest.mark.parametrize(
    ("position", "yaw"), [((0, 0), 0.3), ((2.5, -2.0), 1.1), ((-2.0, 2.4), 4.0)]
)
def test_area_of_a_cube_is_that_of_its_outline(position, yaw):
    scene = _scene(["cube"], [0.7], [(*position, 0.7)], [yaw])
    corner = np.stack(np.meshgrid(*[(-1, 1)] * 3), -1).reshape(-1, 1, 3) * (1 - shapes.ROUNDING)
    ball = np.random.default_rng(0).standard_normal((1, 4000, 3))
    ball *= shapes.ROUNDING / np.linalg.norm(ball, axis=-1, keepdims=True)
    points = 0.7 * (corner + ball).reshape(-1, 3)
    cos, sin = np.cos(yaw), np.sin(yaw)
    points = points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + [*position, 0.7]
    outline = ConvexHull(_project(np.array(clevr.CAMERA), points)[:, :2])
    area = np.sum(_labels(scene)[0] == 1)
    assert area == pytest.approx(outline.volume, rel=0.01)


def test_nearer_object_hides_the_farther_one():
    # Both on the camera's axis over the ground.
    towards = np.array(clevr.CAMERA[:2]) / np.linalg.norm(clevr.CAMERA[:2])
    near, far = (*(2 * towards), 0.35), (*(0.6 * towards), 0.7)
    one = _scene(["cylinder", "sphere"], [0.35, 0.7], [near, far], [0, 0])
    other = _scene(["sphere", "cylinder"], [0.7, 0.35], [far, near], [0, 0])
    first, depth = (np.asarray(values) for values in _labels(one))
    second, _ = _labels(other)
    alone, _ = _labels(_scene(["cylinder"], [0.35], [near], [0]))
    np.testing.assert_array_equal(first == 1, alone == 1)
    assert np.sum(first == 2) > 500
    np.testing.assert_array_equal(first == 1, second == 2)
    assert depth[first == 1].max() < depth[first == 2].min()


def test_depth_of_the_ground_is_that_of_its_points():
    scene = _scene(["sphere"], [0.35], [(2, 2, 0.35)], [0])
    labels, depth = (np.asarray(values) for values in _labels(scene))
    eye = np.array(clevr.CAMERA)
    right, up, back = _axes(eye)
    for row, col in ((200, 40), (230, 300), (150, 160)):
        ray = (col + 0.5 - 160) / 350 * right - (row + 0.5 - 120) / 350 * up - back
        assert labels[row, col] == 0
        assert depth[row, col] == pytest.approx(-eye[2] / ray[2], rel=1e-4)


def test_shadows_lie_away_from_the_lights_and_end():
    x = jnp.linspace(-4, 4, 161)
    points = vec(jnp.stack([x, jnp.zeros_like(x), jnp.zeros_like(x)], -1))
    scene = _scene(["sphere"], [0.35], [(0, 0, 0.35)], [0])
    lights = lighting.incident_lights(scene, points, jnp.zeros(161, jnp.int32))
    free = lighting.incident_lights(
        dataclasses.replace(scene, num_objects=jnp.int32(0)),
        points,
        jnp.zeros(161, jnp.int32),
    )
    key = np.asarray(lights[0].strength / free[0].strength)
    # The key light stands at x > 0, so the shadow is at x < 0 and reaches under the sphere.
    assert key[np.argmin(np.abs(x + 0.25))] < 0.2
    assert (key[np.asarray(x) > 0.6] == 1).all()
    assert (key[np.asarray(x) < -1.5] == 1).all()
    assert ((key >= 0) & (key <= 1)).all()


@pytest.mark.parametrize("samples", range(2, 65))
def test_rays_of_a_pixel_are_spread_evenly_around_its_centre(samples):
    offsets = caster.filter_offsets(samples)
    np.testing.assert_allclose(offsets.mean(0), 0.5, atol=1e-3)
    assert (np.abs(offsets - 0.5) < 0.75).all()
    for axis in (0, 1):
        assert len(np.unique(offsets[:, axis].round(4))) == samples
