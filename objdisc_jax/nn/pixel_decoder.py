"""A broadcast decoder that treats every pixel alone, and the pixels that it is trained on."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
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
        self,
        slots: Float[Array, "b k d"],
        rows: Float[Array, "#b h"],
        columns: Float[Array, "#b w"],
    ) -> Float[Array, "b k h w 4"]:
        """What slots paint where rows and columns, all in [0, 1], cross; float32.

        Every image has its own, or all have the same.
        """
        hidden = self.slot_layer(slots)[:, :, None, None]
        hidden = hidden + self.position(rows, columns)[:, None].astype(hidden.dtype)
        return self.mlp(activation_function(self.activation)(hidden)).astype(jnp.float32)

    def decode_image(self, slots: Float[Array, "b k d"]) -> Float[Array, "b k h w 4"]:
        """Decodes every pixel of the image."""
        rows, columns = (coordinates(side)[None] for side in self.resolution)
        return self(slots, rows, columns)


def pixel_offsets(key: Array, batch_size: int, resolution: tuple[int, int]) -> Int[Array, "b 2"]:
    """A row and a column to start a `lattice` at, each as likely as any other."""
    return jax.random.randint(key, (batch_size, 2), 0, jnp.asarray([resolution]))


def lattice(
    offset: Int[Array, "b 2"], resolution: tuple[int, int], stride: int
) -> tuple[Int[Array, "b m"], Int[Array, "b n"]]:
    """Every `stride`-th row and column from an offset on, in ascending order.

    After the last the first ones follow, so that over all offsets every pixel is met as often as
    any other: what is summed over a lattice is, but for a factor, that over the image on average.
    """
    rows, columns = (
        jnp.sort((offset[:, axis, None] + stride * jnp.arange(side // stride)[None]) % side)
        for axis, side in enumerate(resolution)
    )
    return rows, columns


def select_pixels(
    image: Float[Array, "b h w 3"], offset: Int[Array, "b 2"], stride: int
) -> tuple[Float[Array, "b m n 3"], Float[Array, "b m"], Float[Array, "b n"]]:
    """A `lattice` of images, and where its rows and columns are, in [0, 1].

    Args:
        image: the images.
        offset: a row and a column of each, from `pixel_offsets`.
        stride: pixels from one to the next.
    """
    sides = (image.shape[1], image.shape[2])
    rows, cols = lattice(offset, sides, stride)
    pixels = jax.vmap(lambda image, rows, cols: image[rows[:, None], cols[None]])(image, rows, cols)
    return pixels, rows / (sides[0] - 1), cols / (sides[1] - 1)
