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
    """The objects of a scene, padded to a fixed number k."""

    shape: Int[Array, " k"]  # number of each object's solid in the renderer's list of shapes
    size: Float[Array, " k"]  # half its extent, by which the unit solid is scaled
    position: Float[Array, "k 3"]  # of its centre; the ground is at height 0
    yaw: Float[Array, " k"]  # its turn about the vertical axis, in radians
    surface: "Surface"  # what each looks like


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Surface:
    """What a surface, or each of several, looks like."""

    color: Float[Array, "*k 3"]  # linear albedo, RGB, 0 to 1; of metal, the tint
    metal: Float[Array, "*k"]  # 1 for metal, 0 for rubber
    texture: Int[Array, "*k"]  # number of its pattern in `textures.PATTERNS`; -1 for none
    accent: Float[Array, "*k 3"]  # linear albedo that the pattern mixes with `color`
    grain: Float[Array, "*k 2"]  # repetitions per unit, and where in the pattern it is cut out


@dataclasses.dataclass(frozen=True)
class AreaLight:
    """A square light that is aimed at the origin."""

    edge: float  # its length
    color: tuple[float, float, float]  # linear RGB
    power: float  # in watts


@dataclasses.dataclass(frozen=True)
class RenderSettings:
    """What all scenes of a data set share."""

    shapes: tuple[str, ...]  # solids, in `shapes.SHAPES`, that objects refer to by number
    area_lights: tuple[AreaLight, AreaLight, AreaLight]  # key, fill and back
    sun: float  # irradiance across its direction
    resolution: tuple[int, int] = (240, 320)  # rows and columns of the image
    samples: int = 8  # rays per pixel at edges; inside of metal half as many
    textured: bool = False  # surfaces have patterns; then all objects take the rays of metal
    filmic: bool = False  # bright light is compressed as on film, with strong contrast


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scene:
    """Objects on a ground, three area lights and a camera that looks at the origin."""

    objects: Objects  # of which the first `num_objects` are there
    num_objects: Int[Array, ""]
    camera: Float[Array, "3"]  # its position
    light_positions: Float[Array, "3 3"]  # of the area lights (key, fill and back)
    ground: Surface  # what the ground looks like; ignored where the settings are without textures
    settings: RenderSettings = dataclasses.field(metadata={"static": True})  # how it is rendered


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
