"""Scenes like ClevrTex: textured objects on textured ground.

Camera, distances, sizes, counts and lights are the published ones. Other than there, the camera has
no depth of field, and surfaces have procedural patterns (`textures`) in two random colours instead
of photographs. `full` and its relatives have cubes, spheres and cylinders but no monkey heads;
`outd` has cones and tori but no icosahedra and teapots, with patterns that the others never show.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from objdisc_jax.render import caster, clevr, shapes, textures
from objdisc_jax.render.scene import MAX_OBJECTS, AreaLight, Objects, RenderSettings, Scene, Surface

VERSION = 2
"""Bumped whenever the scenes or the images of a seed change."""

_NAMES = list(textures.PATTERNS)


@dataclasses.dataclass(frozen=True)
class Variant:
    """What a variant's scenes are made of: shapes, sizes (before cubes shrink) and patterns."""

    shapes: tuple[str, ...] = ("cube", "sphere", "cylinder")
    sizes: tuple[tuple[str, float], ...] = (("large", 0.9), ("medium", 0.6), ("small", 0.4))
    patterns: tuple[str, ...] = ("noise", "stripes", "checks", "bricks", "wood", "marble")
    plain_ground: bool = False  # the ground is CLEVR's
    plain_objects: bool = False  # objects are CLEVR's, of rubber and metal
    same_ground: bool = False  # all scenes have one ground
    same_material: bool = False  # all objects of a scene, and its ground, have one material


VARIANTS: Mapping[str, Variant] = {
    "full": Variant(),
    "pbg": Variant(plain_ground=True),
    "vbg": Variant(plain_objects=True),
    "grassbg": Variant(same_ground=True),
    "camo": Variant(same_material=True),
    "outd": Variant(
        shapes=("cone", "torus"),
        sizes=(("large", 1.0), ("medium", 0.8), ("small", 0.6)),
        patterns=("cells", "dots"),
    ),
}

_GROUND_SCALE = 0.5  # of patterns, compared with objects

SETTINGS = RenderSettings(
    shapes=Variant.shapes,
    area_lights=(
        AreaLight(0.5, (1.0, 0.932, 0.867), 393.0),
        AreaLight(0.2, (0.762, 0.818, 1.0), 157.0),
        AreaLight(1.0, (1.0, 1.0, 1.0), 275.0),
    ),
    sun=0.85,
    textured=True,
    filmic=True,
)
"""Of `full`; a variant replaces the shapes by its own."""


def sample_scene(
    variant: Variant, key: jax.Array, settings: RenderSettings, max_objects: int
) -> Scene:
    """Samples a scene with at least three objects; the settings must have the variant's shapes."""
    ground_key, scene_key = jax.random.split(key)
    material = _sample_surfaces(ground_key, variant, ())
    material = dataclasses.replace(material, metal=jnp.zeros(()))  # the ground never is
    ground = dataclasses.replace(material, grain=material.grain * jnp.array([_GROUND_SCALE, 1]))
    if variant.plain_ground:
        ground = clevr.plain(jnp.full(3, caster.GROUND_ALBEDO), jnp.zeros(()))
    elif variant.same_ground:  # a forest floor
        ground = Surface(
            color=jnp.array([0.05, 0.10, 0.03]),
            metal=jnp.zeros(()),
            texture=jnp.int32(_NAMES.index("noise")),
            accent=jnp.array([0.28, 0.24, 0.10]),
            grain=jnp.array([3.0, 0.5]),
        )

    def sample_objects(key: jax.Array, num_objects: jax.Array) -> Objects:
        k = MAX_OBJECTS
        shape_key, position_key, yaw_key, look_key = jax.random.split(key, 4)
        shape = jax.random.randint(shape_key, (k,), 0, len(variant.shapes))
        shrink = _each(variant, {"cube": np.sqrt(0.5)})[shape]
        bottom = _each(variant, shapes.BOTTOM)[shape]
        if variant.plain_objects:
            surface = clevr.sample_plain(look_key)
        elif variant.same_material:
            surface = jax.tree.map(lambda x: jnp.broadcast_to(x, (k, *x.shape)), material)
        else:
            surface = _sample_surfaces(look_key, variant, (k,))
        return clevr.place(
            (position_key, yaw_key),
            num_objects,
            dict(variant.sizes),
            shape=shape,
            surface=surface,
            shrink=shrink,
            bottom=bottom,
        )

    return clevr.sample_visible(scene_key, settings, max_objects, ground, sample_objects)


def _each(variant: Variant, values: Mapping[str, float]) -> jax.Array:
    return jnp.array([values.get(name, 1.0) for name in variant.shapes], jnp.float32)


def _sample_surfaces(key: jax.Array, variant: Variant, shape: tuple[int, ...]) -> Surface:
    """Samples patterned surfaces in two colours each, of different brightness."""
    keys = jax.random.split(key, 6)
    numbers = jnp.array([_NAMES.index(name) for name in variant.patterns])
    scale = jax.random.uniform(keys[0], shape, minval=1.5, maxval=4.0)
    offset = jax.random.uniform(keys[1], shape)
    return Surface(
        color=_sample_colors(keys[2], shape, 0.03, 0.3),
        metal=(jax.random.uniform(keys[3], shape) < 0.2).astype(jnp.float32),
        texture=numbers[jax.random.randint(keys[4], shape, 0, len(numbers))],
        accent=_sample_colors(keys[5], shape, 0.25, 0.8),
        grain=jnp.stack([scale, offset], axis=-1),
    )


def _sample_colors(key: jax.Array, shape: tuple[int, ...], least: float, most: float) -> jax.Array:
    """Samples linear colours of any hue, mostly of low saturation."""
    hue_key, saturation_key, value_key = jax.random.split(key, 3)
    hue = jax.random.uniform(hue_key, (*shape, 1), maxval=6.0)
    saturation = jax.random.uniform(saturation_key, (*shape, 1)) ** 2 * 0.9
    value = jax.random.uniform(value_key, (*shape, 1), minval=least, maxval=most)
    shift = jnp.array([0.0, 4.0, 2.0]).reshape((1,) * len(shape) + (3,))
    wheel = jnp.abs((hue + shift) % 6 - 3) - 1
    return value * (1 - saturation * (1 - jnp.clip(wheel, 0, 1)))


def describe(scene: Scene, rendering: caster.Rendering, index: int, name: str) -> dict[str, Any]:
    """Returns what the scene file of image `index` of a variant says, in the published words.

    The scene and its rendering are of NumPy arrays.
    """
    variant, objects = VARIANTS[name], scene.objects
    stem = f"CLEVRTEX_{name}_{index:06d}"
    counts = np.bincount(rendering.segmentation.reshape(-1), minlength=MAX_OBJECTS + 1)
    listed = []
    for number in range(int(scene.num_objects)):
        shape = variant.shapes[int(objects.shape[number])]
        size = float(objects.size[number]) / (np.sqrt(0.5) if shape == "cube" else 1)
        listed.append(
            {
                "shape": shape,
                "size": min(variant.sizes, key=lambda each: abs(each[1] - size))[0],
                "rotation": float(objects.yaw[number]),
                "3d_coords": objects.position[number].tolist(),
                "pixel_coords": rendering.pixel_coords[number].tolist(),
                "index": number + 1,
                "color": objects.surface.color[number].tolist(),
                "material": _material(objects.surface, number),
                "visible_pixels": int(counts[number + 1]),
            }
        )
    return {
        "split": name,
        "image_index": index,
        "image_filename": f"{stem}.png",
        "mask_filename": f"{stem}_flat.png",
        "num_objects": len(listed),
        "ground_material": _material(scene.ground, ()),
        "camera": scene.camera.tolist(),
        "objects": listed,
    }


def _material(surface: Surface, number: int | tuple[()]) -> str:
    kind = clevr.MATERIALS[int(surface.metal[number])]
    texture = int(surface.texture[number])
    return f"{_NAMES[texture]}_{kind}" if texture >= 0 else kind


PALETTE = bytes.fromhex(
    "000000 ff0000 008000 0000ff ffff00 8dd3c7 ffffb3 "
    "bebada fb8072 80b1d3 fdb462 b3de69 fccde5 d9d9d9"
)
"""Colours of the published masks, three bytes each."""
