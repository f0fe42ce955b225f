"""Scenes of CLEVR, sampled as the published generator does."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from objdisc_jax.render import caster, lighting
from objdisc_jax.render.scene import MAX_OBJECTS, AreaLight, Objects, RenderSettings, Scene, Surface

VERSION = 2
"""Bumped whenever the scenes or the images of a seed change."""

COLORS = {
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
"""Linear albedos, times 255."""
_PALETTE = np.array(list(COLORS.values()), np.float32) / 255

MATERIALS = ("rubber", "metal")
SIZES = {"large": 0.7, "small": 0.35}
SHAPES = ("cube", "sphere", "cylinder")
CAMERA = (7.481132, -6.507640, 5.343665)

SETTINGS = RenderSettings(
    shapes=SHAPES,
    area_lights=(
        AreaLight(0.5, (1.0, 0.932, 0.817), 78.5),
        AreaLight(0.5, (0.762, 0.818, 1.0), 23.6),
        AreaLight(1.0, (1.0, 1.0, 1.0), 39.3),
    ),
    sun=0.45,
)

MIN_OBJECTS = 3
MIN_PIXELS = 200
REFERENCE_RESOLUTION = (240, 320)
"""At which every object must show `MIN_PIXELS`, whatever is rendered."""

_Attempt = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
_SPREAD = 3.0
_MIN_DISTANCE = 0.25
_MARGIN = 0.4
_RETRIES = 50
# Right and behind, of the camera without jitter, on the ground.
_DIRECTIONS = np.array([[0.65631127, 0.75449026], [-0.75449031, 0.65631127]], np.float32)


def sample_scene(key: jax.Array, settings: RenderSettings, max_objects: int) -> Scene:
    """Samples a scene with at least three objects."""
    ground = plain(jnp.full(3, caster.GROUND_ALBEDO), jnp.zeros(()))
    return sample_visible(key, settings, max_objects, ground, _sample_objects)


def sample_visible(
    key: jax.Array,
    settings: RenderSettings,
    max_objects: int,
    ground: Surface,
    sample_objects: Callable[[jax.Array, jax.Array], Objects],
) -> Scene:
    """Samples a scene; where an object is hardly visible all of them are sampled anew.

    The number of objects, given to `sample_objects` with a key, the camera and the lights stay, as
    in the published generator.
    """
    count_key, camera_key, light_key, objects_key = jax.random.split(key, 4)
    num_objects = jax.random.randint(count_key, (), MIN_OBJECTS, max_objects + 1)
    eye = jnp.asarray(CAMERA) + jax.random.uniform(camera_key, (3,), minval=-0.5, maxval=0.5)
    lights = jnp.asarray(lighting.LIGHT_POSITIONS)
    lights += jax.random.uniform(light_key, (3, 3), minval=-1.0, maxval=1.0)

    def attempt(number: jax.Array) -> Scene:
        objects = sample_objects(jax.random.fold_in(objects_key, number), num_objects)
        return Scene(objects, num_objects, eye, lights, ground, settings)

    def badly_seen(state: tuple[jax.Array, Scene]) -> jax.Array:
        counts = caster.label_counts(state[1], REFERENCE_RESOLUTION)
        there = jnp.arange(MAX_OBJECTS) < num_objects
        return jnp.any(there & (counts < MIN_PIXELS))

    first = (jnp.int32(1), attempt(jnp.int32(0)))
    return jax.lax.while_loop(badly_seen, lambda state: (state[0] + 1, attempt(state[0])), first)[1]


def _sample_objects(key: jax.Array, num_objects: jax.Array) -> Objects:
    """Samples objects that keep their distances."""
    position_key, shape_key, yaw_key, look_key = jax.random.split(key, 4)
    shape = jax.random.randint(shape_key, (MAX_OBJECTS,), 0, len(SHAPES))
    surface = sample_plain(look_key)
    return place((position_key, yaw_key), num_objects, SIZES, shape=shape, surface=surface)


def sample_plain(key: jax.Array) -> Surface:
    """Samples colours and materials of objects, uniform and independent."""
    color_key, metal_key = jax.random.split(key)
    color = jax.random.randint(color_key, (MAX_OBJECTS,), 0, len(COLORS))
    metal = jax.random.randint(metal_key, (MAX_OBJECTS,), 0, len(MATERIALS))
    return plain(jnp.asarray(_PALETTE)[color], metal.astype(jnp.float32))


def plain(color: Float[Array, "*k 3"], metal: Float[Array, "*k"]) -> Surface:
    """Returns surfaces without patterns."""
    texture = jnp.full(metal.shape, -1, jnp.int32)
    return Surface(color, metal, texture, color, jnp.ones((*metal.shape, 2)))


def place(
    keys: tuple[jax.Array, jax.Array],
    num_objects: jax.Array,
    sizes: Mapping[str, float],
    *,
    shape: Int[Array, " k"],
    surface: Surface,
    shrink: Float[Array, " k"] | float = 1.0,
    bottom: Float[Array, " k"] | float = 1.0,
) -> Objects:
    """Samples sizes, turns and positions, one object after another; after 50 failures all anew.

    The keys are of sizes and positions, and of turns. An object's size is multiplied by `shrink`
    once it has its position; `bottom` is how far below its centre it reaches, in sizes.
    """
    k = MAX_OBJECTS
    key, yaw_key = keys
    radii = jnp.asarray(np.array(list(sizes.values()), np.float32))
    directions = jnp.asarray(_DIRECTIONS)[None, None]

    def attempt(state: _Attempt) -> _Attempt:
        number, *_ = state
        size_key, position_key = jax.random.split(jax.random.fold_in(key, number))
        size = radii[jax.random.randint(size_key, (k,), 0, len(sizes))]
        candidates = jax.random.uniform(
            position_key, (k, _RETRIES, 2), minval=-_SPREAD, maxval=_SPREAD
        )

        def add(i: jax.Array, placed: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            position, fits = placed
            offset = candidates[i][:, None] - position[None]  # [tries, k, 2]
            gap = jnp.sqrt(jnp.sum(offset**2, -1)) - size[i] - (size * shrink)[None]
            along = jnp.abs(jnp.sum(offset[:, :, None] * directions, -1)).min(-1)
            earlier = jnp.arange(k)[None] < i
            good = (((gap >= _MIN_DISTANCE) & (along >= _MARGIN)) | ~earlier).all(1)
            return (
                position.at[i].set(candidates[i][jnp.argmax(good)]),
                fits & (good.any() | (i >= num_objects)),
            )

        position, fits = jax.lax.fori_loop(0, k, add, (jnp.zeros((k, 2)), jnp.array(True)))
        return number + 1, size * shrink, position, fits

    state = (jnp.int32(0), jnp.zeros(k), jnp.zeros((k, 2)), jnp.array(False))
    _, size, position, _ = jax.lax.while_loop(lambda state: ~state[3], attempt, state)
    position = jnp.concatenate([position, (size * bottom)[:, None]], axis=1)
    yaw = jax.random.uniform(yaw_key, (k,), maxval=2 * np.pi)
    return Objects(shape, size, position, yaw, surface)


def record(
    key: jax.Array,
    index: jax.Array,
    settings: RenderSettings = SETTINGS,
    max_objects: int = 10,
    sample: Callable[[jax.Array, RenderSettings, int], Scene] = sample_scene,
) -> tuple[Scene, caster.Rendering]:
    """Samples and renders image `index` of a seed's key."""
    scene = sample(jax.random.fold_in(key, index), settings, max_objects)
    return scene, caster.render(scene)


def arrays(scene: Scene, rendering: caster.Rendering) -> dict[str, np.ndarray]:
    """Returns what a file of n records holds: the arrays of CLEVR with masks, and ours.

    Returns:
        image: uint8 [n, h, w, 3];
        segmentation: uint8 [n, h, w], 0 background, else number of the object;
        num_objects: uint8 [n];
        visibility: float32 [n, 11], 1 for background and objects that are there;
        x, y, z, rotation: float32 [n, 11], centres in scene units and turns in radians;
        pixel_coords: float32 [n, 11, 3], column and row of the centres in pixels, and depth;
        shape, size, color, material: uint8 [n, 11], 0 for none, else 1 + the index in `SHAPES`,
            `SIZES`, `COLORS` and `MATERIALS`;
        visible_pixels: int32 [n, 11], pixels of each entity;
        camera: float32 [n, 3], its position.
        In axes of 11, entity 0 is the background, and absent objects have zeros.
    """
    scene, rendering = jax.tree.map(np.asarray, (scene, rendering))
    objects: Any = scene.objects
    k = objects.shape.shape[1]
    there = np.arange(k) < scene.num_objects[:, None]
    distances = np.abs(objects.surface.color[:, :, None] - _PALETTE).sum(-1)
    sizes = np.array(list(SIZES.values()), np.float32)

    def entities(values: Any, dtype: type = np.float32) -> np.ndarray:
        present = there.reshape(there.shape + (1,) * (values.ndim - 2))
        padding = [(0, 0), (1, 0)] + [(0, 0)] * (values.ndim - 2)
        return np.pad(np.where(present, values, 0), padding).astype(dtype)

    labels = rendering.segmentation.reshape(len(there), -1)
    visible = np.stack([np.bincount(row, minlength=k + 1) for row in labels])
    visibility = entities(np.ones_like(objects.size))
    visibility[:, 0] = 1
    return {
        "image": np.asarray(rendering.image),
        "segmentation": np.asarray(rendering.segmentation),
        "num_objects": np.asarray(scene.num_objects, np.uint8),
        "visibility": visibility,
        "x": entities(objects.position[..., 0]),
        "y": entities(objects.position[..., 1]),
        "z": entities(objects.position[..., 2]),
        "rotation": entities(objects.yaw),
        "pixel_coords": entities(rendering.pixel_coords),
        "shape": entities(objects.shape + 1, np.uint8),
        "size": entities(np.abs(objects.size[..., None] - sizes).argmin(-1) + 1, np.uint8),
        "color": entities(distances.argmin(-1) + 1, np.uint8),
        "material": entities(objects.surface.metal + 1, np.uint8),
        "visible_pixels": visible.astype(np.int32),
        "camera": np.asarray(scene.camera),
    }
