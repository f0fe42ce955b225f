"""Normalisations with PyTorch's epsilon; statistics are float32 whatever the compute type."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

EPSILON = 1e-5


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(
    x: Float[Array, "*n c"], scale: Float[Array, "c"], bias: Float[Array, "c"], num_axes: int
) -> Float[Array, "*n c"]:
    """Brings the last axes to mean 0 and variance 1, then scales and shifts every channel; float32.

    The derivative is written out: it passes twice over the maps. XLA's own sums them up for every
    mean, and for scale and bias again.

    Args:
        x: vectors, or feature maps.
        scale: factor of every channel.
        bias: what is added to every channel.
        num_axes: how many axes, the channels among them, share mean and variance.
    """
    return _forward(x, scale, bias, num_axes)[0]


def _forward(x: Array, scale: Array, bias: Array, num_axes: int):
    axes = tuple(range(-num_axes, 0))
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axes, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean((wide - mean) ** 2, axes, keepdims=True) + EPSILON)
    scale, bias = (jnp.expand_dims(a, range(x.ndim - 1)) for a in (scale, bias))
    return (wide - mean) * inverse * scale + bias, (x, mean, inverse, scale)


def _backward(num_axes: int, saved: tuple[Array, ...], gradient: Array):
    x, mean, inverse, scale = saved
    normed = (x.astype(jnp.float32) - mean) * inverse
    pixels = tuple(range(-num_axes, -1))
    sums = [jnp.sum(g, pixels, keepdims=True) for g in (gradient, gradient * normed)]
    count = math.prod(x.shape[-num_axes:])
    by_mean, by_deviation = (jnp.sum(s * scale, -1, keepdims=True) / count for s in sums)
    to_x = inverse * (gradient * scale - by_mean - normed * by_deviation)
    to_bias, to_scale = (jnp.sum(s, tuple(range(x.ndim - 1))) for s in sums)
    return to_x.astype(x.dtype), to_scale, to_bias


normalize.defvjp(_forward, _backward)


class _Norm(nnx.LayerNorm):
    def __init__(self, features: int, num_axes: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs):
        super().__init__(features, dtype=dtype, rngs=rngs)
        self.num_axes = num_axes

    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert self.scale is not None
        assert self.bias is not None
        normed: Array = normalize(x, self.scale[...], self.bias[...], self.num_axes)
        return normed.astype(self.dtype or normed.dtype)


def layer_norm(
    features: int, *, dtype: DTypeLike | None = jnp.float32, rngs: nnx.Rngs
) -> nnx.LayerNorm:
    """LayerNorm; its output is float32 unless another type is asked for."""
    return _Norm(features, 1, dtype=dtype, rngs=rngs)


def group_norm(features: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """GroupNorm with one group: over an example's rows, columns and channels at once."""
    return _Norm(features, 3, dtype=dtype, rngs=rngs)
