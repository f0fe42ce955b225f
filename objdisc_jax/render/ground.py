"""The ground: a plane at height 0 that bends up, behind the objects, into a backdrop.

The published base scene is not described; the place and the curvature of the bend are fitted to
the brightness of the background in genuine images.
"""

import math

import jax
import jax.numpy as jnp

from objdisc_jax.render import vectors
from objdisc_jax.render.vectors import Vec

ALBEDO = 0.8

# Behind `START`, measured along the direction (COS, SIN), the height is (s - START)² / (2 CURVE).
_ANGLE = 2.55
_COS, _SIN = math.cos(_ANGLE), math.sin(_ANGLE)
START = 6.0
CURVE = 11.0
TOP = 60.0
"""Height at which the backdrop ends; it is seen in metal alone."""


def intersect(origin: Vec, direction: Vec, far: float) -> tuple[jax.Array, Vec]:
    """Returns where rays from above meet the ground (or `far`), and its normal there."""
    falling = direction.z < 0
    t = jnp.where(falling, -origin.z / jnp.where(falling, direction.z, -1.0), far)
    along = _COS * origin.x + _SIN * origin.y - START
    speed = _COS * direction.x + _SIN * direction.y
    # (along + t speed)² = 2 CURVE (z + t dz), whose larger root is on the bend.
    half_b = CURVE * direction.z - along * speed
    a = jnp.maximum(speed * speed, 1e-9)
    square = half_b * half_b - a * (along * along - 2 * CURVE * origin.z)
    on_bend = (along + t * speed > 0) & (speed > 1e-4)
    bent = (half_b + jnp.sqrt(jnp.maximum(square, 0))) / a
    too_high = origin.z + bent * direction.z > TOP
    t = jnp.where(on_bend, jnp.where(too_high, far, bent), t)
    slope = jnp.where(on_bend, jnp.maximum(along + t * speed, 0) / CURVE, 0.0)
    one = jnp.ones_like(slope)
    up = Vec(jnp.zeros_like(slope), jnp.zeros_like(slope), one)
    normal = vectors.where(on_bend, Vec(-slope * _COS, -slope * _SIN, one).unit(), up)
    return t, normal
