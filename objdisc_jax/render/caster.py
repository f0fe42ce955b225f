"""Casts rays into scenes: images, segmentations and depth.

The label of a pixel is that of its centre, by exact intersection. Three area lights and a sun light
the scene (`lighting`). Light that the ground reflects onto objects is a smooth term; metal mirrors
ground, sky and objects, once.

Work is spent where it is seen: ground alone takes one ray per pixel, and so does the inside of a
rubber face. Pixels at edges are gathered in chunks and take `samples` rays each, those inside of
metal half as many, distributed like the filter of the published renders (Blackman-Harris, 1.5
pixels).
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from scipy.signal.windows import blackmanharris

from objdisc_jax.render import camera, lighting, shapes, textures, vectors
from objdisc_jax.render.scene import Local, RenderSettings, Scene, Surface
from objdisc_jax.render.shapes import FAR
from objdisc_jax.render.vectors import Vec, vec

# Rays of an image that are cast at once: on a CPU few enough to stay in a core's cache.
_CHUNK = 16384
_CHUNK_ON_CPU = 2048

GROUND_ALBEDO = 0.8
"""Of the ground where it has no pattern."""

# Light that backdrop, ground and objects reflect.
AMBIENT = 0.012
_BOUNCE = 0.75


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rendering:
    """What a camera sees."""

    image: UInt8[Array, "h w 3"]  # sRGB
    segmentation: UInt8[Array, "h w"]  # 0 is background, object i has label i + 1
    depth: Float[Array, "h w"]  # along the viewing axis, of what is at the centre of each pixel
    pixel_coords: Float[Array, "k 3"]  # column and row in pixels, and depth, of objects' centres


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hit(shapes.Intersection):
    """Where rays end: at the first object, or else the ground."""

    label: jax.Array  # 0 for the ground, i + 1 for object i


def render(scene: Scene) -> Rendering:
    """Renders one scene; for many, map it (`jax.lax.map` on a CPU, `jax.vmap` on a GPU)."""
    settings = scene.settings
    height, width = settings.resolution
    y, x = jnp.mgrid[:height, :width].reshape(2, -1)
    centres = camera.rays(scene.camera, x + 0.5, y + 0.5, settings.resolution)
    eye = vec(scene.camera)
    hit = first_hit(scene, eye, centres)
    linear = _radiance_of_ground(scene, eye, centres)
    if settings.filmic:
        linear = _filmic(linear)

    labels, parts = (value.reshape(height, width) for value in (hit.label, hit.part))
    metal = _metal_of(scene, labels)
    seen = labels * 4 + parts
    padded = jnp.pad(seen, 1, mode="edge")
    around = (padded[i : i + height, j : j + width] != seen for i in range(3) for j in range(3))
    edge = functools.reduce(jnp.logical_or, around)
    interior = (labels > 0) & ~edge
    few = max(1, settings.samples // 2)
    plain = few if settings.textured else 1
    linear = _replace(linear, interior & (metal == 0), scene, plain, mirrors=False)
    linear = _replace(linear, interior & (metal > 0), scene, few, mirrors=True)
    linear = _replace(linear, edge, scene, settings.samples, mirrors=True)
    image = _to_srgb(linear).T.reshape(height, width, 3)
    depth = camera.depth_of(scene.camera, centres, hit.t).reshape(height, width)
    pixel_coords = camera.project(scene.camera, scene.objects.position, settings.resolution)
    return Rendering(image, labels.astype(jnp.uint8), depth, pixel_coords)


def label_counts(scene: Scene, resolution: tuple[int, int]) -> Int[Array, " k"]:
    """Returns the number of pixels in which each object is seen."""
    height, width = resolution
    y, x = jnp.mgrid[:height, :width].reshape(2, -1)
    directions = camera.rays(scene.camera, x + 0.5, y + 0.5, resolution)
    labels = first_hit(scene, vec(scene.camera), directions).label
    number = 1 + jnp.arange(scene.objects.shape.shape[0])
    return jnp.sum(labels[None] == number[:, None], axis=1)


def first_hit(scene: Scene, origin: Vec, direction: Vec, own: jax.Array | None = None) -> Hit:
    """Follows rays, with directions of length 1, to what they hit first.

    They start above the ground and outside of objects. Those that start from the surface of objects
    cannot hit these again: `own` are their labels.
    """
    t, normal = shapes.intersect_ground(origin, direction)
    none = jnp.zeros_like(t, jnp.int32)
    start = Hit(t, normal, none, none)

    def visit(number: jax.Array, hit: Hit) -> Hit:
        local = Local(scene.objects, number)
        a, d = local.point(origin), local.direction(direction)

        def intersect(name: str) -> shapes.Intersection:
            return shapes.SHAPES[name][0](a.map(lambda x: jnp.broadcast_to(x, d.x.shape)), d)

        branches = [functools.partial(intersect, name) for name in scene.settings.shapes]
        found = jax.lax.switch(scene.objects.shape[number], branches)
        nearer = found.t < hit.t
        if own is not None:
            nearer &= own != number + 1
        found = Hit(found.t, local.outwards(found.normal), found.part, number + 1)
        return vectors.where(nearer, found, hit)

    return jax.lax.fori_loop(0, scene.num_objects, visit, start)


def _radiance_of_ground(scene: Scene, eye: Vec, directions: Vec) -> jax.Array:
    """Returns what the ground looks like where no object is in the way, [3, n]."""
    t, normal = shapes.intersect_ground(eye, directions)
    point = eye + directions * t
    lights = lighting.incident_lights(scene, point, jnp.zeros_like(t, jnp.int32))
    color = vec(_ground_albedo(scene))
    if scene.settings.textured:
        footprint = _footprint(scene.settings, t, -normal.dot(directions))
        color, normal = _ground_look(scene.ground, point, normal, footprint)
    (irradiance,) = lighting.colored(scene.settings, lighting.diffuse(lights, normal))
    seen = _matt(color, irradiance)
    return jnp.stack([seen.x, seen.y, seen.z])


def _ground_albedo(scene: Scene) -> jax.Array:
    """Returns the colour of the ground, patterns apart, [3]."""
    return scene.ground.color if scene.settings.textured else jnp.full(3, GROUND_ALBEDO)


def _matt(color: Vec, irradiance: Vec) -> Vec:
    """Returns the radiance of the ground."""
    return color * (irradiance * (1 / np.pi)).map(lambda x: x + AMBIENT / GROUND_ALBEDO)


def _footprint(settings: RenderSettings, t: jax.Array, cos: jax.Array) -> jax.Array:
    """Returns the length on surfaces, met at some angle, that a pixel covers."""
    return t / (settings.resolution[1] * camera.LENS_OVER_SENSOR * jnp.maximum(cos, 0.05))


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


def _look(scene: Scene, hit: Hit, point: Vec, direction: Vec) -> tuple[Vec, Vec]:
    """Returns colours and normals of what rays have hit."""
    table = jnp.concatenate([_ground_albedo(scene)[None], scene.objects.surface.color])
    color = Vec(*(table[:, channel][hit.label] for channel in range(3)))
    if not scene.settings.textured:
        return color, hit.normal
    footprint = _footprint(scene.settings, hit.t, -hit.normal.dot(direction))
    on_ground = _ground_look(scene.ground, point, hit.normal, footprint)
    start = vectors.where(hit.label == 0, on_ground, (color, hit.normal))

    def visit(number: jax.Array, looks: tuple[Vec, Vec]) -> tuple[Vec, Vec]:
        local = Local(scene.objects, number)
        surface = jax.tree.map(lambda values: values[number], scene.objects.surface)
        color, slope = _mixed(surface, local.point(point) * local.size, footprint)
        across = slope - local.inwards(hit.normal) * slope.dot(local.inwards(hit.normal))
        bumped = (hit.normal - local.outwards(across)).unit()
        return vectors.where(hit.label == number + 1, (color, bumped), looks)

    return jax.lax.fori_loop(0, scene.num_objects, visit, start)


def _radiance(scene: Scene, origin: Vec, direction: Vec, *, own: jax.Array, mirrors: bool) -> Vec:
    """Returns the light along rays; metal mirrors its surroundings, or else gets their average."""
    hit = first_hit(scene, origin, direction, own)
    point = origin + direction * hit.t
    color, normal = _look(scene, hit, point, direction)
    lights = lighting.incident_lights(scene, point, hit.label)
    wide = lighting.gloss(lights, normal, direction, 0.2, tails=True)
    narrow = lighting.gloss(lights, normal, direction, 0.02, tails=False)
    irradiance, rubber_gloss, metal_gloss, open_irradiance = lighting.colored(
        scene.settings,
        lighting.diffuse(lights, normal),
        lighting.gloss(lights, normal, direction, 0.35, tails=False),
        [0.4 * a + 0.6 * b for a, b in zip(wide, narrow, strict=True)],
        lighting.open_ground(scene.settings, point),
    )
    ground_radiance = _matt(vec(_ground_albedo(scene)), open_irradiance)
    facing = jnp.maximum(-normal.dot(direction), 0.02)

    below = 0.5 - 0.5 * normal.z
    from_around = (ground_radiance * (_BOUNCE * below)).map(lambda x: x + AMBIENT)
    fresnel = _schlick(0.0083, facing)
    rubber = color * (irradiance * (1 / np.pi) + from_around) + rubber_gloss * (0.8 * fresnel)

    reflected = (direction + normal * (2 * facing)).unit()
    # The wide lobe sees the ground up to some angle above the horizon, and less below it.
    share = textures.smoothstep((reflected.z - 0.25) / -0.5)
    if mirrors:
        mirrored = _radiance(scene, point + normal * 1e-3, reflected, own=hit.label, mirrors=False)
    else:
        mirrored = ground_radiance * textures.smoothstep((reflected.z - 0.1) / -0.2)
    metal = color * (ground_radiance * (0.4 * 0.9 * share) + mirrored * 0.6 + metal_gloss)

    is_metal = _metal_of(scene, hit.label) > 0
    on_object = vectors.where(is_metal, metal, rubber)
    seen = vectors.where(hit.label == 0, _matt(color, irradiance), on_object)
    return vectors.where(hit.t < FAR, seen, seen * 0.0)


def _schlick(at_normal: float, cos: jax.Array) -> jax.Array:
    rest = 1 - cos
    square = rest * rest
    return at_normal + (1 - at_normal) * square * square * rest


def _metal_of(scene: Scene, labels: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.zeros(1), scene.objects.surface.metal])[labels]


def _replace(
    linear: jax.Array, chosen: jax.Array, scene: Scene, samples: int, *, mirrors: bool
) -> jax.Array:
    """Computes some pixels with more rays: [3, n], of which `chosen` [h, w] are replaced."""
    height, width = scene.settings.resolution
    rank = jnp.cumsum(chosen.reshape(-1).astype(jnp.int32))
    total = rank[-1]
    on_cpu = jax.default_backend() == "cpu"
    chunk = (_CHUNK_ON_CPU if on_cpu else _CHUNK) // samples
    offsets = jnp.asarray(filter_offsets(samples))

    def visit(number: jax.Array, colors: jax.Array) -> jax.Array:
        # Fused with the search, this keeps JAX 0.12's LLVM (its loop vectorizer) busy for minutes.
        wanted = jax.lax.optimization_barrier(number * chunk + jnp.arange(chunk) + 1)
        pixel = jnp.searchsorted(rank, wanted, method="scan_unrolled").astype(jnp.int32)
        pixel = jnp.minimum(pixel, height * width - 1)
        x = (pixel % width)[None] + offsets[:, :1]
        y = (pixel // width)[None] + offsets[:, 1:]
        directions = camera.rays(scene.camera, x.reshape(-1), y.reshape(-1), (height, width))
        own = jnp.zeros_like(directions.x, jnp.int32)
        seen = _radiance(scene, vec(scene.camera), directions, own=own, mirrors=mirrors)
        colors_seen = jnp.minimum(jnp.stack([seen.x, seen.y, seen.z]), 1.5)
        if scene.settings.filmic:
            colors_seen = _filmic(colors_seen)
        mean = jnp.mean(colors_seen.reshape(3, samples, chunk), axis=1)
        return jax.lax.dynamic_update_slice(colors, mean, (0, number * chunk))

    room = -(-height * width // chunk) * chunk
    colors = jnp.zeros((3, room))
    colors = jax.lax.fori_loop(0, (total + chunk - 1) // chunk, visit, colors)
    return jnp.where(chosen.reshape(1, -1), colors[:, jnp.maximum(rank - 1, 0)], linear)


def filter_offsets(samples: int) -> np.ndarray:
    """Returns where in and around a pixel rays go, [n, 2], distributed like the filter."""
    if samples == 1:
        return np.full((1, 2), 0.5, np.float32)
    # The filter's weight, 1.5 pixels wide, and its inverse distribution.
    grid, weight = np.linspace(-0.75, 0.75, 1001), blackmanharris(1001)
    share = np.cumsum(weight) / weight.sum()
    # A rank-1 lattice: with a multiplier without common divisors every row and every column of the
    # unit square has one sample, and near the golden ratio they lie apart.
    coprime = [m for m in range(1, samples) if math.gcd(m, samples) == 1]
    multiplier = min(coprime, key=lambda m: abs(m / samples - 0.618))
    number = np.arange(samples)
    lattice = np.stack([number + 0.5, (number * multiplier) % samples + 0.5], 1) / samples
    return np.interp(lattice, share, grid).astype(np.float32) + np.float32(0.5)


def _filmic(linear: jax.Array) -> jax.Array:
    """Compresses light by a sigmoid of its logarithm, centred on a brightness of 0.35."""
    power = jnp.exp(1.35 * jnp.log(jnp.maximum(linear, 1e-6) / 0.35))
    return power / (1 + power)


def _to_srgb(linear: jax.Array) -> jax.Array:
    linear = jnp.clip(linear, 0, 1)
    curved = 1.055 * jnp.exp(jnp.log(jnp.maximum(linear, 1e-6)) / 2.4) - 0.055
    return jnp.round(255 * jnp.where(linear <= 0.0031308, 12.92 * linear, curved)).astype(jnp.uint8)
