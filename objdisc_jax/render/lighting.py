"""The light that reaches points from area lights and the sun, and what surfaces reflect of it.

How much of an area light a point sees is computed in closed form from the distance between each
object's silhouette and the line to the light's centre (`shapes`), so soft shadows have no noise.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from objdisc_jax.render import shapes, textures
from objdisc_jax.render.scene import Local, RenderSettings, Scene
from objdisc_jax.render.vectors import Vec, vec

LIGHT_POSITIONS = (
    (6.44671, -2.90517, 4.2584),
    (-4.67112, -4.0136, 3.01122),
    (-1.16898, 2.64602, 5.81574),
)
"""Of the published base scene, before jitter."""

SUN_DIRECTION = (0.4145, -0.1946, 0.889)
_SUN_SPREAD = 0.05


@dataclasses.dataclass(frozen=True)
class Light:
    """What reaches points from one source."""

    direction: Vec  # to the source, of length 1
    strength: jax.Array  # irradiance across that direction, but for the source's colour
    spread: jax.Array  # angle that the source's radius fills, in radians


def incident_lights(scene: Scene, point: Vec, own: jax.Array) -> list[Light]:
    """Returns what reaches points on surfaces from the area lights and the sun, past the objects.

    The objects that they lie on, of labels `own`, do not hide their own outsides' light.
    """
    settings, lights = scene.settings, []
    for position, source in zip(scene.light_positions, settings.area_lights, strict=True):
        way = vec(position) - point
        square = way.dot(way)
        direction = way * jax.lax.rsqrt(square)
        towards_origin = jnp.maximum(direction.dot(vec(position).unit()), 0)
        strength = source.power / np.pi * towards_origin / square
        lights.append(Light(direction, strength, source.edge * 0.56 * jax.lax.rsqrt(square)))
    one = jnp.ones_like(point.x)
    sun = Vec(*(one * value for value in SUN_DIRECTION)).unit()
    lights.append(Light(sun, one * settings.sun, one * _SUN_SPREAD))

    def visit(number: jax.Array, seen: list[jax.Array]) -> list[jax.Array]:
        local = Local(scene.objects, number)
        origin = local.point(point)
        directions = [local.direction(light.direction) for light in lights]

        def hidden(silhouette_distance: shapes.SilhouetteDistance) -> list[jax.Array]:
            shares = []
            for light, direction in zip(lights, directions, strict=True):
                distance, t = silhouette_distance(origin, direction)
                # From the point the source's radius measures `spread * t` where the object is.
                share = 0.5 - 0.5 * distance * local.size / (light.spread * jnp.maximum(t, 0.01))
                shares.append(jnp.where(t > 0, textures.smoothstep(share), 0))
            return shares

        branches = [partial(hidden, shapes.SHAPES[name][1]) for name in settings.shapes]
        shares = jax.lax.switch(scene.objects.shape[number], branches)
        other = own != number + 1
        return [
            jnp.where(other, before * (1 - share), before)
            for before, share in zip(seen, shares, strict=True)
        ]

    seen = jax.lax.fori_loop(0, scene.num_objects, visit, [one] * len(lights))
    return [
        dataclasses.replace(light, strength=light.strength * share)
        for light, share in zip(lights, seen, strict=True)
    ]


def diffuse(lights: list[Light], normal: Vec) -> list[jax.Array]:
    """Returns the irradiance of surfaces, by light."""
    return [light.strength * jnp.maximum(normal.dot(light.direction), 0) for light in lights]


def gloss(
    lights: list[Light], normal: Vec, direction: Vec, alpha: float, *, tails: bool
) -> list[jax.Array]:
    """Returns the reflections of lights in a rough surface with a reflectance of 1, by light.

    The microfacets' slopes are distributed by GGX (with tails) or Beckmann (without).
    """
    shares: list[jax.Array] = []
    for light in lights:
        half = (light.direction - direction).unit()
        # A source that fills an angle widens the lobe.
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


def open_ground(settings: RenderSettings, point: Vec) -> list[jax.Array]:
    """Returns the ground's irradiance below points, by light, were there no objects, no jitter."""
    shares: list[jax.Array] = []
    for (x, y, z), source in zip(LIGHT_POSITIONS, settings.area_lights, strict=True):
        dx, dy = x - point.x, y - point.y
        square = dx * dx + dy * dy + z * z
        norm = np.sqrt(x * x + y * y + z * z)
        towards_origin = jnp.maximum(dx * x + dy * y + z * z, 0) / norm
        shares.append(source.power / np.pi * z * towards_origin / (square * square))
    return [*shares, jnp.full_like(point.x, settings.sun * SUN_DIRECTION[2])]


def colored(settings: RenderSettings, *shares: list[jax.Array]) -> list[Vec]:
    """Returns the RGB sums of quantities that are given by light, the sun's last.

    One matrix product makes all of them: XLA would compute what colours have in common once for
    every channel, and that is most of the work.
    """
    colors = np.array([*(source.color for source in settings.area_lights), (1, 1, 1)], np.float32)
    stacked = jnp.stack([jnp.stack(by_light) for by_light in shares], axis=1)  # [light, q, n]
    sums = jnp.einsum("lc,lqn->qcn", colors, stacked, precision=jax.lax.Precision.HIGHEST)
    return [Vec(*channels) for channels in sums]
