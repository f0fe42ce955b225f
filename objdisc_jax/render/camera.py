"""The camera of CLEVR: a pinhole that looks at the origin.

Lens 35 mm, sensor 32 mm over the width, principal point in the middle. With the camera at C,
z_c = C/|C|, x_c = unit(up × z_c), y_c = z_c × x_c and depth = -(X - C)·z_c, a point X is seen at
px = W/2 + f (X - C)·x_c / depth, py = H/2 - f (X - C)·y_c / depth, with f = W · 35/32.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from objdisc_jax.render.vectors import Vec, vec

LENS_OVER_SENSOR = 35 / 32
"""Focal length in widths of the image."""


def axes(position: Float[Array, "3"]) -> tuple[Vec, Vec, Vec]:
    """Returns the unit vectors that point right, up and backwards in the image."""
    back = vec(position).unit()
    right = Vec(-back.y, back.x, jnp.zeros_like(back.z)).unit()
    return right, back.cross(right), back


def rays(
    position: Float[Array, "3"],
    x: Float[Array, "*n"],
    y: Float[Array, "*n"],
    resolution: tuple[int, int],
) -> Vec:
    """Returns the directions, of length 1, in which points of the image look.

    Columns x and rows y are in pixels from the left and upper border; the first pixel's centre is
    at 0.5.
    """
    height, width = resolution
    focal = width * LENS_OVER_SENSOR
    right, up, back = axes(position)
    return (right * ((x - width / 2) / focal) - up * ((y - height / 2) / focal) - back).unit()


def project(
    position: Float[Array, "3"], points: Float[Array, "*n 3"], resolution: tuple[int, int]
) -> Float[Array, "*n 3"]:
    """Returns column and row in pixels, and the depth along the viewing axis, of points."""
    height, width = resolution
    focal = width * LENS_OVER_SENSOR
    right, up, back = axes(position)
    offset = vec(points) - vec(position)
    depth = -offset.dot(back)
    return jnp.stack(
        [
            width / 2 + focal * offset.dot(right) / depth,
            height / 2 - focal * offset.dot(up) / depth,
            depth,
        ],
        axis=-1,
    )


def depth_of(position: Float[Array, "3"], directions: Vec, distance: jax.Array) -> jax.Array:
    """Returns the depth along the viewing axis of what rays meet after some distance."""
    _, _, back = axes(position)
    return -directions.dot(back) * distance
