"""Solid textures: patterns in space, each a function from a point to a value from 0 to 1.

A surface mixes two colours by the pattern's value, and is bumped along its gradient. On the ground,
points are passed as (x, 0, y), so that "up" in a pattern is y there.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from objdisc_jax.render.vectors import Vec

BUMP = 0.06
"""Height of the bumps, in scene units where a pattern has the scale 1."""

_STEP = 0.02


def noise(point: Vec) -> jax.Array:
    """Smooth noise of two octaves."""
    return 0.65 * _noise(point) + 0.35 * _noise(point * 2.03)


def stripes(point: Vec) -> jax.Array:
    """Soft stripes along two axes at once, so that every side of a box has some."""
    return _soft(jnp.sin(np.pi * (point.x + 0.6 * point.y + 0.8 * point.z)), 0.4)


def checks(point: Vec) -> jax.Array:
    """A three-dimensional checkerboard."""
    # Away from lattice planes, on which sides of objects and the ground lie.
    parity = sum(jnp.floor(x + 0.37) for x in (point.x, point.y, point.z))
    return jnp.asarray(parity % 2)


def bricks(point: Vec) -> jax.Array:
    """Courses of bricks in mortar."""
    course = jnp.floor(2 * point.z)
    along = point.x + point.y + 0.5 * (course % 2)
    edge = jnp.minimum(_to_lattice(2 * point.z), 2 * _to_lattice(along))
    shade = 0.3 * _hash(jnp.floor(along), course, jnp.zeros_like(along))
    return _soft(edge - 0.08, 0.05) * (0.7 + shade)


def cells(point: Vec) -> jax.Array:
    """Rounded cells around scattered points."""
    base = (point + Vec(*(jnp.asarray(-0.5),) * 3)).map(jnp.floor)
    nearest = jnp.full_like(point.x, 9.0)
    for corner in range(8):
        cell = base + Vec(*(jnp.asarray(float(corner >> axis & 1)) for axis in range(3)))
        corner_point = Vec(
            *(0.25 + 0.5 * _hash(cell.x + shift, cell.y, cell.z) for shift in (0.0, 57.0, 113.0))
        )
        away = cell + corner_point - point
        nearest = jnp.minimum(nearest, away.dot(away))
    return jnp.clip(1.3 * jnp.sqrt(nearest), 0, 1)


def wood(point: Vec) -> jax.Array:
    """Rings around an axis, unevenly wide."""
    radius = jnp.sqrt(point.x**2 + (0.3 * point.z) ** 2 + point.y**2)
    ring = 2 * radius + 0.8 * _noise(point * 1.3)
    return ring - jnp.floor(ring)


def marble(point: Vec) -> jax.Array:
    """Veins, which noise bends."""
    wave = jnp.sin(2 * point.x + point.z + 5 * noise(point * 1.2))
    return 1 - (1 - jnp.abs(wave)) ** 3


def dots(point: Vec) -> jax.Array:
    """Balls on a lattice."""
    away = Vec(
        *(x + s - jnp.round(x + s) for x, s in ((point.x, 0.1), (point.y, 0.2), (point.z, 0.3)))
    )
    return _soft(0.36 - away.length(), 0.05)


PATTERNS: Mapping[str, Callable[[Vec], jax.Array]] = {
    pattern.__name__: pattern
    for pattern in (noise, stripes, checks, bricks, cells, wood, marble, dots)
}


def look(
    pattern: jax.Array, point: Vec, scale: jax.Array, offset: jax.Array, footprint: jax.Array
) -> tuple[jax.Array, Vec]:
    """Returns a pattern's value at points, and the slope of its bumps.

    Args:
        pattern: number in `PATTERNS`.
        point: in scene units.
        scale: repetitions per unit.
        offset: where in the pattern to look.
        footprint: units that a pixel covers; patterns finer than that fade into their mean.
    """
    at = (point * scale).map(lambda x: (x + offset)[None])
    # The point itself, and a step along each axis.
    x, y, z = np.eye(4, 3, k=-1, dtype=np.float32).T[:, :, None] * _STEP
    values = jax.lax.switch(pattern, list(PATTERNS.values()), Vec(at.x + x, at.y + y, at.z + z))
    share = jnp.clip(1.5 - 2 * footprint * scale, 0, 1)
    # A bump's height shrinks with the pattern, so its slope stays.
    slope = (values[1:] - values[:1]) * (BUMP / _STEP * share)[None]
    return 0.5 + (values[0] - 0.5) * share, Vec(slope[0], slope[1], slope[2])


def _noise(point: Vec) -> jax.Array:
    """Values at lattice points, smoothly interpolated."""
    base = point.map(jnp.floor)
    weight = (point - base).map(lambda x: x * x * (3 - 2 * x))

    def at(x: float, y: float, z: float) -> jax.Array:
        return _hash(base.x + x, base.y + y, base.z + z)

    def mix(a: jax.Array, b: jax.Array, share: jax.Array) -> jax.Array:
        return a + (b - a) * share

    def plane(z: float) -> jax.Array:
        low, high = (mix(at(0, y, z), at(1, y, z), weight.x) for y in (0, 1))
        return mix(low, high, weight.y)

    return mix(plane(0), plane(1), weight.z)


def _hash(x: jax.Array, y: jax.Array, z: jax.Array) -> jax.Array:
    """Returns a number from 0 to 1 that whole numbers scatter to."""
    x, y, z = (value.astype(jnp.int32).astype(jnp.uint32) for value in (x, y, z))
    value = x * np.uint32(0x8DA6B343) ^ y * np.uint32(0xD8163841) ^ z * np.uint32(0xCB1AB31F)
    value = (value ^ (value >> 15)) * np.uint32(0x2C1B3C6D)
    value = (value ^ (value >> 12)) * np.uint32(0x297A2D39)
    value = value ^ (value >> 15)
    return (value >> 8).astype(jnp.float32) * np.float32(2**-24)


def _soft(x: jax.Array, width: float) -> jax.Array:
    """Rises from 0 to 1 where x changes its sign."""
    return smoothstep(0.5 + 0.5 * x / width)


def smoothstep(x: jax.Array) -> jax.Array:
    """Rises smoothly from 0 to 1 as x does."""
    x = jnp.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _to_lattice(x: jax.Array) -> jax.Array:
    return jnp.abs(x - jnp.round(x))
