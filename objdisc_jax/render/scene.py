"""What there is to see, objects on a ground, lights and a camera, and how it is rendered."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from objdisc_jax.render.vectors import Vec, vec

MAX_OBJECTS = 10


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
        grain: repetitions of the pattern per unit, and where in it the surface is cut out.
    """

    color: Float[Array, "*k 3"]
    metal: Float[Array, "*k"]
    texture: Int[Array, "*k"]
    accent: Float[Array, "*k 3"]
    grain: Float[Array, "*k 2"]


@dataclasses.dataclass(frozen=True)
class AreaLight:
    """A square light that is aimed at the origin.

    Attributes:
        edge: its length.
        color: linear RGB.
        power: in watts.
    """

    edge: float
    color: tuple[float, float, float]
    power: float


@dataclasses.dataclass(frozen=True)
class RenderSettings:
    """What all scenes of a data set share.

    Attributes:
        shapes: names of the solids, in `shapes.SHAPES`, that objects refer to by number.
        area_lights: key, fill and back.
        sun: irradiance across its direction.
        resolution: rows and columns of the image.
        samples: rays per pixel at edges; inside of metal half as many.
        textured: whether surfaces have patterns; then no object takes fewer rays than metal.
        filmic: whether bright light is compressed as on film, with strong contrast.
    """

    shapes: tuple[str, ...]
    area_lights: tuple[AreaLight, AreaLight, AreaLight]
    sun: float
    resolution: tuple[int, int] = (240, 320)
    samples: int = 8
    textured: bool = False
    filmic: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scene:
    """Objects on a ground, three area lights and a camera that looks at the origin.

    Attributes:
        objects: of which the first `num_objects` are there.
        num_objects: how many.
        camera: its position.
        light_positions: of the area lights (key, fill and back).
        ground: what the ground looks like; ignored where the settings are without textures.
        settings: how it is rendered.
    """

    objects: Objects
    num_objects: Int[Array, ""]
    camera: Float[Array, "3"]
    light_positions: Float[Array, "3 3"]
    ground: Surface
    settings: RenderSettings = dataclasses.field(metadata={"static": True})


class Local:
    """The coordinates in which an object is a unit solid; parameters of rays stay the same."""

    def __init__(self, objects: Objects, number: jax.Array):
        self.size = objects.size[number]
        self._centre = vec(objects.position[number])
        self._cos, self._sin = jnp.cos(objects.yaw[number]), jnp.sin(objects.yaw[number])

    def point(self, point: Vec) -> Vec:
        """Returns points in these coordinates."""
        return self.direction(point - self._centre)

    def direction(self, direction: Vec) -> Vec:
        """Returns directions in these coordinates; their lengths change with the scale."""
        return direction.turned(self._cos, -self._sin) * (1 / self.size)

    def inwards(self, normal: Vec) -> Vec:
        """Returns normals in these coordinates, with their lengths."""
        return normal.turned(self._cos, -self._sin)

    def outwards(self, normal: Vec) -> Vec:
        """Returns normals of the solid in those of the scene."""
        return normal.turned(self._cos, self._sin)
