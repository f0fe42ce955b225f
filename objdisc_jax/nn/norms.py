"""Normalisations with PyTorch's epsilon; statistics are float32 whatever the compute type."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike


def layer_norm(
    features: int, *, dtype: DTypeLike | None = jnp.float32, rngs: nnx.Rngs
) -> nnx.LayerNorm:
    """LayerNorm; its output is float32 unless another type is asked for."""
    return nnx.LayerNorm(features, epsilon=1e-5, use_fast_variance=False, dtype=dtype, rngs=rngs)


def group_norm(features: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """GroupNorm with one group: over an example's rows, columns and channels at once."""
    return nnx.GroupNorm(
        features, num_groups=1, epsilon=1e-5, use_fast_variance=False, dtype=dtype, rngs=rngs
    )
