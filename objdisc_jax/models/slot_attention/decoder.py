"""Spatial broadcast decoders: every slot paints the whole image and says where it is visible."""

from itertools import pairwise

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Float

from objdisc_jax.models.slot_attention.position import PositionEmbedding, coordinates
from objdisc_jax.models.slot_attention.settings import Settings
from objdisc_jax.nn.conv import ConvTranspose
from objdisc_jax.nn.mlp import MLP, activation_function, linear


class ConvBroadcastDecoder(nnx.Module):
    """Spatial broadcast decoder (Watters et al. 2019, arXiv 1901.07017) with convolutions.

    A slot is tiled over a grid, a position embedding is added, and transposed convolutions
    enlarge the grid to the image: every layer but the last has kernel 5 and an activation, the
    last has kernel 3 and gives red, green, blue and a mask logit.
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        self.settings = settings
        dtype, channels = jnp.dtype(settings.dtype), settings.decoder_channels
        self.position = PositionEmbedding(settings.slot_size, rngs=rngs)
        self.layers = nnx.List(
            ConvTranspose(n_in, n_out, 5, stride=stride, dtype=dtype, rngs=rngs)
            for (n_in, n_out), stride in zip(
                pairwise((settings.slot_size, *channels)), settings.decoder_strides, strict=True
            )
        )
        self.out = ConvTranspose(channels[-1], 4, 3, dtype=dtype, rngs=rngs)

    def decode_image(self, slots: Float[Array, "b k d"]) -> Float[Array, "b k h w 4"]:
        """Colours and mask logit of every slot at every pixel, float32."""
        height, width = self.settings.decoder_grid
        x = repeat(slots, "b k d -> (b k) h w d", h=height, w=width)
        x = self.position.add_to(x)
        act = activation_function(self.settings.activation)
        for layer in self.layers:
            x = act(layer(x))
        x = self.out(x).astype(jnp.float32)
        return rearrange(x, "(b k) h w c -> b k h w c", b=slots.shape[0])


class MLPBroadcastDecoder(nnx.Module):
    """Broadcast decoder that treats every pixel alone: an MLP on a slot and a pixel's position.

    The first layer is linear in both, so it is computed once per slot and once per pixel and
    added. Any set of pixels can be decoded, which makes training on a few of them cheap.
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        self.settings = settings
        hidden, dtype = settings.decoder_channels, jnp.dtype(settings.dtype)
        self.slot_layer = linear(
            settings.slot_size, hidden[0], init="xavier", use_bias=False, dtype=dtype, rngs=rngs
        )
        self.position = PositionEmbedding(
            hidden[0], num_frequencies=settings.num_frequencies, init="xavier", rngs=rngs
        )
        self.mlp = MLP(
            (*hidden, 4), activation=settings.activation, init="kaiming", dtype=dtype, rngs=rngs
        )

    def __call__(
        self,
        slots: Float[Array, "b k d"],
        rows: Float[Array, "#b h"],
        columns: Float[Array, "#b w"],
    ) -> Float[Array, "b k h w 4"]:
        """Colours and mask logits of slots where rows and columns, all in [0, 1], cross.

        Every image has its own, or all have the same.
        """
        hidden = self.slot_layer(slots)[:, :, None, None]
        hidden = hidden + self.position(rows, columns)[:, None].astype(hidden.dtype)
        return self.mlp(activation_function(self.settings.activation)(hidden)).astype(jnp.float32)

    def decode_image(self, slots: Float[Array, "b k d"]) -> Float[Array, "b k h w 4"]:
        """Decodes every pixel of the image."""
        rows, columns = (coordinates(side)[None] for side in self.settings.resolution)
        return self(slots, rows, columns)


def combine(
    decoded: Float[Array, "b k *n 4"],
) -> tuple[Float[Array, "b *n 3"], Float[Array, "b k *n 3"], Float[Array, "b k *n"]]:
    """Alpha-composes the slots: softmax of the mask logits over k, weighted sum of colours.

    Returns:
        The image, the colours of every slot, and the masks.
    """
    recons, masks = decoded[..., :3], jax.nn.softmax(decoded[..., 3], axis=1)
    return jnp.sum(masks[..., None] * recons, axis=1), recons, masks
