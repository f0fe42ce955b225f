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
        surface: what each looks like.
    """

    shape: Int[Array, " k"]
    size: Float[Array, " k"]
    position: Float[Array, "k 3"]
    yaw: Float[Array, " k"]
    surface: "Surface"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Surface:
    """What a surface, or each of several, looks like.

    Attributes:
        color: linear albedo, RGB, 0 to 1; of metal, the tint.
        metal: 1 for metal, 0 for rubber.
        texture: number of its pattern in `textures.PATTERNS`; -1 for none.
        accent: linear albedo that the pattern mixes with `color`.
        grain: repetitions of the pattern in a unit, and where in it the surface is cut out.
    """

    color: Float[Array, "*k 3"]
    metal: Float[Array, "*k"]
    texture: Int[Array, "*k"]
    accent: Float[Array, "*k 3"]
    grain: Float[Array, "*k 2"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scene:
    """Objects on a ground, three lamps (key, fill and back) and a camera that looks at the origin.

    Attributes:
        objects: of which the first `num_objects` are there.
        num_objects: how many.
        camera: its position.
        lamps: their positions.
        ground: what the ground looks like; a studio without textures overlooks it.
    """

    objects: Objects
    num_objects: Int[Array, ""]
    camera: Float[Array, "3"]
    lamps: Float[Array, "3 3"]
    ground: Surface
