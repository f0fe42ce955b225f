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
    """A rendered scene of k glimpses, float32."""

    image: Float[Array, "b h w 3"]  # foreground over background
    foreground: Float[Array, "b h w 3"]  # the glimpses alone, on black
    background: Float[Array, "b h w 3"]  # what is behind them
    alpha: Float[Array, "b h w"]  # what the glimpses cover, in [0, 1]
    masks: Float[Array, "b k h w"]  # where every glimpse is; they may overlap


def pixel_centres(size: int) -> Float[Array, "n"]:
    """Where pixel centres lie in an image that reaches from −1 to 1."""
    return (2.0 * jnp.arange(size) + 1.0) / size - 1.0


def tent_weights(
    scale: Float[Array, "b"], shift: Float[Array, "b"], size: int, glimpse_size: int
) -> Float[Array, "b n m"]:
    """Bilinear weights along one axis: how much pixel n of the image reads pixel m of a glimpse.

    The glimpse has `scale` of the image's size and its centre at `shift`, the image from −1 to 1.
    """
    source = (pixel_centres(size)[None] - shift[:, None]) / (scale[:, None] + EPSILON)
    position = 0.5 * ((source + 1.0) * glimpse_size - 1.0)
    distance = jnp.abs(position[..., None] - jnp.arange(glimpse_size)[None, None])
    return jnp.maximum(1.0 - distance, 0.0)


@jax.custom_vjp
def resample(
    maps: Float[Array, "b p c q"], rows: Float[Array, "b h p"], columns: Float[Array, "b w q"]
) -> Float[Array, "b h c w"]:
    """The products rows · maps · columnsᵀ of every channel.

    The gradient is written out because the derived one transposes its largest operands first.
    """
    return _resample(maps, rows, columns)[0]


def _resample(maps: Array, rows: Array, columns: Array) -> tuple[Array, Array]:
    """Also what lies between the products, `[b, p, c w]`."""
    batch, _, channels, _ = maps.shape
    wide = jnp.einsum("bnq,bwq->bnw", rearrange(maps, "b p c q -> b (p c) q"), columns)
    wide = rearrange(wide, "b (p c) w -> b p (c w)", c=channels)
    out = jnp.einsum("bhp,bpn->bhn", rows, wide)
    return out.reshape(batch, rows.shape[1], channels, columns.shape[1]), wide


def _resample_forward(maps: Array, rows: Array, columns: Array):
    return resample(maps, rows, columns), (maps, rows, columns)


def _resample_backward(saved: tuple[Array, Array, Array], gradient: Array):
    maps, rows, columns = saved
    channels = maps.shape[2]
    wide = _resample(maps, rows, columns)[1]
    gradient = rearrange(gradient, "b h c w -> b h (c w)")
    d_rows = jnp.einsum("bhn,bpn->bhp", gradient, wide)
    d_wide = jnp.einsum("bhp,bhn->bpn", rows, gradient)
    d_wide = rearrange(d_wide, "b p (c w) -> b (p c) w", c=channels)
    d_maps = jnp.einsum("bnw,bwq->bnq", d_wide, columns)
    flat = rearrange(maps, "b p c q -> b (p c) q")
    d_columns = jnp.einsum("bnw,bnq->bwq", d_wide, flat)
    return d_maps.reshape(maps.shape), d_rows, d_columns


resample.defvjp(_resample_forward, _resample_backward)


def place(
    maps: Float[Array, "b p c q"], z_where: Float[Array, "b 4"], size: tuple[int, int]
) -> Float[Array, "b h c w"]:
    """Places glimpses of p rows, c channels and q columns in images of a size.

    `z_where` is (scale x, scale y, shift x, shift y) of each.
    """
    scale_x, scale_y, shift_x, shift_y = jnp.moveaxis(z_where, -1, 0)
    rows = tent_weights(scale_y, shift_y, size[0], maps.shape[1])
    columns = tent_weights(scale_x, shift_x, size[1], maps.shape[3])
    return resample(maps, rows, columns)


class Blend(NamedTuple):
    """What is summed over glimpses to render them."""

    colours: Float[Array, "b h 3 w"]  # of each, premultiplied, times its importance
    importance: Float[Array, "b h w"]
    alpha: Float[Array, "b h w"]


def blend(
    glimpses: Float[Array, "k b p 4 q"],
    z_pres: Float[Array, "b k"],
    importance: Float[Array, "b k"],
    z_where: Float[Array, "b k 4"],
    size: tuple[int, int],
) -> Blend:
    """Places glimpses and sums them up, one after the other: no map of all is ever in memory.

    Presence is a factor of a glimpse's opacity, `importance` its weight where it is opaque. The
    backward pass places them once more instead of keeping them, which is quicker too, since a
    glimpse stays in the cache meanwhile.
    """

    @jax.checkpoint
    def contribution(glimpse: Array, pres: Array, importance: Array, where: Array) -> Blend:
        opacity = glimpse[:, :, 3:] * pres[:, None, None, None]
        maps = jnp.concatenate([glimpse[:, :, :3] * opacity, opacity], axis=2)
        placed = place(maps, where, size)
        alpha = placed[:, :, 3]
        weights = alpha * importance[:, None, None]
        return Blend(weights[:, :, None] * placed[:, :, :3], weights, alpha)

    def add(total: Blend, glimpse: tuple[Array, ...]):
        return jax.tree.map(jnp.add, total, contribution(*glimpse)), None

    by_cell = (glimpses, z_pres.T, importance.T, jnp.moveaxis(z_where, 1, 0))
    batch, (height, width) = len(z_pres), size
    black = jnp.zeros((batch, height, 3, width))
    total, _ = lax.scan(add, Blend(black, black[:, :, 0], black[:, :, 0]), by_cell)
    return total


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

    Colours and opacity of glimpses are in [0, 1]; the smaller `z_depth`, the nearer. While training
    `is_early`, glimpses are taken to cover `fixed_alpha` everywhere.
    """
    size = (background.shape[1], background.shape[2])
    glimpses = rearrange(glimpses, "b k p q c -> k b p c q")
    total = blend(glimpses, z_pres, jax.nn.sigmoid(-z_depth), z_where, size)
    # The mean of colours by importance: the sum is divided once, not every glimpse's weight.
    foreground = total.colours / (total.importance + EPSILON)[:, :, None]
    foreground = rearrange(foreground, "b h c w -> b h w c")
    clamped = jnp.clip(total.alpha, EPSILON, 1.0 - EPSILON)
    # The gradient goes straight through the clamp.
    alpha = total.alpha + lax.stop_gradient(clamped - total.alpha)
    alpha = jnp.where(is_early, fixed_alpha, alpha)
    image = foreground + (1.0 - alpha)[..., None] * background
    opacity = glimpses[..., 3:, :] * z_pres.T[..., None, None, None]
    masks = jax.vmap(place, in_axes=(0, 1, None), out_axes=1)(opacity, z_where, size)
    return Scene(image, foreground, background, alpha, masks[:, :, :, 0])
