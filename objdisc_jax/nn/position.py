"""Where a feature sits in the image: coordinate grids and what is added for them."""

import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from objdisc_jax.nn.initializers import Init
from objdisc_jax.nn.mlp import linear


def coordinates(height: int, width: int) -> Float[Array, "h w 2"]:
    """Row and column of every cell, each from 0 to 1 inclusive."""
    rows = jnp.linspace(0.0, 1.0, height)
    cols = jnp.linspace(0.0, 1.0, width)
    return jnp.stack(jnp.meshgrid(rows, cols, indexing="ij"), axis=-1)


def linear_features(yx: Float[Array, "*n 2"]) -> Float[Array, "*n 4"]:
    """(y, x, 1 − y, 1 − x): the grid of Slot Attention's position embedding."""
    return jnp.concatenate([yx, 1.0 - yx], axis=-1)


def fourier_features(yx: Float[Array, "*n 2"], num_frequencies: int) -> Float[Array, "*n f"]:
    """sin(πkt) and cos(πkt) of both coordinates t for k = 1 ... num_frequencies.

    Harmonics rather than the octaves of NeRF: on an image of n pixels the first n of them can
    describe any edge, and the highest still has several pixels a wave. f = 4·num_frequencies.
    """
    frequencies = math.pi * jnp.arange(1, num_frequencies + 1)
    angles = yx[..., None] * jnp.expand_dims(frequencies, range(yx.ndim))
    waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return waves.reshape(*yx.shape[:-1], 4 * num_frequencies)


class PositionEmbedding(nnx.Module):
    """A learned linear map of position features, to be added to `features` channels.

    Always computed in float32: in bfloat16 neighbouring pixels of a large image are one position.
    Without frequencies (y, x, 1 − y, 1 − x) is mapped, as in the published models; with some, that
    and so many harmonics, which tell neighbouring pixels apart much better.
    """

    def __init__(
        self,
        features: int,
        *,
        num_frequencies: int = 0,
        init: Init = "fan_in",
        rngs: nnx.Rngs,
    ):
        self.num_frequencies = num_frequencies
        self.dense = linear(4 + 4 * num_frequencies, features, init=init, rngs=rngs)

    def __call__(self, yx: Float[Array, "*n 2"]) -> Float[Array, "*n c"]:
        """The embedding of coordinates in [0, 1]."""
        inputs = linear_features(yx)
        if self.num_frequencies:
            waves = fourier_features(yx, self.num_frequencies)
            inputs = jnp.concatenate([inputs, waves], axis=-1)
        return self.dense(inputs)

    def add_to(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Adds the embedding of the full grid to a feature map."""
        embedded = self(coordinates(*x.shape[-3:-1])).astype(x.dtype)
        return x + jnp.expand_dims(embedded, range(x.ndim - 3))
