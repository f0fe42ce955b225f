"""Placing glimpses in an image by separable resampling, and composing a scene of them.

A glimpse is placed by an axis-aligned affine map, so bilinear resampling factors into rows and
columns: out = W_y · maps · W_xᵀ with tent weights, two small matrix products that carry all maps of
a glimpse at once. It is what `affine_grid` and `grid_sample(align_corners=False)` compute, zeros
outside, gradients included. Images inside here are `[h, c, w]`, which lets both products work
without moving an axis.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax
from jaxtyping import Array, Bool, Float

EPSILON = 1e-15
"""Keeps quotients finite: of coordinates by the size of a glimpse, of importances by their sum."""


class Scene(NamedTuple):
    """A rendered scene of k glimpses, float32.

    Attributes:
        image: foreground over background, `[b, h, w, 3]`.
        foreground: the glimpses alone, on black, `[b, h, w, 3]`.
        alpha: what the glimpses cover, in [0, 1], `[b, h, w]`.
        masks: where every glimpse is, `[b, k, h, w]`; they may overlap.
    """

    image: Float[Array, "b h w 3"]
    foreground: Float[Array, "b h w 3"]
    alpha: Float[Array, "b h w"]
    masks: Float[Array, "b k h w"]


def pixel_centres(size: int) -> Float[Array, "n"]:
    """Where pixel centres lie in an image that reaches from −1 to 1."""
    return (2.0 * jnp.arange(size) + 1.0) / size - 1.0


def tent_weights(
    scale: Float[Array, "*b"], shift: Float[Array, "*b"], size: int, glimpse_size: int
) -> Float[Array, "*b n m"]:
    """Bilinear weights along one axis: how much pixel n of the image reads pixel m of a glimpse.

    Args:
        scale: size of the glimpse as a part of the image's.
        shift: where its centre is, the image reaching from −1 to 1.
        size: pixels of the image.
        glimpse_size: pixels of the glimpse.
    """
    source = (pixel_centres(size) - shift[..., None]) / (scale[..., None] + EPSILON)
    position = 0.5 * ((source + 1.0) * glimpse_size - 1.0)
    distance = jnp.abs(position[..., None] - jnp.arange(glimpse_size))
    return jnp.maximum(1.0 - distance, 0.0)


def place(
    maps: Float[Array, "*b p c q"], z_where: Float[Array, "*b 4"], size: tuple[int, int]
) -> Float[Array, "*b h c w"]:
    """Places glimpses in images.

    Args:
        maps: rows p, channels c and columns q of the glimpses.
        z_where: (scale x, scale y, shift x, shift y) of each.
        size: height and width of the images.
    """
    scale_x, scale_y, shift_x, shift_y = jnp.moveaxis(z_where, -1, 0)
    rows = tent_weights(scale_y, shift_y, size[0], maps.shape[-3])
    columns = tent_weights(scale_x, shift_x, size[1], maps.shape[-1])
    wide = jnp.einsum("...pcq,...wq->...pcw", maps, columns)
    return jnp.einsum("...hp,...pcw->...hcw", rows, wide)


def compose(
    glimpses: Float[Array, "b k p q 4"],
    z_pres: Float[Array, "b k"],
    z_depth: Float[Array, "b k"],
    z_where: Float[Array, "b k 4"],
    background: Float[Array, "b h w 3"],
    *,
    fixed_alpha: float,
    is_early: Bool[Array, ""],
) -> Scene:
    """Renders scenes (Jiang & Ahn 2020, section 3): nearer glimpses hide those behind them.

    Args:
        glimpses: colours and opacity of every glimpse, in [0, 1].
        z_pres: presence of each.
        z_depth: the smaller, the nearer.
        z_where: places, as in `place`.
        background: images behind.
        fixed_alpha: what the glimpses are taken to cover, everywhere, while `is_early`.
        is_early: whether training has just begun.
    """
    size = background.shape[1:3]
    colours, opacity = glimpses[..., :3], glimpses[..., 3:]
    maps = jnp.concatenate([colours * opacity, opacity], axis=-1) * z_pres[..., None, None, None]
    placed = place(rearrange(maps, "b k p q c -> b k p c q"), z_where, size)
    masks = placed[..., 3, :]
    # The depth of a glimpse is one number, so its importance is placed along with its opacity.
    importance = masks * jax.nn.sigmoid(-z_depth)[..., None, None]
    weights = importance / (jnp.sum(importance, axis=1, keepdims=True) + EPSILON)
    foreground = jnp.einsum("bkhw,bkhcw->bhwc", weights, placed[..., :3, :])
    alpha = jnp.sum(masks, axis=1)
    clamped = jnp.clip(alpha, EPSILON, 1.0 - EPSILON)
    alpha = alpha + lax.stop_gradient(clamped - alpha)  # the gradient goes straight through
    alpha = jnp.where(is_early, fixed_alpha, alpha)
    image = foreground + (1.0 - alpha)[..., None] * background
    return Scene(image, foreground, alpha, masks)
