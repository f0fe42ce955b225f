"""Spatial broadcast decoder: every slot paints the whole image and says where it is visible."""

from itertools import pairwise

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Float

from objdisc_jax.models.slot_attention.settings import Settings
from objdisc_jax.nn.conv import ConvTranspose
from objdisc_jax.nn.mlp import activation_function
from objdisc_jax.nn.position import PositionEmbedding


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


def combine(
    decoded: Float[Array, "b k *n 4"],
) -> tuple[Float[Array, "b *n 3"], Float[Array, "b k *n 3"], Float[Array, "b k *n"]]:
    """Alpha-composes the slots: softmax of the mask logits over k, weighted sum of colours.

    Returns:
        The image, the colours of every slot, and the masks.
    """
    recons, masks = decoded[..., :3], jax.nn.softmax(decoded[..., 3], axis=1)
    return jnp.sum(masks[..., None] * recons, axis=1), recons, masks
