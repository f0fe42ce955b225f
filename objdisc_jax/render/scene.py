"""What there is to see: objects on a ground, lamps and a camera."""

import dataclasses

import jax
from jaxtyping import Array, Float, Int

LARGEST_NUM_OBJECTS = 10


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Objects:
    """The objects of a scene, padded to a fixed number k.

    Attributes:
        shape: number of each object's solid in the renderer's list of shapes.
        size: half its extent, by which the unit solid is scaled.
        position: of its centre; the ground is at height 0.
        yaw: its turn about the vertical axis, in radians.
        color: linear albedo, RGB, 0 to 1; of metal, the tint.
        metal: 1 for metal, 0 for rubber.
        texture: number of its texture in the renderer's list; 0 is plain.
        texture_seed: what distinguishes textures of the same kind, 0 to 1.
    """

    shape: Int[Array, " k"]
    size: Float[Array, " k"]
    position: Float[Array, "k 3"]
    yaw: Float[Array, " k"]
    color: Float[Array, "k 3"]
    metal: Float[Array, " k"]
    texture: Int[Array, " k"]
    texture_seed: Float[Array, "k 4"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scene:
    """Objects on a ground, three lamps (key, fill and back) and a camera that looks at the origin.

    Attributes:
        objects: of which the first `num_objects` are there.
        num_objects: how many.
        camera: its position.
        lamps: their positions.
        ground_texture: number of the ground's texture; 0 is plain.
        ground_seed: what distinguishes textures of the same kind, 0 to 1.
    """

    objects: Objects
    num_objects: Int[Array, ""]
    camera: Float[Array, "3"]
    lamps: Float[Array, "3 3"]
    ground_texture: Int[Array, ""]
    ground_seed: Float[Array, "4"]
