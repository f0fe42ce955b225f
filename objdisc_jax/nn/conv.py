"""Convolutions and transposed convolutions in PyTorch's conventions, NHWC."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from objdisc_jax.nn.initializers import Init, fan_in_uniform, initializers


def convolution(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c d"],
    window_strides: Sequence[int],
    padding: Any,
    **settings: Any,
) -> Float[Array, "b h2 w2 d"]:
    """`lax.conv_general_dilated`, written so that it is quick on the CPU.

    XLA is slow there on kernels as large as their stride, 1x1 ones among them, and on maps so small
    that every output sees every input: these are matrix products. Its kernel gradient costs twice
    as much an image for a batch of thirty as for one, so on a single CPU device that of large maps
    is summed over small parts of the batch. The parts are unrolled, because XLA is slow on
    convolutions inside loops, and so there are at most 32 of them.

    With "SAME" padding there must be no dilation and one group.
    """

    def plain(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(x, kernel, window_strides, padding, **settings)

    height, width = x.shape[1:3]
    side, out_features = kernel.shape[0], kernel.shape[-1]
    if padding == "SAME" and set(window_strides) == {side} and height % side == width % side == 0:
        x = rearrange(x, "b (h i) (w j) c -> b h w (i j c)", i=side, j=side)
        return x @ rearrange(kernel, "i j c d -> (i j c) d")
    if padding == "SAME" and set(window_strides) == {1} and 2 * max(height, width) <= side + 1:
        flat = rearrange(x, "b h w c -> b (h w c)") @ as_matrix(kernel, height, width)
        return rearrange(flat, "b (h w d) -> b h w d", h=height, w=width)
    single_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    if not single_cpu or height * width < 64**2 or out_features <= 8:
        return plain(x, kernel)
    return summed_by_parts(plain, x, kernel, num_parts=min(len(x), 32))


def as_matrix(kernel: Float[Array, "k k c d"], height: int, width: int) -> Float[Array, "m n"]:
    """The matrix of a convolution of small maps, padded to keep their size.

    Args:
        kernel: must reach from every pixel to every other.
        height: rows of the maps.
        width: columns of the maps.
    """
    before = (kernel.shape[0] - 1) // 2
    firsts = range(before, before - height, -1)  # of the kernel's rows, for each output's row
    rows = jnp.stack([kernel[first : first + height] for first in firsts], axis=1)
    firsts = range(before, before - width, -1)
    both = jnp.stack([rows[:, :, first : first + width] for first in firsts], axis=3)
    return rearrange(both, "i h j w c d -> (i j c) (h w d)")


def pixel_shuffle(x: Float[Array, "b h w d"], r: int) -> Float[Array, "b h2 w2 c"]:
    """`torch.nn.PixelShuffle(r)` with channels last."""
    return rearrange(x, "b h w (c dy dx) -> b (h dy) (w dx) c", dy=r, dx=r)


def summed_by_parts(
    function: Callable[[Array, Array], Array], x: Array, kernel: Array, num_parts: int
) -> Array:
    """`function(x, kernel)`, whose gradient by the kernel is computed in parts of the batch."""

    @jax.custom_vjp
    def apply(x: Array, kernel: Array) -> Array:
        return function(x, kernel)

    def forward(x: Array, kernel: Array):
        return function(x, kernel), (x, kernel)

    def backward(saved: tuple[Array, Array], gradient: Array):
        x, kernel = saved
        (to_x,) = jax.vjp(lambda x: function(x, kernel), x)[1](gradient)
        size = -(-len(x) // num_parts)
        to_kernel = jnp.zeros_like(kernel)
        for i in range(0, len(x), size):
            part = jax.vjp(partial(function, x[i : i + size]), kernel)[1]
            to_kernel += part(gradient[i : i + size])[0]
        return to_x, to_kernel

    apply.defvjp(forward, backward)
    return apply(x, kernel)


def conv(
    in_features: int,
    out_features: int,
    kernel_size: int,
    *,
    stride: int = 1,
    init: Init = "fan_in",
    use_bias: bool = True,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A square convolution, initialised as `objdisc_jax.nn.mlp.linear` is.

    Padded ("SAME") to one output per `stride` inputs, with nothing at the border left out; without
    a stride that is `kernel_size // 2` on every side.
    """
    kernel_init, bias_init = initializers(init, in_features * kernel_size**2)
    return nnx.Conv(
        in_features,
        out_features,
        (kernel_size, kernel_size),
        strides=stride,
        padding="SAME",
        use_bias=use_bias,
        conv_general_dilated=convolution,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dtype=dtype,
        rngs=rngs,
    )


class ConvTranspose(nnx.Module):
    """`torch.nn.ConvTranspose2d(k, stride, padding=k//2, output_padding=stride-1)`, odd k.

    The output is exactly `stride` times as large as the input. The kernel is stored HWIO in the
    orientation of the equivalent correlation over the zero-dilated input, that is flipped in both
    axes against PyTorch's weight.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        kernel_size: side of the kernel, odd.
        stride: enlargement.
        dtype: compute type.
        rngs: source of the initial values (PyTorch's default, whose fan-in is counted over the
            output channels here).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: got {kernel_size}; a transposed conv needs an odd one.")
        init = fan_in_uniform(out_features * kernel_size**2)
        shape = (kernel_size, kernel_size, in_features, out_features)
        self.stride = stride
        self.dtype = dtype
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(init(rngs.params(), (out_features,), jnp.float32))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Enlarges feature maps `stride` times.

        On the CPU a strided layer is computed as a sub-pixel convolution, because XLA's gradient
        of an input-dilated convolution is some fifty times slower there.
        """
        dtype = self.dtype or x.dtype
        kernel, bias, x = (a.astype(dtype) for a in (self.kernel[...], self.bias[...], x))
        use_subpixel = self.stride > 1 and jax.default_backend() == "cpu"
        place = subpixel_conv_transpose if use_subpixel else dilated_conv_transpose
        return place(x, kernel, self.stride) + bias[None, None, None]


def dilated_conv_transpose(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c d"], stride: int
) -> Float[Array, "b h2 w2 d"]:
    """Transposed convolution as a correlation over the input dilated with zeros."""
    half = kernel.shape[0] // 2
    return convolution(
        x,
        kernel,
        window_strides=(1, 1),
        padding=[(half, half + stride - 1)] * 2,
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def subpixel_conv_transpose(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c d"], stride: int
) -> Float[Array, "b h2 w2 d"]:
    """The same function as one stride-1 convolution to stride² · d channels and a shuffle.

    Output pixel `stride·m + r` reads input `m + t` with kernel row `stride·t − r + k//2`, so every
    phase r has a kernel of its own: a gather from the full one, with zeros where it has no row.
    """
    size = kernel.shape[0]
    half = size // 2
    first, last = -(half // stride), (half + stride - 1) // stride
    taps = np.arange(first, last + 1)
    rows = stride * taps[None, :] - np.arange(stride)[:, None] + half  # [phase, tap]
    rows = np.where((rows >= 0) & (rows < size), rows, size)  # `size` is a row of zeros
    padded = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    phases = padded[rows[:, :, None, None], rows[None, None, :, :]]
    phases = rearrange(phases, "ry ty rx tx c d -> ty tx c (ry rx d)")
    out = convolution(
        x,
        phases,
        window_strides=(1, 1),
        padding=[(-int(first), int(last))] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return rearrange(out, "b h w (ry rx d) -> b (h ry) (w rx) d", ry=stride, rx=stride)
