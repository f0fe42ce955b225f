"""Spatial broadcast decoders: every slot paints the whole image and says where it is visible."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from objdisc_jax.nn.conv import ConvTranspose
from objdisc_jax.nn.mlp import MLP, activation_function, linear
from objdisc_jax.models.slot_attention.position import PositionEmbedding, coordinates


class ConvBroadcastDecoder(nnx.Module):
    """Spatial broadcast decoder (Watters et al. 2019, arXiv 1901.07017) with convolutions.

    A slot is tiled over a grid, a position embedding is added, and transposed convolutions
    enlarge the grid to the image: every layer but the last has kernel 5 and an activation, the
    last has kernel 3 and gives red, green, blue and a mask logit.

    Args:
        slot_size: size d of a slot.
        grid: height and width of the grid that a slot is tiled over.
        features: channels of the layers before the last.
        strides: their enlargements; the output is `grid · prod(strides)`.
        activation: name of the activation.
        dtype: compute type.
        rngs: source of the initial values.

    Raises:
        ValueError: `features` and `strides` differ in length.
    """

    def __init__(
        self,
        slot_size: int,
        *,
        grid: tuple[int, int],
        features: Sequence[int],
        strides: Sequence[int],
        activation: str = "leaky_relu",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        if len(features) != len(strides):
            raise ValueError(
                f"decoder_channels {tuple(features)} and decoder_strides {tuple(strides)} must "
                "have the same length: one entry a layer."
            )
        self.grid = grid
        self.activation = activation
        self.position = PositionEmbedding(slot_size, rngs=rngs)
        self.layers = nnx.List(
            ConvTranspose(n_in, n_out, 5, stride=stride, dtype=dtype, rngs=rngs)
            for n_in, n_out, stride in zip(
                [slot_size, *features[:-1]], features, strides, strict=True
            )
        )
        self.out = ConvTranspose(features[-1], 4, 3, dtype=dtype, rngs=rngs)
        self.output_size = (grid[0] * math.prod(strides), grid[1] * math.prod(strides))

    def decode_image(
        self, slots: Float[Array, "b k d"], size: tuple[int, int]
    ) -> Float[Array, "b k h w 4"]:
        """Colours and mask logit of every slot at every pixel, float32.

        Raises:
            ValueError: the decoder's output doesn't have that height and width.
        """
        if size != self.output_size:
            raise ValueError(
                f"The decoder gives {self.output_size} pixels (grid times the product of its "
                f"strides), but the image has {size}."
            )
        height, width = self.grid
        x = repeat(slots, "b k d -> (b k) h w d", h=height, w=width)
        x = self.position.add_to(x)
        act = activation_function(self.activation)
        for layer in self.layers:
            x = act(layer(x))
        x = self.out(x).astype(jnp.float32)
        return rearrange(x, "(b k) h w c -> b k h w c", b=slots.shape[0])


class MLPBroadcastDecoder(nnx.Module):
    """Broadcast decoder that treats every pixel alone: an MLP on a slot and a pixel's position.

    The first layer is linear in both, so it is computed once per slot and once per pixel and
    added. Any set of pixels can be decoded, which makes training on a few of them cheap.

    Args:
        slot_size: size d of a slot.
        hidden: width of every hidden layer, at least one.
        num_frequencies: harmonics of the Fourier position features; 0 for coordinates alone.
        activation: name of the activation.
        dtype: compute type.
        rngs: source of the initial values.
    """

    def __init__(
        self,
        slot_size: int,
        *,
        hidden: Sequence[int],
        num_frequencies: int,
        activation: str = "relu",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        if not hidden:
            raise ValueError("decoder_channels: an MLP decoder needs at least one hidden layer.")
        self.activation = activation
        self.slot_layer = linear(
            slot_size, hidden[0], init="xavier", use_bias=False, dtype=dtype, rngs=rngs
        )
        self.position = PositionEmbedding(
            hidden[0],
            kind="fourier" if num_frequencies else "linear",
            num_frequencies=num_frequencies,
            init="xavier",
            rngs=rngs,
        )
        self.mlp = MLP((*hidden, 4), activation=activation, init="kaiming", dtype=dtype, rngs=rngs)

    def __call__(
        self, slots: Float[Array, "b k d"], yx: Float[Array, "#b n 2"]
    ) -> Float[Array, "b k n 4"]:
        """Colours and mask logit of every slot at positions in [0, 1], float32.

        Args:
            slots: the slots.
            yx: positions, for every image its own or one set for all.
        """
        hidden = self.slot_layer(slots)[:, :, None]
        hidden = hidden + self.position(yx)[:, None].astype(hidden.dtype)
        return self.mlp(activation_function(self.activation)(hidden)).astype(jnp.float32)

    def decode_image(
        self, slots: Float[Array, "b k d"], size: tuple[int, int]
    ) -> Float[Array, "b k h w 4"]:
        """Decodes every pixel of an image of the given height and width."""
        yx = rearrange(coordinates(*size), "h w c -> 1 (h w) c")
        return rearrange(self(slots, yx), "b k (h w) c -> b k h w c", h=size[0])


def combine(
    decoded: Float[Array, "b k *n 4"],
) -> tuple[Float[Array, "b *n 3"], Float[Array, "b k *n 3"], Float[Array, "b k *n"]]:
    """Alpha-composes the slots: softmax of the mask logits over k, weighted sum of colours.

    Returns:
        The image, the colours of every slot, and the masks.
    """
    recons, masks = decoded[..., :3], jax.nn.softmax(decoded[..., 3], axis=1)
    return jnp.sum(masks[..., None] * recons, axis=1), recons, masks
