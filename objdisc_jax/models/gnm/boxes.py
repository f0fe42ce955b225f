"""Boxes of glimpses, in pixels and drawn on images."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

PRESENT, ABSENT = (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)


def to_boxes(z_where: Float[Array, "b k 4"], size: tuple[int, int]) -> Float[Array, "b k 4"]:
    """Boxes of placed glimpses in pixels: (top, bottom, left, right), which may leave the image."""
    scale_x, scale_y, shift_x, shift_y = jnp.moveaxis(z_where, -1, 0)
    half_height, half_width = 0.5 * size[0], 0.5 * size[1]
    return jnp.stack(
        [
            half_height * (shift_y - scale_y + 1.0),
            half_height * (shift_y + scale_y + 1.0),
            half_width * (shift_x - scale_x + 1.0),
            half_width * (shift_x + scale_x + 1.0),
        ],
        axis=-1,
    )


def from_boxes(boxes: Float[Array, "b k 4"], size: tuple[int, int]) -> Float[Array, "b k 4"]:
    """The inverse of `to_boxes`: z_where of boxes in pixels."""
    top, bottom, left, right = jnp.moveaxis(boxes, -1, 0)
    height, width = size
    return jnp.stack(
        [
            (right - left) / width,
            (bottom - top) / height,
            (left + right) / width - 1.0,
            (top + bottom) / height - 1.0,
        ],
        axis=-1,
    )


def draw_boxes(
    image: Float[Array, "b h w 3"], boxes: Float[Array, "b k 4"], is_present: Bool[Array, "b k"]
) -> Float[Array, "b h w 3"]:
    """Images in [0, 1] with outlines of boxes, one pixel wide: green if present, red if not.

    Green lies on top of red. Of a box that reaches beyond the image only what is inside is seen.
    """
    height, width = image.shape[1:3]
    top, bottom, left, right = jnp.moveaxis(jnp.round(boxes)[..., None, None], 2, 0)
    row, column = jnp.arange(height)[None, None, :, None], jnp.arange(width)[None, None, None]

    def inside(margin: int) -> Bool[Array, "b k h w"]:
        rows = (row >= top + margin) & (row < bottom - margin)
        return rows & (column >= left + margin) & (column < right - margin)

    outline = inside(0) & ~inside(1)
    for wanted, colour in ((~is_present, ABSENT), (is_present, PRESENT)):
        here = jnp.any(outline & wanted[..., None, None], axis=1)
        image = jnp.where(here[..., None], jnp.array(colour, ndmin=4), image)
    return image
