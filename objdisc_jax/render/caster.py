"""Casts rays into scenes: pictures, segmentations and depth.

Every pixel's centre decides its label, by exact intersection. The picture is lit by three square
lamps and a sun. How much of a lamp a point sees is computed in closed form from how closely the
line to its centre passes each object (`shapes`), so soft shadows have no noise. Light that
the ground throws back at objects is a smooth term; metal mirrors ground, sky and objects, once.

Work goes where it is seen: ground alone takes one ray a pixel, and so does the inside of a rubber
face. Pixels at edges are gathered in chunks and take `samples` rays each, those inside of metal
half as many, distributed like the filter of the published renders (Blackman-Harris, 1.5 pixels).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from objdisc_jax.render import camera, ground, shapes, textures, vectors
from objdisc_jax.render.scene import Objects, Scene, Surface
from objdisc_jax.render.shapes import FAR
from objdisc_jax.render.vectors import Vec, vec

# Rays of a picture that are followed at once: on a CPU few enough to stay in a core's cache.
_CHUNK = 16384
_CHUNK_ON_CPU = 2048


@dataclasses.dataclass(frozen=True)
class Lamp:
    """A square lamp that aims at the origin.

    Attributes:
        edge: its length.
        color: linear RGB.
        power: in Watt.
    """

    edge: float
    color: tuple[float, float, float]
    power: float


@dataclasses.dataclass(frozen=True)
class Studio:
    """What all scenes of a data set share.

    Attributes:
        shapes: names of the solids, in `shapes.SHAPES`, that objects refer to by number.
        lamps: key, fill and back.
        sun: irradiance across its direction.
        resolution: rows and columns of the picture.
        samples: rays for each pixel at an edge; inside of metal half as many.
        textured: whether surfaces have patterns; then no object takes less rays than metal.
        filmic: whether bright light is compressed as on film, with strong contrast.
    """

    shapes: tuple[str, ...]
    lamps: tuple[Lamp, Lamp, Lamp]
    sun: float
    resolution: tuple[int, int] = (240, 320)
    samples: int = 8
    textured: bool = False
    filmic: bool = False


SUN_DIRECTION = (0.4145, -0.1946, 0.889)
_SUN_SPREAD = 0.05
# Light from elsewhere than lamps: reflected by backdrop, ground and objects.
AMBIENT = 0.012
_BOUNCE = 0.75


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rendering:
    """What a camera sees.

    Attributes:
        image: sRGB.
        segmentation: 0 is background, object i has label i + 1.
        depth: along the viewing axis, of what is at the centre of each pixel.
        places: column and row in pixels, and depth, of the objects' centres.
    """

    image: UInt8[Array, "h w 3"]
    segmentation: UInt8[Array, "h w"]
    depth: Float[Array, "h w"]
    places: Float[Array, "k 3"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hit:
    """Where rays end: the first object, or else the ground.

    Attributes:
        t: length of the ray; `FAR` if it meets nothing.
        normal: of the surface.
        label: 0 for the ground, i + 1 for object i.
        part: of the object's surface.
    """

    t: jax.Array
    normal: Vec
    label: jax.Array
    part: jax.Array


@dataclasses.dataclass(frozen=True)
class Light:
    """What reaches points from one source.

    Attributes:
        direction: to the source, of length 1.
        strength: irradiance across that direction, to be multiplied by the source's colour.
        spread: angle that the source's radius fills, in radians.
    """

    direction: Vec
    strength: jax.Array
    spread: jax.Array


def render(scene: Scene, studio: Studio) -> Rendering:
    """Renders one scene; for many, map it (`jax.lax.map` on a CPU, `jax.vmap` on a GPU)."""
    height, width = studio.resolution
    y, x = jnp.mgrid[:height, :width].reshape(2, -1)
    centres = camera.rays(scene.camera, x + 0.5, y + 0.5, studio.resolution)
    eye = vec(scene.camera)
    hit = first_hit(scene, studio, eye, centres)
    linear = _radiance_of_ground(scene, studio, eye, centres)
    if studio.filmic:
        linear = _filmic(linear)

    labels, parts = (value.reshape(height, width) for value in (hit.label, hit.part))
    metal = _metal_of(scene, labels)
    seen = labels * 4 + parts
    edge = _neighbourhood(seen, jnp.maximum) != _neighbourhood(seen, jnp.minimum)
    interior = (labels > 0) & ~edge
    few = max(1, studio.samples // 2)
    plain = few if studio.textured else 1
    linear = _replace(linear, interior & (metal == 0), scene, studio, plain, mirrors=False)
    linear = _replace(linear, interior & (metal > 0), scene, studio, few, mirrors=True)
    linear = _replace(linear, edge, scene, studio, studio.samples, mirrors=True)
    image = _to_srgb(linear).T.reshape(height, width, 3)
    depth = camera.depth_of(scene.camera, centres, hit.t).reshape(height, width)
    places = camera.project(scene.camera, scene.objects.position, studio.resolution)
    return Rendering(image, labels.astype(jnp.uint8), depth, places)


def label_counts(scene: Scene, studio: Studio, resolution: tuple[int, int]) -> Int[Array, " k"]:
    """Returns the number of pixels in which each object is seen."""
    height, width = resolution
    y, x = jnp.mgrid[:height, :width].reshape(2, -1)
    directions = camera.rays(scene.camera, x + 0.5, y + 0.5, resolution)
    labels = first_hit(scene, studio, vec(scene.camera), directions).label
    number = 1 + jnp.arange(scene.objects.shape.shape[0])
    return jnp.sum(labels == number[:, None], axis=1)


def first_hit(
    scene: Scene, studio: Studio, origin: Vec, direction: Vec, own: jax.Array | None = None
) -> Hit:
    """Follows rays to what they meet first.

    Args:
        scene: what there is.
        studio: of the scene.
        origin: where the rays start, above the ground and outside of objects.
        direction: of length 1.
        own: labels of the objects that the rays start from, which they cannot meet again.
    """
    t, normal = ground.meet(origin, direction, FAR)
    none = jnp.zeros_like(t, jnp.int32)
    start = Hit(t, normal, none, none)

    def visit(number: jax.Array, hit: Hit) -> Hit:
        local = _Local(scene.objects, number)
        a, d = local.point(origin), local.direction(direction)
        branches = [functools.partial(_meet, shapes.SHAPES[name][0]) for name in studio.shapes]
        found = jax.lax.switch(scene.objects.shape[number], branches, a, d)
        nearer = found.t < hit.t
        if own is not None:
            nearer &= own != number + 1
        return Hit(
            jnp.where(nearer, found.t, hit.t),
            vectors.where(nearer, local.outwards(found.normal), hit.normal),
            jnp.where(nearer, number + 1, hit.label),
            jnp.where(nearer, found.part, hit.part),
        )

    return jax.lax.fori_loop(0, scene.num_objects, visit, start)


def _meet(meet: shapes.Meet, origin: Vec, direction: Vec) -> shapes.Meeting:
    return meet(_broadcast(origin, direction), direction)


def _broadcast(vector: Vec, like: Vec) -> Vec:
    return vector.map(lambda x: jnp.broadcast_to(x, like.x.shape))


class _Local:
    """The coordinates in which an object is a unit solid; parameters of rays stay the same."""

    def __init__(self, objects: Objects, number: jax.Array):
        self.size = objects.size[number]
        self._centre = vec(objects.position[number])
        self._cos, self._sin = jnp.cos(objects.yaw[number]), jnp.sin(objects.yaw[number])

    def point(self, point: Vec) -> Vec:
        return self.direction(point - self._centre)

    def direction(self, direction: Vec) -> Vec:
        return direction.turned(self._cos, -self._sin) * (1 / self.size)

    def inwards(self, normal: Vec) -> Vec:
        return normal.turned(self._cos, -self._sin)

    def outwards(self, normal: Vec) -> Vec:
        return normal.turned(self._cos, self._sin)


def _lights(scene: Scene, studio: Studio, point: Vec, own: jax.Array) -> list[Light]:
    """Returns what reaches points from the three lamps and the sun, past the objects.

    Args:
        scene: what there is.
        studio: of the scene.
        point: on surfaces.
        own: labels of the objects that they lie on, which do not hide their own outsides' light.
    """
    lights: list[Light] = []
    for position, lamp in zip(scene.lamps, studio.lamps, strict=True):
        way = vec(position) - point
        square = way.dot(way)
        direction = way * jax.lax.rsqrt(square)
        towards_origin = jnp.maximum(direction.dot(vec(position).unit()), 0)
        strength = lamp.power / np.pi * towards_origin / square
        lights.append(Light(direction, strength, lamp.edge * 0.56 * jax.lax.rsqrt(square)))
    one = jnp.ones_like(point.x)
    sun = Vec(*(one * value for value in SUN_DIRECTION)).unit()
    lights.append(Light(sun, one * studio.sun, one * _SUN_SPREAD))

    def visit(number: jax.Array, seen: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        local = _Local(scene.objects, number)
        origin = local.point(point)
        branches = [
            functools.partial(_hidden_from_all, shapes.SHAPES[name][1]) for name in studio.shapes
        ]
        hidden = jax.lax.switch(
            scene.objects.shape[number],
            branches,
            origin,
            [local.direction(light.direction) for light in lights],
            [light.spread for light in lights],
            local.size,
        )
        other = own != number + 1
        return tuple(
            jnp.where(other, before * (1 - now), before)
            for before, now in zip(seen, hidden, strict=True)
        )

    seen = jax.lax.fori_loop(0, scene.num_objects, visit, (one,) * len(lights))
    return [
        dataclasses.replace(light, strength=light.strength * share)
        for light, share in zip(lights, seen, strict=True)
    ]


def _hidden_from_all(
    pass_by: shapes.PassBy,
    origin: Vec,
    directions: list[Vec],
    spreads: list[jax.Array],
    size: jax.Array,
) -> tuple[jax.Array, ...]:
    """Returns which share of each light an object hides."""

    def hidden(direction: Vec, spread: jax.Array) -> jax.Array:
        clearance, t = pass_by(origin, direction)
        # Seen from the point the lamp's radius measures `spread * t` where the object is.
        share = 0.5 - 0.5 * clearance * size / (spread * jnp.maximum(t, 0.01))
        share = jnp.clip(share, 0, 1)
        return jnp.where(t > 0, share * share * (3 - 2 * share), 0)

    return tuple(hidden(*each) for each in zip(directions, spreads, strict=True))


def _radiance_of_ground(scene: Scene, studio: Studio, eye: Vec, directions: Vec) -> jax.Array:
    """Returns what the ground looks like where no object is in the way, [3, n]."""
    t, normal = ground.meet(eye, directions, FAR)
    point = eye + directions * t
    lights = _lights(scene, studio, point, jnp.zeros_like(t, jnp.int32))
    if studio.textured:
        footprint = _footprint(studio, t, -normal.dot(directions))
        color, normal = _ground_look(scene.ground, point, normal, footprint)
    else:
        color = Vec(*(jnp.full_like(t, ground.ALBEDO) for _ in range(3)))
    (irradiance,) = _colored(studio, _diffuse(lights, normal))
    seen = _matt(color, irradiance)
    return jnp.stack([seen.x, seen.y, seen.z])


def _ground_albedo(scene: Scene, studio: Studio) -> jax.Array:
    """Returns the colour of the ground, patterns apart, [3]."""
    return scene.ground.color if studio.textured else jnp.full(3, ground.ALBEDO)


def _matt(color: Vec, irradiance: Vec) -> Vec:
    """Returns the radiance of the ground."""
    return color * (irradiance * (1 / np.pi)).map(lambda x: x + AMBIENT / ground.ALBEDO)


def _footprint(studio: Studio, t: jax.Array, cos: jax.Array) -> jax.Array:
    """Returns the length on surfaces, met at some angle, that a pixel covers."""
    return t / (studio.resolution[1] * camera.LENS_OVER_SENSOR * jnp.maximum(cos, 0.05))


def _ground_look(
    surface: Surface, point: Vec, normal: Vec, footprint: jax.Array
) -> tuple[Vec, Vec]:
    """Returns colour and bumped normal of a textured ground."""
    flat = Vec(point.x, jnp.zeros_like(point.x), point.y)
    color, slope = _mixed(surface, flat, footprint)
    return color, (normal - Vec(slope.x, slope.z, jnp.zeros_like(slope.x))).unit()


def _mixed(surface: Surface, point: Vec, footprint: jax.Array) -> tuple[Vec, Vec]:
    """Returns a surface's colour at points, and the slope of its bumps."""

    def patterned() -> tuple[Vec, Vec]:
        value, slope = textures.look(
            surface.texture, point, surface.grain[0], 50 * surface.grain[1], footprint
        )
        color = vec(surface.color) + (vec(surface.accent) - vec(surface.color)) * value
        return color, slope

    def plain() -> tuple[Vec, Vec]:
        nothing = point * 0.0
        return nothing + vec(surface.color), nothing

    return jax.lax.cond(surface.texture >= 0, patterned, plain)


def _look(scene: Scene, studio: Studio, hit: Hit, point: Vec, direction: Vec) -> tuple[Vec, Vec]:
    """Returns colours and normals of what rays have hit."""
    table = jnp.concatenate([_ground_albedo(scene, studio)[None], scene.objects.surface.color])
    color = Vec(*(table[:, channel][hit.label] for channel in range(3)))
    if not studio.textured:
        return color, hit.normal
    start = color, hit.normal
    footprint = _footprint(studio, hit.t, -hit.normal.dot(direction))
    on_ground = _ground_look(scene.ground, point, hit.normal, footprint)
    is_ground = hit.label == 0
    start = tuple(vectors.where(is_ground, a, b) for a, b in zip(on_ground, start, strict=True))

    def visit(number: jax.Array, looks: tuple[Vec, Vec]) -> tuple[Vec, Vec]:
        local = _Local(scene.objects, number)
        surface = jax.tree.map(lambda values: values[number], scene.objects.surface)
        color, slope = _mixed(surface, local.point(point) * local.size, footprint)
        across = slope - local.inwards(hit.normal) * slope.dot(local.inwards(hit.normal))
        bumped = (hit.normal - local.outwards(across)).unit()
        mine = hit.label == number + 1
        return vectors.where(mine, color, looks[0]), vectors.where(mine, bumped, looks[1])

    return jax.lax.fori_loop(0, scene.num_objects, visit, (start[0], start[1]))


def _diffuse(lights: list[Light], normal: Vec) -> list[jax.Array]:
    """Returns the irradiance of surfaces, by light."""
    return [light.strength * jnp.maximum(normal.dot(light.direction), 0) for light in lights]


def _colored(studio: Studio, *shares: list[jax.Array]) -> list[Vec]:
    """Returns the RGB sums of quantities that are given by light: three lamps and the sun.

    One matrix product makes all of them: XLA would compute what colours have in common once for
    every channel, and that is most of the work.
    """
    colors = np.array([*(lamp.color for lamp in studio.lamps), (1, 1, 1)], np.float32)
    stacked = jnp.stack([jnp.stack(by_light) for by_light in shares], axis=1)  # [light, q, n]
    sums = jnp.einsum("lc,lqn->qcn", colors, stacked, precision=jax.lax.Precision.HIGHEST)
    return [Vec(*channels) for channels in sums]


def _radiance(
    scene: Scene, studio: Studio, origin: Vec, direction: Vec, *, own: jax.Array, mirrors: bool
) -> Vec:
    """Returns the light that comes along rays.

    Args:
        scene: what there is.
        studio: of the scene.
        origin: where the rays start.
        direction: of length 1.
        own: labels of the objects that they start from.
        mirrors: whether metal mirrors its surroundings; if not, it gets their average.
    """
    hit = first_hit(scene, studio, origin, direction, own)
    point = origin + direction * hit.t
    color, normal = _look(scene, studio, hit, point, direction)
    lights = _lights(scene, studio, point, hit.label)
    wide = _gloss(lights, normal, direction, 0.2, tails=True)
    narrow = _gloss(lights, normal, direction, 0.02, tails=False)
    irradiance, rubber_gloss, metal_gloss, open_irradiance = _colored(
        studio,
        _diffuse(lights, normal),
        _gloss(lights, normal, direction, 0.35, tails=False),
        [0.4 * a + 0.6 * b for a, b in zip(wide, narrow, strict=True)],
        _open_ground(studio, point),
    )
    ground_radiance = _matt(vec(_ground_albedo(scene, studio)), open_irradiance)
    facing = jnp.maximum(-normal.dot(direction), 0.02)

    below = 0.5 - 0.5 * normal.z
    from_around = (ground_radiance * (_BOUNCE * below)).map(lambda x: x + AMBIENT)
    fresnel = _schlick(0.0083, facing)
    rubber = color * (irradiance * (1 / np.pi) + from_around) + rubber_gloss * (0.8 * fresnel)

    reflected = direction + normal * (2 * facing)
    reflected = reflected.unit()
    # The wide lobe sees the ground up to some angle above the horizon, and less below it.
    share = _smooth(reflected.z, 0.25, -0.25)
    if mirrors:
        mirrored = _radiance(
            scene, studio, point + normal * 1e-3, reflected, own=hit.label, mirrors=False
        )
    else:
        mirrored = ground_radiance * _smooth(reflected.z, 0.1, -0.1)
    metal = color * (ground_radiance * (0.4 * 0.9 * share) + mirrored * 0.6 + metal_gloss)

    is_metal = _metal_of(scene, hit.label) > 0
    on_object = vectors.where(is_metal, metal, rubber)
    seen = vectors.where(hit.label == 0, _matt(color, irradiance), on_object)
    nothing = seen * 0.0
    return vectors.where(hit.t < FAR, seen, nothing)


def _open_ground(studio: Studio, point: Vec) -> list[jax.Array]:
    """Returns the ground's irradiance below points, by light, were there no objects, no jitter."""
    shares: list[jax.Array] = []
    for (x, y, z), lamp in zip(LAMP_POSITIONS, studio.lamps, strict=True):
        dx, dy = x - point.x, y - point.y
        square = dx * dx + dy * dy + z * z
        norm = np.sqrt(x * x + y * y + z * z)
        towards_origin = jnp.maximum(dx * x + dy * y + z * z, 0) / norm
        shares.append(lamp.power / np.pi * z * towards_origin / (square * square))
    return [*shares, jnp.full_like(point.x, studio.sun * SUN_DIRECTION[2])]


LAMP_POSITIONS = (
    (6.44671, -2.90517, 4.2584),
    (-4.67112, -4.0136, 3.01122),
    (-1.16898, 2.64602, 5.81574),
)
"""Of the published base scene, before jitter."""


def _gloss(
    lights: list[Light], normal: Vec, direction: Vec, alpha: float, *, tails: bool
) -> list[jax.Array]:
    """Returns the reflections of lights in a rough surface with a reflectance of 1, by light.

    The microfacets' slopes are distributed by GGX (with tails) or Beckmann (without).
    """
    shares: list[jax.Array] = []
    for light in lights:
        half = (light.direction - direction).unit()
        # A lamp that fills an angle widens the lobe.
        width = alpha + 0.5 * light.spread
        square = width * width
        cos_square = jnp.maximum(normal.dot(half), 0.05) ** 2
        if tails:
            denominator = cos_square * (square - 1) + 1
            lobe = square / (np.pi * denominator * denominator)
        else:
            slope = (1 - cos_square) / (cos_square * square)
            lobe = jnp.exp(-slope) / (np.pi * square * cos_square * cos_square)
        visible = 0.25 / jnp.maximum(light.direction.dot(half) ** 2, 0.1)
        cos = jnp.maximum(normal.dot(light.direction), 0)
        shares.append(light.strength * lobe * visible * cos)
    return shares


def _schlick(at_normal: float, cos: jax.Array) -> jax.Array:
    rest = 1 - cos
    square = rest * rest
    return at_normal + (1 - at_normal) * square * square * rest


def _smooth(x: jax.Array, start: float, stop: float) -> jax.Array:
    share = jnp.clip((x - start) / (stop - start), 0, 1)
    return share * share * (3 - 2 * share)


def _metal_of(scene: Scene, labels: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.zeros(1), scene.objects.surface.metal])[labels]


def _replace(
    linear: jax.Array,
    chosen: jax.Array,
    scene: Scene,
    studio: Studio,
    samples: int,
    *,
    mirrors: bool,
) -> jax.Array:
    """Computes some pixels with more rays: [3, n], of which `chosen` [h, w] are replaced."""
    height, width = studio.resolution
    rank = jnp.cumsum(chosen.reshape(-1).astype(jnp.int32))
    total = rank[-1]
    on_cpu = jax.default_backend() == "cpu"
    chunk = (_CHUNK_ON_CPU if on_cpu else _CHUNK) // samples
    offsets = jnp.asarray(filter_offsets(samples))

    def visit(number: jax.Array, colors: jax.Array) -> jax.Array:
        wanted = number * chunk + jnp.arange(chunk) + 1
        pixel = jnp.searchsorted(rank, wanted, method="scan_unrolled").astype(jnp.int32)
        pixel = jnp.minimum(pixel, height * width - 1)
        x = (pixel % width) + offsets[:, :1]
        y = (pixel // width) + offsets[:, 1:]
        directions = camera.rays(scene.camera, x.reshape(-1), y.reshape(-1), studio.resolution)
        own = jnp.zeros_like(directions.x, jnp.int32)
        seen = _radiance(scene, studio, vec(scene.camera), directions, own=own, mirrors=mirrors)
        colors_seen = jnp.minimum(jnp.stack([seen.x, seen.y, seen.z]), 1.5)
        if studio.filmic:
            colors_seen = _filmic(colors_seen)
        mean = jnp.mean(colors_seen.reshape(3, samples, chunk), axis=1)
        return jax.lax.dynamic_update_slice(colors, mean, (0, number * chunk))

    room = -(-height * width // chunk) * chunk
    colors = jnp.zeros((3, room))
    colors = jax.lax.fori_loop(0, (total + chunk - 1) // chunk, visit, colors)
    return jnp.where(chosen.reshape(-1), colors[:, jnp.maximum(rank - 1, 0)], linear)


def filter_offsets(samples: int) -> np.ndarray:
    """Returns where in and around a pixel rays go, [n, 2], distributed like the filter."""
    if samples == 1:
        return np.full((1, 2), 0.5, np.float32)
    # The filter's weight, 1.5 pixels wide, and its inverse distribution.
    grid = np.linspace(-0.75, 0.75, 1001)
    phase = 2 * np.pi * (grid / 1.5 + 0.5)
    weight = (
        0.35875
        - 0.48829 * np.cos(phase)
        + 0.14128 * np.cos(2 * phase)
        - 0.01168 * np.cos(3 * phase)
    )
    share = np.cumsum(weight) / weight.sum()
    # A rank-1 lattice: with a multiplier without common divisors every row and every column of the
    # unit square has one sample, and near the golden ratio they lie apart.
    coprime = [m for m in range(1, samples) if math.gcd(m, samples) == 1]
    multiplier = min(coprime, key=lambda m: abs(m / samples - 0.618))
    number = np.arange(samples)
    lattice = np.stack([number + 0.5, (number * multiplier) % samples + 0.5], 1) / samples
    return np.interp(lattice, share, grid).astype(np.float32) + np.float32(0.5)


def _neighbourhood(values: jax.Array, combine: Callable[..., Any]) -> jax.Array:
    """Combines each pixel [h, w] with its eight neighbours."""
    for axis in (0, 1):
        padded = jnp.pad(values, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        length = values.shape[axis]
        shifted = [jax.lax.slice_in_dim(padded, s, s + length, axis=axis) for s in range(3)]
        values = combine(combine(shifted[0], shifted[1]), shifted[2])
    return values


def _filmic(linear: jax.Array) -> jax.Array:
    """Compresses light by a sigmoid of its logarithm, centred on a brightness of 0.35."""
    power = jnp.exp(1.35 * jnp.log(jnp.maximum(linear, 1e-6) / 0.35))
    return power / (1 + power)


def _to_srgb(linear: jax.Array) -> jax.Array:
    linear = jnp.clip(linear, 0, 1)
    curved = 1.055 * jnp.exp(jnp.log(jnp.maximum(linear, 1e-6)) / 2.4) - 0.055
    return jnp.round(255 * jnp.where(linear <= 0.0031308, 12.92 * linear, curved)).astype(jnp.uint8)
