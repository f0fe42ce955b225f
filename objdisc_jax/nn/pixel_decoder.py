"""A broadcast decoder that treats every pixel alone, and the pixels that it is trained on."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from objdisc_jax.nn.mlp import MLP, activation_function, linear
from objdisc_jax.nn.position import PositionEmbedding, coordinates


class MLPBroadcastDecoder(nnx.Module):
    """Broadcast decoder that treats every pixel alone: an MLP on a slot and a pixel's position.

    The first layer is linear in both, so it is computed once per slot and once per pixel and
    added. Any set of pixels can be decoded, which makes training on a few of them cheap.

    Args:
        slot_size: size d of a slot.
        hidden: sizes of all layers but the last, which has 4 channels.
        resolution: height and width of the image.
        num_frequencies: harmonics of the Fourier position features.
        activation: name of the activation.
        dtype: compute type.
        rngs: source of the initial values.
    """

    def __init__(
        self,
        slot_size: int,
        hidden: Sequence[int],
        *,
        resolution: tuple[int, int],
        num_frequencies: int,
        activation: str,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        self.resolution, self.activation = resolution, activation
        self.slot_layer = linear(
            slot_size, hidden[0], init="xavier", use_bias=False, dtype=dtype, rngs=rngs
        )
        self.position = PositionEmbedding(
            hidden[0], num_frequencies=num_frequencies, init="xavier", rngs=rngs
        )
        self.mlp = MLP((*hidden, 4), activation=activation, init="kaiming", dtype=dtype, rngs=rngs)

    def __call__(
        self, slots: Float[Array, "b k d"], yx: Float[Array, "#b n 2"]
    ) -> Float[Array, "b k n 4"]:
        """What slots paint at positions in [0, 1], every image's own or common, float32."""
        hidden = self.slot_layer(slots)[:, :, None]
        hidden = hidden + self.position(yx)[:, None].astype(hidden.dtype)
        return self.mlp(activation_function(self.activation)(hidden)).astype(jnp.float32)

    def decode_image(self, slots: Float[Array, "b k d"]) -> Float[Array, "b k h w 4"]:
        """Decodes every pixel of the image."""
        height, width = self.resolution
        yx = rearrange(coordinates(height, width), "h w c -> 1 (h w) c")
        return rearrange(self(slots, yx), "b k (h w) c -> b k h w c", h=height)


def pixel_offsets(
    key: Array, batch_size: int, resolution: tuple[int, int], stride: int
) -> Int[Array, "b 2"]:
    """First row and column of every `stride`-th pixel, drawn so that all pixels are reached."""
    spans = jnp.asarray([[side - stride * (side // stride - 1) for side in resolution]])
    return jax.random.randint(key, (batch_size, 2), 0, spans)


def select_pixels(
    image: Float[Array, "b h w 3"], offset: Int[Array, "b 2"], stride: int
) -> tuple[Float[Array, "b m n 3"], Float[Array, "b m n 2"]]:
    """Every `stride`-th row and column of images, and their positions in [0, 1].

    Args:
        image: the images.
        offset: first row and column of each, from `pixel_offsets`.
        stride: pixels from one to the next.
    """
    height, width = image.shape[1:3]
    rows, cols = (
        offset[:, axis, None] + stride * jnp.arange(side // stride)[None]
        for axis, side in enumerate((height, width))
    )
    batch = jnp.arange(image.shape[0])[:, None, None]
    rows, cols = rows[:, :, None], cols[:, None, :]
    yx = jnp.stack(jnp.broadcast_arrays(rows / (height - 1), cols / (width - 1)), axis=-1)
    return image[batch, rows, cols], yx
