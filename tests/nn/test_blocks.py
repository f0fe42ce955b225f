"""Building blocks against PyTorch and against a second way to compute them."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from objdisc_jax.models.slot_attention.position import coordinates, fourier_features
from objdisc_jax.nn.conv import (
    convolution,
    dilated_conv_transpose,
    pixel_shuffle,
    subpixel_conv_transpose,
    summed_by_parts,
)
from objdisc_jax.nn.gru import GRUCell
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
        return convolution(x, kernel, *settings.values(), dimension_numbers=numbers)

    expected, their_gradient = jax.vjp(plain, x, kernel)
    found, our_gradient = jax.vjp(ours, x, kernel)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    direction = jnp.asarray(normal(*expected.shape))
    for a, b in zip(our_gradient(direction), their_gradient(direction), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_pixel_shuffle_equals_pytorch(r):
    x = normal(2, 3, 4, 36)
    expected = torch.nn.functional.pixel_shuffle(torch.from_numpy(x).movedim(-1, 1), r)
    np.testing.assert_array_equal(pixel_shuffle(jnp.asarray(x), r), expected.movedim(1, -1))


@pytest.mark.parametrize("way", [dilated_conv_transpose, subpixel_conv_transpose])
@pytest.mark.parametrize(("size", "stride"), [(5, 2), (3, 2), (5, 1), (3, 1), (5, 3), (7, 4)])
def test_transposed_convolution_equals_pytorch(way, size, stride):
    x, weight = normal(2, 6, 5, 3), normal(3, 4, size, size)
    kernel = weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)

    def ours(x, kernel):
        return way(x, kernel, stride)

    tensors = [torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(weight)]
    for tensor in tensors:
        tensor.requires_grad_()
    theirs = torch.nn.functional.conv_transpose2d(
        *tensors, stride=stride, padding=size // 2, output_padding=stride - 1
    )
    expected = theirs.detach().numpy().transpose(0, 2, 3, 1)
    found, gradient = jax.vjp(ours, x, kernel)
    np.testing.assert_allclose(found, expected, atol=1e-5)

    direction = normal(*expected.shape)
    theirs.backward(torch.tensor(direction.transpose(0, 3, 1, 2)))
    to_x, to_kernel = gradient(jnp.asarray(direction))
    np.testing.assert_allclose(to_x, tensors[0].grad.numpy().transpose(0, 2, 3, 1), atol=1e-4)
    to_weight = np.asarray(to_kernel).transpose(2, 3, 0, 1)[:, :, ::-1, ::-1]
    np.testing.assert_allclose(to_weight, tensors[1].grad.numpy(), atol=1e-4)


@pytest.mark.parametrize(("batch", "num_parts"), [(4, 4), (7, 3), (5, 32)])
def test_kernel_gradient_by_parts_is_the_kernel_gradient(batch, num_parts):
    def conv(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x, kernel = jnp.asarray(normal(batch, 8, 8, 3)), jnp.asarray(normal(5, 5, 3, 16))
    expected, whole = jax.vjp(conv, x, kernel)
    found, by_parts = jax.vjp(lambda *a: summed_by_parts(conv, *a, num_parts=num_parts), x, kernel)
    np.testing.assert_array_equal(found, expected)
    direction = jnp.asarray(normal(*expected.shape))
    for ours, theirs in zip(by_parts(direction), whole(direction), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_large_maps_on_a_single_device_are_differentiated_by_parts():
    code = """
import jax, jax.numpy as jnp
from objdisc_jax.nn.conv import convolution
kernel, settings = jnp.ones((5, 5, 4, 16)), dict(dimension_numbers=("NHWC", "HWIO", "NHWC"))

def gradient(x):
    return jax.grad(lambda k: convolution(x, k, (1, 1), "SAME", **settings).sum())(kernel)

def count(*shape):
    return str(jax.make_jaxpr(gradient)(jnp.ones(shape))).count("conv_general_dilated[")

assert count(5, 64, 64, 4) > count(2, 64, 64, 4), "one part per image"
assert count(5, 8, 8, 4) == count(2, 8, 8, 4), "small maps in one go"
assert jnp.allclose(gradient(jnp.ones((3, 64, 64, 4)))[2, 2], 3 * 64 * 64)
"""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


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


def test_coordinates_run_from_zero_to_one():
    yx = coordinates(3, 5)
    np.testing.assert_allclose(yx[:, 0, 0], [0, 0.5, 1])
    np.testing.assert_allclose(yx[0, :, 1], [0, 0.25, 0.5, 0.75, 1])


def test_fourier_features_by_hand():
    features = fourier_features(jnp.array([0.5, 0.0]), 2)
    # Row: sin and cos of π/2 and π; column: of 0 and 0.
    np.testing.assert_allclose(features, [1, 0, 0, -1, 0, 0, 1, 1], atol=1e-6)


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
