"""Spatial broadcast decoder: every slot paints the whole image and says where it is visible."""

from itertools import pairwise

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from objdisc_jax.models.iodine.settings import Settings
from objdisc_jax.nn.conv import conv
from objdisc_jax.nn.mlp import elu
from objdisc_jax.nn.position import coordinates

CONSTANT = 5.0
"""A further channel of the decoder's input, as in the official code."""


class ConvBroadcastDecoder(nnx.Module):
    """Spatial broadcast decoder (Watters et al. 2019, arXiv 1901.07017) at full resolution.

    A slot, a constant and the coordinates y and x, from −1 to 1, are tiled over the image and
    convolved, with ELU after every layer but the last.
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        self.resolution, self.dtype = settings.resolution, jnp.dtype(settings.dtype)
        sizes = (settings.slot_size + 3, *settings.decoder_channels, 4)
        self.convs = nnx.List(
            conv(
                n_in,
                n_out,
                settings.decoder_kernel,
                init="truncated",
                dtype=self.dtype,
                rngs=rngs,
            )
            for n_in, n_out in pairwise(sizes)
        )

    def decode_image(self, slots: Float[Array, "b k d"]) -> Float[Array, "b k h w 4"]:
        """Mask logit and colours of every slot at every pixel, float32."""
        x = self._first_layer(rearrange(slots, "b k d -> (b k) d"))
        for layer in self.convs[1:]:
            x = layer(elu(x))
        return rearrange(x.astype(jnp.float32), "(b k) h w c -> b k h w c", b=slots.shape[0])

    def _first_layer(self, slots: Float[Array, "n d"]) -> Float[Array, "n h w c"]:
        """The convolution of the tiled slots.

        What is the same everywhere meets the sum of the taps that lie inside the image.
        """
        first = self.convs[0]
        assert first.bias is not None
        kernel, bias, slots = (
            x.astype(self.dtype) for x in (first.kernel[...], first.bias[...], slots)
        )
        constant = jnp.pad(slots, ((0, 0), (0, 1)), constant_values=CONSTANT)
        taps = jnp.einsum("nc,ijcd->nijd", constant, kernel[:, :, :-2])
        rows, cols = (
            taps_inside(*sizes).astype(self.dtype)
            for sizes in zip(self.resolution, kernel.shape[:2], strict=True)
        )
        tiled = jnp.einsum("nhjd,wj->nhwd", jnp.einsum("nijd,hi->nhjd", taps, rows), cols)
        sides = map(coordinates, self.resolution)
        yx = 2.0 * jnp.stack(jnp.meshgrid(*sides, indexing="ij"), axis=-1)[None] - 1.0
        # In float32: bfloat16 has too few digits for positions.
        position = first.conv_general_dilated(yx, first.kernel[:, :, -2:], (1, 1), "SAME")
        return tiled + position.astype(self.dtype) + bias[None, None, None]


def taps_inside(size: int, num_taps: int) -> Float[Array, "n t"]:
    """1 where a tap of a convolution, padded to keep the size, reads a pixel and no padding."""
    read = jnp.arange(size)[:, None] + jnp.arange(num_taps)[None] - (num_taps - 1) // 2
    return jnp.float32((read >= 0) & (read < size))
