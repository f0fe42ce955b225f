"""Where a feature sits in the image: what is added for its row and its column."""

import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from objdisc_jax.nn.initializers import Init
from objdisc_jax.nn.mlp import linear


def coordinates(length: int) -> Float[Array, "n"]:
    """Where rows, or columns, are: from 0 to 1 inclusive."""
    return jnp.linspace(0.0, 1.0, length)


def harmonics(t: Float[Array, "*n"], num_frequencies: int) -> Float[Array, "*n f"]:
    """sin(πkt) and cos(πkt) for k = 1 ... num_frequencies, all sines first.

    Harmonics rather than the octaves of NeRF: on an image of n pixels the first n of them can
    describe any edge, and the highest still has several pixels a wave.
    """
    frequencies = math.pi * jnp.arange(1, num_frequencies + 1)
    angles = t[..., None] * jnp.expand_dims(frequencies, range(t.ndim))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class PositionEmbedding(nnx.Module):
    """A learned linear map of position features, to be added to `features` channels.

    Always computed in float32: in bfloat16 neighbouring pixels of a large image are one position.
    Without frequencies (y, x, 1 − y, 1 − x) is mapped, as in the published models; with some, that
    and so many harmonics of y and of x, which tell neighbouring pixels apart much better. Every
    feature is one of y or one of x, so rows and columns are mapped apart, and then added.
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

    def __call__(
        self, rows: Float[Array, "*b h"], columns: Float[Array, "*b w"]
    ) -> Float[Array, "*b h w c"]:
        """The embedding of all pairs of rows and columns, both in [0, 1]."""
        kernel, bias = self.dense.kernel[...], self.dense.bias
        assert bias is not None
        waves = kernel[4:].reshape(2, 2 * self.num_frequencies, kernel.shape[1])
        y, x = (
            self.features(t) @ jnp.concatenate([kernel[axis:4:2], waves[axis]])
            for axis, t in enumerate((rows, columns))
        )
        y += jnp.expand_dims(bias[...], range(y.ndim - 1))
        return y[..., :, None, :] + x[..., None, :, :]

    def features(self, t: Float[Array, "*n"]) -> Float[Array, "*n f"]:
        """t, 1 − t, and the harmonics of a coordinate."""
        linear = jnp.stack([t, 1.0 - t], axis=-1)
        return jnp.concatenate([linear, harmonics(t, self.num_frequencies)], axis=-1)

    def add_to(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Adds the embedding of the full grid to a feature map."""
        embedded = self(*map(coordinates, x.shape[-3:-1])).astype(x.dtype)
        return x + jnp.expand_dims(embedded, range(x.ndim - 3))
