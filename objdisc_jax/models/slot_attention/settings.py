"""Settings of the Slot Attention auto-encoder."""

import dataclasses
import math
from typing import Literal

from objdisc_jax import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.SlotAttentionSettings):
    """By default the published 128x128 model, whose weights have no LayerNorm in the encoder."""

    encoder_channels: tuple[int, ...] = (64, 64, 64, 64)  # one entry per convolution
    encoder_kernels: tuple[int, ...] = (5, 5, 5, 5)  # sides of their kernels
    encoder_strides: tuple[int, ...] = (1, 1, 1, 1)  # their strides
    encoder_residual: bool = False  # add a convolution's input to its output where shapes agree
    encoder_norm: bool = False  # LayerNorm before the per-position MLP, as the 2020 paper has
    encoder_init: Literal["fan_in", "kaiming", "xavier"] = "fan_in"  # fan_in: PyTorch's default
    position: Literal["linear", "fourier"] = "linear"  # encoder position embedding
    num_frequencies: int = 12  # harmonics of Fourier position features, encoder and MLP decoder
    activation: Literal["leaky_relu", "relu"] = "leaky_relu"  # of encoder and decoder
    decoder: Literal["conv", "mlp"] = "conv"  # spatial broadcast, or every pixel alone
    decoder_channels: tuple[int, ...] = (64, 64, 64, 64, 64)  # one entry per layer but the last
    decoder_strides: tuple[int, ...] = (2, 2, 2, 2, 1)  # conv: enlargement of each layer
    decoder_grid: tuple[int, int] = (8, 8)  # conv: slots are tiled over it
    pixel_stride: int = 1  # mlp: decode every n-th row and column in training, at a random offset
    rematerialize: bool = False  # compute the decoder's activations again to save memory
    output: Literal["linear", "tanh"] = "linear"  # colours
    separation: Literal["none", "max", "entropy"] = "none"  # regulariser of the masks
    separation_weight: float = 0.0  # its final weight; below 0 it rewards undecided masks
    separation_ramp: tuple[int, int] = (60_000, 65_000)  # steps between which it rises from 0
    area_weight: float = 0.0  # final weight of the regulariser towards objects of one area
    area_ramp: tuple[int, int] = (60_000, 65_000)  # steps between which that rises from 0
    area_of_object: int = 81  # that area, in pixels

    def check(self) -> None:
        """Refuses layers that do not fit together, and values out of range."""
        super().check()
        self.at_least(1, "encoder_channels", "decoder_grid", "area_of_object", "pixel_stride")
        self.same_length("encoder_channels", "encoder_kernels", "encoder_strides")
        for layers in ("encoder_channels", "decoder_channels"):
            if not getattr(self, layers):
                self.refuse(layers, "there must be at least one layer")
        if self.decoder == "conv":
            self.same_length("decoder_channels", "decoder_strides")
            factor = math.prod(self.decoder_strides)
            size = (self.decoder_grid[0] * factor, self.decoder_grid[1] * factor)
            if size != self.resolution:
                self.refuse(
                    "decoder_grid",
                    f"times the product of model.decoder_strides it makes {size} pixels, but "
                    f"model.resolution is {self.resolution}; change one of the three",
                )
            if self.pixel_stride != 1:
                self.refuse("pixel_stride", "it must be 1 unless model.decoder is 'mlp'")
        self.between(1, min(self.resolution), "pixel_stride")
        if self.pixel_stride > 1 and self.area_weight:
            self.refuse("area_weight", "it counts every pixel, so model.pixel_stride must be 1")

    @classmethod
    def small(cls) -> "Settings":
        """A model of 16x16 pixels."""
        return cls(
            resolution=(16, 16),
            num_slots=3,
            slot_size=8,
            mlp_hidden_size=8,
            encoder_channels=(8, 8),
            encoder_kernels=(5, 3),
            encoder_strides=(1, 1),
            decoder_channels=(8, 8),
            decoder_strides=(2, 2),
            decoder_grid=(4, 4),
        )
