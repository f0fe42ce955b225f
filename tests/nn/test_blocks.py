"""Building blocks against PyTorch and against a second way to compute them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from objdisc_jax.nn import conv
from objdisc_jax.nn.gru import GRUCell
from objdisc_jax.nn.position import PositionEmbedding, harmonics
from objdisc_jax.nn.schedules import cosine_ramp
from objdisc_jax.nn.slot_attention import SlotAttention
from objdisc_jax.settings import SlotAttentionSettings

RNG = np.random.default_rng(0)
SMALL = SlotAttentionSettings(num_slots=3, slot_size=8, mlp_hidden_size=8, num_iterations=2)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("side", "stride", "size"),
    [
        (1, 1, (6, 5)),
        (4, 4, (8, 12)),
        (4, 4, (10, 8)),
        (3, 1, (2, 2)),
        (3, 1, (1, 2)),
        (5, 1, (3, 2)),
        (4, 1, (1, 1)),
        (4, 1, (2, 2)),
        (3, 1, (3, 2)),
        (3, 2, (4, 4)),
    ],
)
def test_convolution_is_laxs(side, stride, size):
    x, kernel = jnp.asarray(normal(2, *size, 3)), jnp.asarray(normal(side, side, 3, 4))
    settings = {"window_strides": (stride, stride), "padding": "SAME"}
    numbers = ("NHWC", "HWIO", "NHWC")

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, **settings, dimension_numbers=numbers)

    def ours(x, kernel):
        return conv.convolution(x, kernel, *settings.values(), dimension_numbers=numbers)

    expected, their_gradient = jax.vjp(plain, x, kernel)
    found, our_gradient = jax.vjp(ours, x, kernel)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    direction = jnp.asarray(normal(*expected.shape))
    for a, b in zip(our_gradient(direction), their_gradient(direction), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(
    "settings", [{"lhs_dilation": (2, 2)}, {"rhs_dilation": (1, 2)}, {"feature_group_count": 3}]
)
def test_what_a_convolution_here_cannot_do_is_refused(settings):
    x, kernel = jnp.asarray(normal(2, 4, 4, 3)), jnp.asarray(normal(3, 3, 3, 4))
    with pytest.raises(ValueError, match="no dilation, and one group"):
        conv.convolution(x, kernel, (1, 1), "SAME", **settings)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_pixel_shuffle_equals_pytorch(r):
    x = normal(2, 3, 4, 36)
    expected = torch.nn.functional.pixel_shuffle(torch.from_numpy(x).movedim(-1, 1), r)
    np.testing.assert_array_equal(conv.pixel_shuffle(jnp.asarray(x), r), expected.movedim(1, -1))


@pytest.fixture(params=["as on the CPU", "as on a GPU"])
def way(request, monkeypatch):
    """How convolutions are computed, whatever the tests run on."""

    def platform_dependent(*arguments, default, cpu):
        return (cpu if request.param == "as on the CPU" else default)(*arguments)

    monkeypatch.setattr(conv.lax, "platform_dependent", platform_dependent)


def assert_same_three_passes(ours, theirs, x, kernel):
    """Compares outputs and both gradients, ours NHWC and HWIO, PyTorch's NCHW and OIHW.

    PyTorch computes in float64: in float32 its kernel gradient of a 1x1 convolution with a stride
    was seen wrong now and then (2.13.0, a race).
    """
    tensors = [
        torch.tensor(array.transpose(axes), dtype=torch.float64)
        for array, axes in ((x, (0, 3, 1, 2)), (kernel, (3, 2, 0, 1)))
    ]
    for tensor in tensors:
        tensor.requires_grad_()
    expected = theirs(*tensors)
    found, gradient = jax.vjp(jax.jit(ours), jnp.asarray(x), jnp.asarray(kernel))
    np.testing.assert_allclose(found, expected.detach().permute(0, 2, 3, 1), rtol=1e-5, atol=1e-5)
    direction = normal(*found.shape)
    expected.backward(torch.tensor(direction.transpose(0, 3, 1, 2)))
    to_x, to_kernel = gradient(jnp.asarray(direction))
    np.testing.assert_allclose(to_x, tensors[0].grad.permute(0, 2, 3, 1), atol=1e-4)
    np.testing.assert_allclose(to_kernel, tensors[1].grad.permute(2, 3, 1, 0), atol=1e-4)


@pytest.mark.parametrize("channels", [(3, 4), (4, 2)])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("kernel_size", "padding"), [(5, (2, 2)), (4, (1, 2)), (3, (-1, 2)), (3, (0, 0)), (1, (0, 0))]
)
def test_convolution_and_its_gradients_are_pytorchs(way, kernel_size, padding, stride, channels):
    def ours(x, kernel):
        return conv.conv2d(x, kernel, stride, (padding, padding[::-1]))

    def theirs(x, kernel):
        padded = torch.nn.functional.pad(x, (*padding[::-1], *padding))  # columns first
        return torch.nn.functional.conv2d(padded, kernel, stride=stride)

    x, kernel = normal(3, 9, 6, channels[0]), normal(kernel_size, kernel_size, *channels)
    assert_same_three_passes(ours, theirs, x, kernel)


@pytest.mark.parametrize("channels", [(3, 4), (4, 2)])
@pytest.mark.parametrize(
    ("kernel_size", "padding", "extra", "stride"),
    [
        (*layer, stride)
        for layer in ((5, 2, 0), (5, 2, 1), (4, 1, 0), (3, 0, 0), (1, 0, 0))
        for stride in (1, 2, 3, 4)
        if layer[-1] < stride  # PyTorch wants output_padding < stride
    ],
)
def test_transposed_convolution_and_its_gradients_are_pytorchs(
    way, kernel_size, padding, extra, stride, channels
):
    options = {"stride": stride, "padding": padding, "output_padding": extra}
    size = tuple(stride * (n - 1) - 2 * padding + kernel_size + extra for n in (5, 4))

    def ours(x, kernel):
        return conv.conv_transpose2d(x, kernel, stride, ((padding, padding),) * 2, size)

    def theirs(x, kernel):
        return torch.nn.functional.conv_transpose2d(x, kernel, **options)

    x, kernel = normal(3, 5, 4, channels[1]), normal(kernel_size, kernel_size, *channels)
    assert_same_three_passes(ours, theirs, x, kernel)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_transposed_layer_is_pytorchs(kernel_size, stride):
    layer = conv.ConvTranspose(3, 4, kernel_size, stride=stride, rngs=nnx.Rngs(0))
    layer.bias[...] = normal(4)
    padding, extra = kernel_size // 2, stride - 1
    theirs = torch.nn.ConvTranspose2d(3, 4, kernel_size, stride, padding, extra)
    weight = np.asarray(layer.kernel[...])[::-1, ::-1].transpose(2, 3, 0, 1)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(weight.copy()))
        theirs.bias.copy_(torch.tensor(np.array(layer.bias[...])))
    x = normal(2, 6, 5, 3)
    expected = theirs(torch.tensor(x.transpose(0, 3, 1, 2))).detach().permute(0, 2, 3, 1)
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, atol=1e-5)


def test_gru_equals_pytorch():
    cell = GRUCell(5, 4, rngs=nnx.Rngs(0))
    cell.input.bias[...] = normal(12)
    cell.hidden.bias[...] = normal(12)
    theirs = torch.nn.GRUCell(5, 4)
    with torch.no_grad():
        theirs.weight_ih.copy_(torch.tensor(np.array(cell.input.kernel[...]).T))
        theirs.weight_hh.copy_(torch.tensor(np.array(cell.hidden.kernel[...]).T))
        theirs.bias_ih.copy_(torch.tensor(np.array(cell.input.bias[...])))
        theirs.bias_hh.copy_(torch.tensor(np.array(cell.hidden.bias[...])))
    inputs, state = normal(3, 5), normal(3, 4)
    expected = theirs(torch.tensor(inputs), torch.tensor(state)).detach().numpy()
    found = cell(jnp.asarray(inputs), jnp.asarray(state))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_gru_starts_with_an_orthogonal_hidden_matrix():
    kernel = np.array(GRUCell(4, 6, rngs=nnx.Rngs(0)).hidden.kernel[...])
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(6), atol=1e-5)


def test_harmonics_by_hand():
    found = harmonics(jnp.array([0.5, 0.0]), 2)
    # Sines of π/2 and π, then cosines; the same of 0.
    np.testing.assert_allclose(found, [[1, 0, 0, -1], [0, 0, 1, 1]], atol=1e-6)


@pytest.mark.parametrize("num_frequencies", [0, 3])
def test_position_embedding_is_linear_in_the_features_of_both_axes(num_frequencies):
    module = PositionEmbedding(5, num_frequencies=num_frequencies, rngs=nnx.Rngs(0))
    x = jnp.asarray(normal(2, 3, 4, 5))
    y, x_of_column = np.meshgrid(np.linspace(0, 1, 3), np.linspace(0, 1, 4), indexing="ij")
    features = [y, x_of_column, 1 - y, 1 - x_of_column]
    for t in (y, x_of_column):
        angles = np.pi * t[..., None] * np.arange(1, num_frequencies + 1)
        features += list(np.moveaxis(np.concatenate([np.sin(angles), np.cos(angles)], -1), -1, 0))
    embedded = module.dense(jnp.asarray(np.stack(features, -1), jnp.float32))
    np.testing.assert_allclose(module.add_to(x), x + embedded[None], atol=1e-5)


def test_cosine_ramp_is_flat_outside_its_steps():
    steps = jnp.array([0, 10, 15, 20, 99])
    values = cosine_ramp(steps, start_value=1.0, end_value=3.0, start_step=10, end_step=20)
    np.testing.assert_allclose(values, [1, 1, 2, 3, 3], atol=1e-6)


def test_slots_are_permuted_with_their_noise():
    module = SlotAttention(6, SMALL, rngs=nnx.Rngs(0))
    inputs, noise = jnp.asarray(normal(2, 10, 6)), jnp.asarray(normal(2, 3, 8))
    slots, attn = module(inputs, noise)
    np.testing.assert_allclose(attn.sum(-1), 1, atol=1e-6)
    turned = module(inputs, noise[:, jnp.array([2, 0, 1])])
    np.testing.assert_allclose(turned.slots, slots[:, jnp.array([2, 0, 1])], atol=1e-5)
    # Nor does the order of the inputs matter.
    shuffled = module(inputs[:, ::-1], noise)
    np.testing.assert_allclose(shuffled.slots, slots, atol=1e-5)


def test_attention_stays_in_float32_when_computing_in_bfloat16():
    settings = dataclasses.replace(SMALL, dtype="bfloat16")
    module = SlotAttention(6, settings, rngs=nnx.Rngs(0))
    inputs, noise = jnp.asarray(normal(2, 4096, 6), jnp.bfloat16), jnp.asarray(normal(2, 3, 8))
    slots, attn = module(inputs, noise)
    assert slots.dtype == attn.dtype == jnp.float32
    # The mean of 4096 equal values is that value; a bfloat16 sum would stop growing at 256.
    seen = []
    module.gru = lambda updates, state: (seen.append(updates), state)[1]
    values = jnp.ones((2, 4096, 8), jnp.bfloat16)
    module.step(noise, values, values)
    np.testing.assert_allclose(seen[0], 1, atol=4e-3)
