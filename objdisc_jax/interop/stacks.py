"""Stacks of the PyTorch GNM in which every layer is followed by CELU and a normalisation."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from objdisc_jax.interop.blocks import SameConv2d


def _group_norm(features: int) -> nn.GroupNorm:
    return nn.GroupNorm(1, features)


class NormedConvs(nn.Module):
    """Convolutions, each followed by CELU and a GroupNorm of one group."""

    def __init__(
        self,
        in_features: int,
        features: Sequence[int],
        kernel_sizes: Sequence[int],
        strides: Sequence[int],
    ):
        super().__init__()
        layers = [
            [SameConv2d(n_in, n_out, kernel, stride), nn.CELU(), _group_norm(n_out)]
            for (n_in, n_out), kernel, stride in zip(
                pairwise((in_features, *features)), kernel_sizes, strides, strict=True
            )
        ]
        self.conv = nn.Sequential(*(module for layer in layers for module in layer))

    def forward(self, x: Tensor) -> Tensor:
        """Applies the stack to `[b, c, h, w]`."""
        return self.conv(x)


class NormedMLP(nn.Module):
    """Linear layers, each followed by CELU and LayerNorm; the last may be left bare."""

    def __init__(self, features: Sequence[int], *, last_bare: bool = True):
        super().__init__()
        layers = [
            [nn.Linear(n_in, n_out), nn.CELU(), nn.LayerNorm(n_out)]
            for n_in, n_out in pairwise(features)
        ]
        if last_bare:
            layers[-1] = layers[-1][:1]
        self.mlp = nn.Sequential(*(module for layer in layers for module in layer))

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layers to the last axis."""
        return self.mlp(x)


class SubPixelStack(nn.Module):
    """Convolutions that enlarge by a pixel shuffle, then CELU and GroupNorm; the last is bare."""

    def __init__(
        self,
        in_features: int,
        features: Sequence[int],
        kernel_sizes: Sequence[int],
        upscales: Sequence[int],
    ):
        super().__init__()
        layers: list[list[nn.Module]] = []
        for (n_in, n_out), kernel, up in zip(
            pairwise((in_features, *features)), kernel_sizes, upscales, strict=True
        ):
            shuffle = [nn.PixelShuffle(up)] if up > 1 else []
            conv = SameConv2d(n_in, n_out * up**2, kernel, 1)
            layers.append([conv, *shuffle, nn.CELU(), _group_norm(n_out)])
        layers[-1] = layers[-1][:-2]
        self.conv = nn.Sequential(*(module for layer in layers for module in layer))

    def forward(self, x: Tensor) -> Tensor:
        """Enlarges `[b, c, h, w]`."""
        return self.conv(x)
