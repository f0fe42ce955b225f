"""Solids in their own coordinates, where they measure about 1, and the ground: where rays hit them.

Each solid is given by two functions of a ray, whose direction need not have length 1:

- `intersect(origin, direction) -> Intersection`: the first point of the surface from outside;
- `silhouette_distance(origin, direction) -> (distance, t)`: by how much the line of the ray misses
  the solid (negative inside its silhouette) and where it comes closest. Soft shadows are computed
  from it, without samples: a light is hidden as far as its image reaches into the silhouette.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from objdisc_jax.render import vectors
from objdisc_jax.render.vectors import Vec

FAR = 1e6
"""The parameter of a ray that hits nothing."""

ROUNDING = 0.09
"""Radius of a box's edges, in half edges of the box."""

TUBE = 0.35
"""Radius of the torus's tube; the circle in it has radius 1 - TUBE."""

# The ground is a plane at height 0 that bends up, behind the objects, into a backdrop: past _START
# along the direction (_COS, _SIN) its height is (s - _START)² / (2 _CURVE), up to _TOP, which is
# seen in metal alone. The published base scene is not described; place and curvature are fitted to
# the brightness of the background in genuine images.
_COS, _SIN = math.cos(2.55), math.sin(2.55)
_START, _CURVE, _TOP = 6.0, 11.0, 60.0

# Edges of the outlines of cylinders and cones are rounded in their shading only.
_BEVEL = 0.07
_SMALL = 1e-9


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Intersection:
    """Where rays hit a solid."""

    t: jax.Array  # of the first point, in lengths of the direction; `FAR` if there is none
    normal: Vec  # of the surface there, of length 1
    part: jax.Array  # number of the smooth part of the surface that it belongs to


def intersect_sphere(origin: Vec, direction: Vec) -> Intersection:
    """A sphere of radius 1."""
    b = origin.dot(direction)
    inverse = 1 / direction.dot(direction)
    # The closest point tells more precisely than b² - ac whether the line hits.
    closest = origin - direction * (b * inverse)
    half = jnp.sqrt(jnp.maximum(1 - closest.dot(closest), 0) * inverse)
    t = -b * inverse - half
    hit = (closest.dot(closest) < 1) & (t > 0)
    return Intersection(
        jnp.where(hit, t, FAR), origin + direction * t, jnp.zeros_like(t, jnp.int32)
    )


def sphere_silhouette_distance(origin: Vec, direction: Vec) -> tuple[jax.Array, jax.Array]:
    """A sphere of radius 1."""
    t = -origin.dot(direction) / direction.dot(direction)
    return (origin + direction * t).length() - 1, t


def intersect_box(origin: Vec, direction: Vec) -> Intersection:
    """A cube with half edge 1 and edges rounded by `ROUNDING`."""
    near, far = _box_interval(origin, direction)
    part = jnp.where(near.x > jnp.maximum(near.y, near.z), 0, jnp.where(near.y > near.z, 1, 2))
    enter = _largest(near)
    leave = -_largest(-far)
    hit = (enter < leave) & (enter > 0)
    # From the sharp cube the ray goes on to the rounded one, by its distance each time.
    t, distance, outside = enter, jnp.zeros_like(enter), direction
    speed = jax.lax.rsqrt(direction.dot(direction))
    for _ in range(6):
        outside, distance = _rounded_box(origin + direction * t)
        t = t + distance * speed
    hit &= distance < 0.005
    return Intersection(jnp.where(hit, t, FAR), outside.unit(), part)


def box_silhouette_distance(origin: Vec, direction: Vec) -> tuple[jax.Array, jax.Array]:
    """A cube with half edge 1."""
    # The silhouette of a cube is a hexagon, whose sides are across direction × axis.
    moment = origin.cross(direction)
    squares = direction * direction
    size = direction.map(jnp.abs)
    distance = _largest(
        Vec(
            (jnp.abs(moment.x) - size.y - size.z) * _rsqrt(squares.y + squares.z),
            (jnp.abs(moment.y) - size.z - size.x) * _rsqrt(squares.z + squares.x),
            (jnp.abs(moment.z) - size.x - size.y) * _rsqrt(squares.x + squares.y),
        )
    )
    near, far = _box_interval(origin, direction)
    # Between the last slab entered and the first one left, but no further than the corners: along
    # a slab both are far away.
    centre = -origin.dot(direction) / direction.dot(direction)
    reach = np.sqrt(3) * jax.lax.rsqrt(direction.dot(direction))
    t = 0.5 * (_largest(near) - _largest(-far))
    return distance, jnp.clip(t, centre - reach, centre + reach)


def intersect_cylinder(origin: Vec, direction: Vec) -> Intersection:
    """An upright cylinder of radius 1 and half height 1."""
    a = jnp.maximum(direction.x**2 + direction.y**2, _SMALL)
    b = origin.x * direction.x + origin.y * direction.y
    c = origin.x**2 + origin.y**2 - 1
    square = b * b - a * c
    root = jnp.sqrt(jnp.maximum(square, 0))
    slope = 1 / _nonzero(direction.z)
    cap = -origin.z * slope - jnp.abs(slope)
    enter = jnp.maximum((-b - root) / a, cap)
    leave = jnp.minimum((-b + root) / a, -origin.z * slope + jnp.abs(slope))
    hit = (square > 0) & (enter < leave) & (enter > 0)
    on_cap = cap * a > -b - root
    point = origin + direction * enter
    up = jnp.sign(point.z)
    # The rim is rounded in its shading.
    radius = jnp.sqrt(point.x**2 + point.y**2)
    outward = jnp.where(on_cap, _ramp(radius), 1.0)
    upward = jnp.where(on_cap, 1.0, _ramp(jnp.abs(point.z)))
    normal = Vec(point.x / radius * outward, point.y / radius * outward, up * upward)
    return Intersection(jnp.where(hit, enter, FAR), normal.unit(), on_cap.astype(jnp.int32))


def intersect_cone(origin: Vec, direction: Vec) -> Intersection:
    """An upright cone with a base of radius 1 at height -1, and its tip at height 1."""
    # x² + y² = k², with k = (1 - z) / 2.
    k, dk = (1 - origin.z) / 2, -direction.z / 2
    a = _nonzero(direction.x**2 + direction.y**2 - dk**2)
    b = origin.x * direction.x + origin.y * direction.y - k * dk
    c = origin.x**2 + origin.y**2 - k**2
    square = b * b - a * c
    root = jnp.sqrt(jnp.maximum(square, 0))

    def on_side(t: jax.Array) -> jax.Array:
        inside = (jnp.abs(origin.z + t * direction.z) <= 1) & (square > 0) & (t > 0)
        return jnp.where(inside, t, FAR)

    side = jnp.minimum(on_side((-b - root) / a), on_side((-b + root) / a))
    base = (-1 - origin.z) / _nonzero(direction.z)
    at_base = origin + direction * base
    base = jnp.where((at_base.x**2 + at_base.y**2 < 1) & (base > 0), base, FAR)
    t = jnp.minimum(side, base)
    point = origin + direction * t
    radius = jnp.sqrt(point.x**2 + point.y**2 + _SMALL)
    slanted = Vec(point.x / radius, point.y / radius, jnp.full_like(t, 0.5)).unit()
    flat = Vec(jnp.zeros_like(t), jnp.zeros_like(t), -jnp.ones_like(t))
    on_base = base < side
    return Intersection(t, vectors.where(on_base, flat, slanted), on_base.astype(jnp.int32))


def _upright_silhouette_distance(
    origin: Vec, direction: Vec, radius: float, taper: float
) -> tuple[jax.Array, jax.Array]:
    """Of a solid between the heights -1 and 1 whose radius at z is `radius - taper z`."""
    a = jnp.maximum(direction.x**2 + direction.y**2, _SMALL)
    slope = 1 / _nonzero(direction.z)
    closest = -(origin.x * direction.x + origin.y * direction.y) / a
    if taper:
        # What is least is the distance from the axis less the radius, a little further down.
        point = origin + direction * closest
        lean = (taper * direction.z) ** 2
        rest = (point.x**2 + point.y**2) / jnp.maximum(a * (a - lean), _SMALL)
        closest = closest - taper * direction.z * jnp.sqrt(rest)
    middle, reach = -origin.z * slope, jnp.abs(slope)
    t = jnp.clip(closest, middle - reach, middle + reach)
    point = origin + direction * t
    distance = jnp.sqrt(point.x**2 + point.y**2) - (radius - taper * point.z)
    # Past a rim the way to it is not across the ray.
    steep = jnp.abs(direction.z) * jax.lax.rsqrt(direction.dot(direction))
    return jnp.where(t == closest, distance, distance * steep), t


def intersect_torus(origin: Vec, direction: Vec) -> Intersection:
    """A torus around the z axis, with the outer radius 1."""
    # Marched by its distance, from the sphere around it.
    speed = jax.lax.rsqrt(direction.dot(direction))
    start = intersect_sphere(origin, direction).t

    def march(_: jax.Array, t: jax.Array) -> jax.Array:
        return t + _torus_distance(origin + direction * t) * speed

    t = jax.lax.fori_loop(0, 64, march, start)
    point = origin + direction * t
    hit = (start < FAR) & (_torus_distance(point) < 2e-3)
    radius = jnp.sqrt(point.x**2 + point.y**2 + _SMALL)
    inner = (1 - TUBE) / radius
    normal = Vec(point.x * (1 - inner), point.y * (1 - inner), point.z).unit()
    return Intersection(jnp.where(hit, t, FAR), normal, jnp.zeros_like(t, jnp.int32))


def torus_silhouette_distance(origin: Vec, direction: Vec) -> tuple[jax.Array, jax.Array]:
    """A torus around the z axis: the least of its distances along the ray, marched."""
    speed = jax.lax.rsqrt(direction.dot(direction))
    _, centre = sphere_silhouette_distance(origin, direction)
    step = 2.0 * speed / 16
    least, at = jnp.full_like(centre, FAR), centre
    for number in range(17):
        t = centre + (number - 8) * step
        distance = _torus_distance(origin + direction * t)
        at = jnp.where(distance < least, t, at)
        least = jnp.minimum(least, distance)
    return least, at


def intersect_ground(origin: Vec, direction: Vec) -> tuple[jax.Array, Vec]:
    """Returns where rays from above meet the ground (or `FAR`), and its normal there."""
    falling = direction.z < 0
    t = jnp.where(falling, -origin.z / jnp.where(falling, direction.z, -1.0), FAR)
    along = _COS * origin.x + _SIN * origin.y - _START
    speed = _COS * direction.x + _SIN * direction.y
    # (along + t speed)² = 2 CURVE (z + t dz), whose larger root is on the bend.
    half_b = _CURVE * direction.z - along * speed
    a = jnp.maximum(speed * speed, 1e-9)
    square = half_b * half_b - a * (along * along - 2 * _CURVE * origin.z)
    on_bend = (along + t * speed > 0) & (speed > 1e-4)
    bent = (half_b + jnp.sqrt(jnp.maximum(square, 0))) / a
    too_high = origin.z + bent * direction.z > _TOP
    t = jnp.where(on_bend, jnp.where(too_high, FAR, bent), t)
    slope = jnp.where(on_bend, jnp.maximum(along + t * speed, 0) / _CURVE, 0.0)
    one = jnp.ones_like(slope)
    up = Vec(jnp.zeros_like(slope), jnp.zeros_like(slope), one)
    return t, vectors.where(on_bend, Vec(-slope * _COS, -slope * _SIN, one).unit(), up)


Intersect = Callable[[Vec, Vec], Intersection]
SilhouetteDistance = Callable[[Vec, Vec], tuple[jax.Array, jax.Array]]

SHAPES: Mapping[str, tuple[Intersect, SilhouetteDistance]] = {
    "cube": (intersect_box, box_silhouette_distance),
    "sphere": (intersect_sphere, sphere_silhouette_distance),
    "cylinder": (intersect_cylinder, partial(_upright_silhouette_distance, radius=1.0, taper=0.0)),
    "cone": (intersect_cone, partial(_upright_silhouette_distance, radius=0.5, taper=0.5)),
    "torus": (intersect_torus, torus_silhouette_distance),
}

BOTTOM = {"cube": 1.0, "sphere": 1.0, "cylinder": 1.0, "cone": 1.0, "torus": TUBE}
"""How far below its centre a solid reaches."""


def _box_interval(origin: Vec, direction: Vec) -> tuple[Vec, Vec]:
    """Returns where a ray enters and leaves the slabs between opposite faces of a cube."""
    slope = direction.map(lambda x: 1 / _nonzero(x))
    middle = -(origin * slope)
    reach = slope.map(jnp.abs)
    return middle - reach, middle + reach


def _rounded_box(point: Vec) -> tuple[Vec, jax.Array]:
    """Returns the direction away from a rounded cube, and the distance to it."""
    inner = point.map(lambda x: jnp.abs(x) - (1 - ROUNDING))
    outside = inner.map(lambda x: jnp.maximum(x, 0))
    distance = outside.length() + jnp.minimum(_largest(inner), 0) - ROUNDING
    return outside * point.map(jnp.sign), distance


def _torus_distance(point: Vec) -> jax.Array:
    radius = jnp.sqrt(point.x**2 + point.y**2) - (1 - TUBE)
    return jnp.sqrt(radius**2 + point.z**2) - TUBE


def _ramp(distance: jax.Array) -> jax.Array:
    """Rises from 0 to 1 over the bevel next to an edge at distance 1."""
    return jnp.clip((distance - (1 - _BEVEL)) / _BEVEL, 0, 1)


def _largest(vector: Vec) -> jax.Array:
    return jnp.maximum(vector.x, jnp.maximum(vector.y, vector.z))


def _nonzero(x: jax.Array) -> jax.Array:
    return jnp.where(jnp.abs(x) < _SMALL, _SMALL, x)


def _rsqrt(x: jax.Array) -> jax.Array:
    return jax.lax.rsqrt(jnp.maximum(x, _SMALL))
