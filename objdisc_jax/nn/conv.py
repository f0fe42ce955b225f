"""Convolutions and transposed convolutions in PyTorch's conventions, NHWC.

`conv2d` and `conv_transpose2d` are each other's transposes, and have the derivatives written out:
all that is ever computed are a plain convolution, its transpose, and the gradient by the kernel.
On a GPU these three are what cuDNN has routines for. XLA, differentiating a transposed convolution
by itself, finds none of them: it convolves copies filled with zeros, by kernels as large as maps.
On the CPU the transpose and the kernel's gradient are plain convolutions, which `compiling.jit` has
Eigen compute.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from objdisc_jax.nn.initializers import Init, fan_in_uniform, initializers

Padding = tuple[tuple[int, int], tuple[int, int]]  # pixels above, below; left, right


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(
    x: Float[Array, "b h w c"], kernel: Float[Array, "m n c d"], stride: int, padding: Padding
) -> Float[Array, "b h2 w2 d"]:
    """A convolution, as the networks' literature calls a correlation.

    Args:
        x: feature maps.
        kernel: of m times n pixels.
        stride: pixels of the input from one output to the next.
        padding: zeros around the input; negative numbers cut pixels off.
    """
    return _convolved(x, kernel, stride, padding)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_transpose2d(
    x: Float[Array, "b h w d"],
    kernel: Float[Array, "m n c d"],
    stride: int,
    padding: Padding,
    size: tuple[int, int],
) -> Float[Array, "b h2 w2 c"]:
    """The transpose of `conv2d` of maps of a size, as a linear function: what it takes d to c.

    Args:
        x: feature maps.
        kernel: of the convolution, so its first channels are those of the output.
        stride: of the convolution, and so how many times the output is larger.
        padding: of the convolution.
        size: height and width of the output.
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_conv_transpose_by_phases, stride=stride, padding=padding, size=size),
        default=partial(_conv_transpose, stride=stride, padding=padding, size=size),
    )


def _conv2d_forward(x: Array, kernel: Array, stride: int, padding: Padding):
    return conv2d(x, kernel, stride, padding), (x, kernel)


def _conv2d_backward(stride: int, padding: Padding, saved: tuple[Array, Array], gradient: Array):
    x, kernel = saved
    to_x = conv_transpose2d(gradient, kernel, stride, padding, x.shape[1:3])
    return to_x, kernel_gradient(x, gradient, kernel.shape[:2], stride, padding)


def _conv_transpose2d_forward(
    x: Array, kernel: Array, stride: int, padding: Padding, size: tuple[int, int]
):
    return conv_transpose2d(x, kernel, stride, padding, size), (x, kernel)


def _conv_transpose2d_backward(
    stride: int,
    padding: Padding,
    size: tuple[int, int],
    saved: tuple[Array, Array],
    gradient: Array,
):
    del size
    x, kernel = saved
    to_x = conv2d(gradient, kernel, stride, padding)
    return to_x, kernel_gradient(gradient, x, kernel.shape[:2], stride, padding)


conv2d.defvjp(_conv2d_forward, _conv2d_backward)
conv_transpose2d.defvjp(_conv_transpose2d_forward, _conv_transpose2d_backward)


def kernel_gradient(
    x: Float[Array, "b h w c"],
    gradient: Float[Array, "b h2 w2 d"],
    kernel_size: tuple[int, ...],
    stride: int,
    padding: Padding,
) -> Float[Array, "m n c d"]:
    """The gradient of `conv2d` by its kernel.

    Args:
        x: its input.
        gradient: by its output.
        kernel_size: height and width of the kernel.
        stride: its stride.
        padding: its padding.
    """
    settings = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
    return lax.platform_dependent(
        x,
        gradient,
        cpu=partial(_kernel_gradient_by_eigen, **settings),
        default=partial(_kernel_gradient, **settings),
    )


def _convolved(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _transposed(linear: Callable[[Array], Array], shape: tuple[int, ...], y: Array) -> Array:
    """The transpose of a linear function of arrays of a shape, as XLA has it: on a GPU cuDNN's."""
    return jax.linear_transpose(linear, jax.ShapeDtypeStruct(shape, y.dtype))(y)[0]


def _conv_transpose(
    x: Array, kernel: Array, *, stride: int, padding: Padding, size: tuple[int, int]
) -> Array:
    shape = (len(x), *size, kernel.shape[2])
    return _transposed(lambda y: _convolved(y, kernel, stride, padding), shape, x)


def _conv_transpose_by_phases(
    x: Array, kernel: Array, *, stride: int, padding: Padding, size: tuple[int, int]
) -> Array:
    """A plain convolution for the outputs of each phase, their positions modulo the stride.

    With a stride XLA convolves a copy filled with zeros, and multiplies by them.
    """
    short = [(0, max(stride - taps, 0)) for taps in kernel.shape[:2]]  # a tap for every phase
    kernel = jnp.pad(kernel, (*short, (0, 0), (0, 0)))

    def phases(axis: int) -> list[tuple[slice, tuple[int, int]]]:
        """Taps that reach the outputs of each phase along an axis, and the padding for them.

        Output stride·m + phase gets input m + base − n by tap stride·n + first.
        """
        found = []
        for phase in range(stride):
            base, first = divmod(phase + padding[axis][0], stride)
            num_taps = len(range(first, kernel.shape[axis], stride))
            num_outputs, before = -(-size[axis] // stride), num_taps - 1 - base
            after = num_outputs + num_taps - 1 - x.shape[1 + axis] - before
            found.append((slice(first, None, stride), (before, after)))
        return found

    def outputs(row: tuple[slice, Any], column: tuple[slice, Any]) -> Array:
        (rows, above_below), (columns, left_right) = row, column
        taps = kernel[rows, columns][::-1, ::-1].swapaxes(2, 3)
        return _convolved(x, taps, 1, (above_below, left_right))

    found = [jnp.stack([outputs(r, c) for c in phases(1)], axis=3) for r in phases(0)]
    found = rearrange(jnp.stack(found, axis=2), "b h i w j c -> b (h i) (w j) c")
    return found[:, : size[0], : size[1]]


def _kernel_gradient(
    x: Array, gradient: Array, *, kernel_size: tuple[int, ...], stride: int, padding: Padding
) -> Array:
    shape = (*kernel_size, x.shape[-1], gradient.shape[-1])
    return _transposed(lambda kernel: _convolved(x, kernel, stride, padding), shape, gradient)


def _kernel_gradient_by_eigen(
    x: Array, gradient: Array, *, kernel_size: tuple[int, ...], stride: int, padding: Padding
) -> Array:
    """The same as a plain convolution, whose images are channels and whose channels are images.

    The axes are in Eigen's order. XLA puts them into it outside loops only, and inside one takes a
    routine that is a hundred times as slow. From few channels to many is up to three times as quick
    as from many to few: without a stride the two maps change places where that helps.
    """
    if stride == 1 and x.shape[-1] > gradient.shape[-1]:
        (top, _), (left, _) = padding
        rows, columns = kernel_size
        padding = ((rows - 1 - top, 0), (columns - 1 - left, 0))
        swapped = _kernel_gradient_by_eigen(
            gradient, x, kernel_size=kernel_size, stride=1, padding=padding
        )
        return swapped[::-1, ::-1].swapaxes(2, 3)
    found = lax.conv_general_dilated(
        rearrange(x, "b h w c -> c h w b"),
        rearrange(gradient, "b h w d -> h w b d"),
        (1, 1),
        [
            (low, taps + stride * (outputs - 1) - inputs - low)
            for taps, outputs, inputs, (low, _) in zip(
                kernel_size, gradient.shape[1:3], x.shape[1:3], padding, strict=True
            )
        ],
        rhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return rearrange(found, "c m n d -> m n c d")


def convolution(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c d"],
    window_strides: Sequence[int],
    padding: Any,
    **settings: Any,
) -> Float[Array, "b h2 w2 d"]:
    """`conv2d` as `nnx.Conv` calls it, or a matrix product where that is quicker.

    Kernels as large as their stride, 1x1 ones among them, are matrix products, and so are maps so
    small that every output sees every input.

    Raises:
        ValueError: there is dilation, or more than one group.
    """
    dilation = {*settings.get("lhs_dilation", ()), *settings.get("rhs_dilation", ())}
    if dilation - {1} or settings.get("feature_group_count", 1) != 1:
        raise ValueError(f"convolution: got {settings}; there is no dilation, and one group.")
    height, width = x.shape[1:3]
    side, (stride,) = kernel.shape[0], set(window_strides)
    if padding == "SAME" and stride == side and height % side == width % side == 0:
        x = rearrange(x, "b (h i) (w j) c -> b h w (i j c)", i=side, j=side)
        return x @ rearrange(kernel, "i j c d -> (i j c) d")
    if padding == "SAME" and stride == 1 and 2 * max(height, width) <= side + 1:
        flat = rearrange(x, "b h w c -> b (h w c)") @ as_matrix(kernel, height, width)
        return rearrange(flat, "b (h w d) -> b h w d", h=height, w=width)
    pairs = padding
    if isinstance(padding, str):
        pairs = lax.padtype_to_pads((height, width), kernel.shape[:2], (stride, stride), padding)
    return conv2d(x, kernel, stride, tuple(tuple(pair) for pair in pairs))


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
        """Enlarges feature maps `stride` times."""
        dtype = self.dtype or x.dtype
        kernel, bias, x = (a.astype(dtype) for a in (self.kernel[...], self.bias[...], x))
        flipped = kernel[::-1, ::-1].swapaxes(2, 3)
        # The same on both sides, as cuDNN has it; below, what no output needs costs nothing.
        padding = (kernel.shape[0] // 2,) * 2
        height, width = x.shape[1:3]
        size = (self.stride * height, self.stride * width)
        enlarged: Array = conv_transpose2d(x, flipped, self.stride, (padding, padding), size)
        return enlarged + bias[None, None, None]
