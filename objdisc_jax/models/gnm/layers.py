"""Stacks in which every layer is followed by CELU and a normalisation (Jiang & Ahn 2020).

Initial values are those of PyTorch; `dtype` is the compute type.
"""

from collections.abc import Sequence
from itertools import pairwise

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from objdisc_jax.nn.conv import conv, pixel_shuffle
from objdisc_jax.nn.mlp import elu, linear
from objdisc_jax.nn.norms import group_norm, layer_norm


class NormedConvs(nnx.Module):
    """Convolutions, each followed by CELU and GroupNorm; one output per `stride` inputs."""

    def __init__(
        self,
        in_features: int,
        features: Sequence[int],
        kernel_sizes: Sequence[int],
        strides: Sequence[int],
        *,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        sizes = pairwise((in_features, *features))
        self.layers = nnx.List(
            conv(n_in, n_out, kernel_size, stride=stride, dtype=dtype, rngs=rngs)
            for (n_in, n_out), kernel_size, stride in zip(sizes, kernel_sizes, strides, strict=True)
        )
        self.norms = nnx.List(group_norm(size, dtype=dtype, rngs=rngs) for size in features)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Applies the stack to feature maps."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(elu(layer(x)))
        return x


class NormedMLP(nnx.Module):
    """Linear layers, each followed by CELU and LayerNorm; with `last_bare`, not the last."""

    def __init__(
        self,
        features: Sequence[int],
        *,
        last_bare: bool = True,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.layers = nnx.List(
            linear(n_in, n_out, dtype=dtype, rngs=rngs) for n_in, n_out in pairwise(features)
        )
        normed = features[1:-1] if last_bare else features[1:]
        self.norms = nnx.List(layer_norm(size, dtype=dtype, rngs=rngs) for size in normed)

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b d"]:
        """Applies the layers to the last axis."""
        for layer, norm in zip(self.layers, self.norms, strict=False):
            x = norm(elu(layer(x)))
        return self.layers[-1](x) if len(self.layers) > len(self.norms) else x


class SubPixelStack(nnx.Module):
    """Sub-pixel convolutions: each enlarges by a shuffle of its channels, then CELU and GroupNorm.

    The last layer has neither. A layer's kernel has its output channels in the order of PyTorch's
    `PixelShuffle`: (channel, row, column). `features` are the channels after the shuffle, and an
    enlargement of 1 is a plain convolution.
    """

    def __init__(
        self,
        in_features: int,
        features: Sequence[int],
        kernel_sizes: Sequence[int],
        upscales: Sequence[int],
        *,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        sizes = pairwise((in_features, *features))
        self.upscales = tuple(upscales)
        self.layers = nnx.List(
            conv(n_in, n_out * up**2, kernel_size, dtype=dtype, rngs=rngs)
            for (n_in, n_out), kernel_size, up in zip(sizes, kernel_sizes, upscales, strict=True)
        )
        self.norms = nnx.List(group_norm(size, dtype=dtype, rngs=rngs) for size in features[:-1])

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Enlarges feature maps."""
        last = len(self.norms)
        for i, (layer, up) in enumerate(zip(self.layers, self.upscales, strict=True)):
            x = pixel_shuffle(layer(x), up)
            if i < last:
                x = self.norms[i](elu(x))
        return x
