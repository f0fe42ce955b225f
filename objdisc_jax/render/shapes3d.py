"""Images like 3D Shapes: one object in a room, every combination of six factors once.

Factors, in the published order, the last changing fastest: hue of floor, wall and object (10 each),
scale (8), shape (4), orientation (15). The room, the lights and the solids' measures are taken from
published images, by eye: a headlight at the camera and a light above it, whose shadow is hard,
overexposed, without antialiasing. The camera turns around the object with the orientation, and the
light with the camera.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from objdisc_jax.render import shapes, vectors
from objdisc_jax.render.shapes import FAR, Intersection
from objdisc_jax.render.vectors import Vec

VERSION = 1
"""Bumped whenever the images change."""

FACTORS = {
    "floor_hue": np.arange(10) / 10,
    "wall_hue": np.arange(10) / 10,
    "object_hue": np.arange(10) / 10,
    "scale": np.linspace(0.75, 1.25, 8),
    "shape": np.arange(4.0),
    "orientation": np.linspace(-30, 30, 15),
}
"""Names and values, in degrees where they are angles."""

NUM_IMAGES = int(np.prod([len(values) for values in FACTORS.values()]))
SIZE = 64

# Units are diameters of the sphere of scale 1, which stands at the origin.
_FOCAL = 64.0
_HORIZON = 29.0
_DISTANCE, _HEIGHT = 2.76, 1.08
_BACK, _SIDE, _WALL = 2.98, 2.87, 2.07
_LIGHT = (-0.25, -0.4, 0.88)
_SKY = (153, 226, 250)
_AMBIENT, _HEADLIGHT, _KEY, _SHINE = 0.25, 0.3, 1.0, 0.11

# Half the width of each solid at scale 1, and the height of its centre.
_WIDTH = np.array([0.41, 0.42, 0.48, 0.36], np.float32)
_CENTRE = np.array([0.41, 0.45, 0.48, 0.74], np.float32)
_CAPSULE = 0.74 / 0.36 - 1  # from its centre to those of its ends, in radii


def factors(numbers: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n 6"]:
    """Returns which value each factor has in the images of some numbers."""
    lengths = [len(values) for values in FACTORS.values()]
    return np.stack(np.unravel_index(numbers, lengths), axis=-1)


def labels(numbers: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n 6"]:
    """Returns the values of the factors in the images of some numbers."""
    chosen = zip(FACTORS.values(), factors(numbers).T, strict=True)
    return np.stack([values[column] for values, column in chosen], axis=-1)


def render(
    chosen: Int[Array, "6"],
) -> tuple[UInt8[Array, "64 64 3"], UInt8[Array, "64 64"]]:
    """Renders one combination of factors, given which value each has.

    Returns the image, and where its object is (1) or not (0).
    """
    floor, wall, thing = (_hue(chosen[i] / 10) for i in range(3))
    scale = jnp.asarray(FACTORS["scale"], jnp.float32)[chosen[3]]
    angle = jnp.deg2rad(jnp.asarray(FACTORS["orientation"], jnp.float32))[chosen[5]]
    cos, sin = jnp.cos(angle), jnp.sin(angle)

    y, x = jnp.mgrid[:SIZE, :SIZE].reshape(2, -1) + 0.5
    # In the camera's coordinates (right, forwards, up), then in those of the room.
    direction = Vec((x - SIZE / 2) / _FOCAL, jnp.ones_like(x), (_HORIZON - y) / _FOCAL)
    direction = direction.unit().turned(cos, sin)
    eye = vectors.vec(jnp.array([0.0, -_DISTANCE, _HEIGHT])).turned(cos, sin)
    light = vectors.vec(jnp.array(_LIGHT)).unit().turned(cos, sin)

    width = scale * jnp.asarray(_WIDTH)[chosen[4]]
    centre = Vec(jnp.zeros(()), jnp.zeros(()), scale * jnp.asarray(_CENTRE)[chosen[4]])
    inverse = 1 / width

    def intersect_object(origin: Vec, towards: Vec) -> Intersection:
        local = (origin - centre) * inverse
        local = local.map(lambda v: jnp.broadcast_to(v, towards.x.shape))
        return jax.lax.switch(chosen[4], _SOLIDS, local, towards * inverse)

    found = intersect_object(eye, direction)
    t_room, n_room, part = _room(eye, direction)
    on_object = found.t < t_room
    t = jnp.minimum(found.t, t_room)
    normal = vectors.where(on_object, found.normal, n_room)
    color = vectors.where(on_object, thing, vectors.where(part == 0, floor, wall))

    point = eye + direction * t + normal * 1e-3
    towards = light.map(lambda v: jnp.broadcast_to(v, t.shape))
    lit = jnp.where(on_object | (intersect_object(point, towards).t >= FAR), 1.0, 0.0)
    facing = jnp.maximum(-normal.dot(direction), 0)
    key = jnp.maximum(normal.dot(light), 0) * lit
    shine = jnp.where(on_object, _SHINE * jnp.clip(4 * (facing * key - 0.35), 0, 1), 0)
    bright = _AMBIENT + _HEADLIGHT * facing + _KEY * key
    seen = color.map(lambda c: 255 * jnp.clip(c * bright + shine, 0, 1))
    sky = Vec(*(jnp.full_like(t, channel) for channel in _SKY))
    image = vectors.where(t < FAR, seen, sky).stack().reshape(SIZE, SIZE, 3)
    return jnp.round(image).astype(jnp.uint8), on_object.reshape(SIZE, SIZE).astype(jnp.uint8)


def _room(origin: Vec, direction: Vec) -> tuple[jax.Array, Vec, jax.Array]:
    """Returns where rays meet floor (part 0) and walls (part 1), and the normals there."""
    down = direction.z < 0
    floor = jnp.where(down, -origin.z / jnp.where(down, direction.z, -1.0), FAR)
    back = _ahead(origin.y, direction.y)
    side = _ahead(origin.x * jnp.sign(direction.x), jnp.abs(direction.x), _SIDE)
    wall = jnp.minimum(back, side)
    above = origin.z + wall * direction.z > _WALL
    wall = jnp.where(above, FAR, wall)
    on_floor = floor < wall
    zero, one = jnp.zeros_like(floor), jnp.ones_like(floor)
    across = vectors.where(
        back < side, Vec(zero, -one, zero), Vec(-jnp.sign(direction.x), zero, zero)
    )
    normal = vectors.where(on_floor, Vec(zero, zero, one), across)
    return jnp.minimum(floor, wall), normal, jnp.where(on_floor, 0, 1)


def _ahead(origin: jax.Array, direction: jax.Array, distance: float = _BACK) -> jax.Array:
    forwards = direction > 1e-6
    return jnp.where(forwards, (distance - origin) / jnp.where(forwards, direction, 1.0), FAR)


def _capsule(origin: Vec, direction: Vec) -> Intersection:
    """An upright capsule of radius 1."""
    ends = [
        shapes.intersect_sphere(Vec(origin.x, origin.y, origin.z - z), direction)
        for z in (-_CAPSULE, _CAPSULE)
    ]
    side = _cylinder(origin, direction, 1 / _CAPSULE)
    point = origin + direction * side.t
    outwards = Vec(point.x, point.y, jnp.zeros_like(point.x))
    t = jnp.where(side.part == 0, side.t, FAR)
    normal = outwards
    for end in ends:
        normal = vectors.where(end.t < t, end.normal, normal)
        t = jnp.minimum(t, end.t)
    return Intersection(t, normal, jnp.zeros_like(side.part))


def _cylinder(
    origin: Vec, direction: Vec, flat: float = float(_WIDTH[1] / _CENTRE[1])
) -> Intersection:
    """An upright cylinder of radius 1 and half height 1 / flat, by default the data set's."""
    return shapes.intersect_cylinder(
        Vec(origin.x, origin.y, origin.z * flat), Vec(direction.x, direction.y, direction.z * flat)
    )


_SOLIDS = (shapes.intersect_box, _cylinder, shapes.intersect_sphere, _capsule)


def _hue(hue: jax.Array) -> Vec:
    """Returns the saturated colour of a hue, 0 to 1."""
    channels = (jnp.clip(jnp.abs((6 * hue + k) % 6 - 3) - 1, 0, 1) for k in (0.0, 4.0, 2.0))
    return Vec(*channels)
