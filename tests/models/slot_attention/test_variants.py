"""The variants of the Slot Attention auto-encoder that have no published weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from objdisc_jax.models import base
from objdisc_jax.models.base import Batch
from objdisc_jax.models.slot_attention.model import ConvEncoder, area, separation
from objdisc_jax.models.slot_attention.settings import Settings
from objdisc_jax.nn.pixel_decoder import lattice, pixel_offsets
from objdisc_jax.testing.models import ModelCase


def build(**changes):
    return ModelCase.small("slot_attention", **changes).build()


MLP_DECODER = {"decoder": "mlp", "decoder_channels": (8, 8), "output": "tanh"}


def images(model, batch=3):
    return jax.random.uniform(jax.random.key(1), (batch, *model.resolution, 3)) * 2 - 1


def examples(model, batch=3):
    return Batch({"image": images(model, batch)})


def gradient(model):
    graphdef, params = base.split(model)
    noise = model.noise(jax.random.key(2), 3)

    def loss(params):
        merged = base.merge(graphdef, params)
        return merged.loss(examples(model), noise, step=jnp.int32(0))[0].mean()

    return jax.jit(jax.grad(loss))(params)


@pytest.mark.parametrize("decoder", [{}, MLP_DECODER | {"pixel_stride": 2}])
def test_rematerialized_decoder_has_the_same_gradient_and_is_computed_twice(decoder):
    plain, again = (build(rematerialize=value, **decoder) for value in (False, True))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        gradient(again),
        gradient(plain),
    )
    assert "remat" in str(jax.make_jaxpr(lambda: gradient(again))())


@pytest.mark.parametrize(
    ("mode", "learns_initialisation"), [("implicit", False), ("unrolled", True), ("bo_qsa", True)]
)
def test_gradient_reaches_the_initial_slots_only_where_it_should(mode, learns_initialisation):
    grads = gradient(build(gradient=mode))["slot_attention"]
    names = ["slots_init"] if mode == "bo_qsa" else ["slot_mu", "slot_log_sigma"]
    for name in names:
        assert bool((grads[name] != 0).any()) == learns_initialisation, name


def test_implicit_mode_equals_unrolled_with_one_more_iteration():
    implicit, unrolled = build(num_iterations=2), build(num_iterations=3, gradient="unrolled")
    noise = implicit.noise(jax.random.key(0), 3)
    x = images(implicit)
    np.testing.assert_array_equal(implicit.attend(x, noise).slots, unrolled.attend(x, noise).slots)


def test_bo_qsa_differentiates_the_last_iteration_only():
    # With one iteration there is nothing before it, so the queries get its own gradient; the
    # straight-through estimate of more iterations differs from it.
    one, three = (gradient(build(gradient="bo_qsa", num_iterations=n)) for n in (1, 3))
    assert not np.allclose(
        one["slot_attention"]["slots_init"], three["slot_attention"]["slots_init"]
    )
    noise_free = build(gradient="bo_qsa")
    assert noise_free.noise(jax.random.key(0), 3) == {}


def test_loss_with_a_pixel_stride_is_the_loss_of_those_pixels():
    model = build(**MLP_DECODER, pixel_stride=3)
    image = images(model)
    noise = model.noise(jax.random.key(0), 3)
    found, _ = model.loss(Batch({"image": image}), noise, step=jnp.int32(0))
    recon = model.predict(Batch({"image": image}), noise, step=jnp.int32(0)).recon
    for example, (row, col) in enumerate(np.asarray(noise["offset"])):
        rows, cols = (row + 3 * np.arange(5)) % 16, (col + 3 * np.arange(5)) % 16
        error = (recon - image)[example][rows][:, cols] ** 2
        np.testing.assert_allclose(found[example], error.mean(), rtol=1e-4)


@pytest.mark.parametrize(("size", "stride"), [((35, 35), 3), ((16, 9), 4), ((6, 8), 2)])
def test_a_lattice_meets_all_pixels_alike(size, stride):
    """Thirds of 35 rows are 12, 12 and 11, of which a lattice has 11: none is met less often."""
    offsets = np.argwhere(np.ones(size))
    assert {tuple(x) for x in np.asarray(pixel_offsets(jax.random.key(0), 20_000, size))} == {
        tuple(x) for x in offsets
    }
    met = np.zeros(size)
    for rows, columns in zip(*lattice(jnp.asarray(offsets), size, stride), strict=True):
        assert (np.diff(rows) > 0).all()
        assert (np.diff(columns) > 0).all()
        met[np.ix_(rows, columns)] += 1
    assert (met == (size[0] // stride) * (size[1] // stride)).all()


def test_bfloat16_stays_close_to_float32_and_keeps_float32_outputs():
    full, half = (build(dtype=dtype) for dtype in ("float32", "bfloat16"))
    noise = full.noise(jax.random.key(0), 3)
    image = images(full)
    expected, found = (
        m.predict(Batch({"image": image}), noise, step=jnp.int32(0)) for m in (full, half)
    )
    for name in ("recon", "masks", "slots"):
        assert getattr(found, name).dtype == jnp.float32
    np.testing.assert_allclose(found.masks, expected.masks, atol=0.02)
    np.testing.assert_allclose(found.recon, expected.recon, atol=0.05)
    assert found.extras["attn"].dtype == jnp.float32


def test_paper_model_of_35_pixels_has_its_size():
    # Encoder and decoder of 32 channels at full resolution (2020 paper, Tetrominoes).
    model = build(
        resolution=(35, 35),
        slot_size=64,
        encoder_channels=(32,) * 4,
        encoder_kernels=(5,) * 4,
        encoder_strides=(1,) * 4,
        decoder_channels=(32,) * 3,
        decoder_strides=(1,) * 3,
        decoder_grid=(35, 35),
        encoder_norm=True,
        activation="relu",
    )
    noise = model.noise(jax.random.key(0), 1)
    prediction = model.predict(examples(model, 1), noise, step=jnp.int32(0))
    assert prediction.recon.shape == (1, 35, 35, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": "cnn"}, r"model\.decoder: got 'cnn'; allowed are conv, mlp"),
        ({"output": "relu"}, r"model\.output: got 'relu'"),
        ({"separation": "min"}, r"model\.separation: got 'min'"),
        ({"gradient": "exact"}, r"gradient: got 'exact'; allowed are implicit, unrolled, bo_qsa"),
        ({"position": "polar"}, r"position: got 'polar'"),
        ({"activation": "gelu"}, r"activation: got 'gelu'"),
        ({"num_iterations": 0}, r"num_iterations: got 0"),
        ({"decoder_grid": (5, 5)}, r"decoder_grid: got \(5, 5\); .*\(20, 20\) pixels"),
        ({"pixel_stride": 2}, r"unless model.decoder is 'mlp'"),
        ({"encoder_strides": (1,)}, r"encoder_strides: got \(1,\).*asks for 2 entries"),
        (MLP_DECODER | {"pixel_stride": 17}, r"pixel_stride: got 17"),
        (MLP_DECODER | {"pixel_stride": 2, "area_weight": 0.1}, r"area_weight"),
        (MLP_DECODER | {"decoder_channels": ()}, r"at least one layer"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_regularisers_by_hand():
    masks = jnp.array([[[[0.5, 1.0]], [[0.5, 0.0]]]])  # b=1, k=2, 1x2 pixels
    np.testing.assert_allclose(separation(masks, "max"), [1 - 0.75], rtol=1e-6)
    np.testing.assert_allclose(separation(masks, "entropy"), [np.log(2) / 2], rtol=1e-5)
    # Areas 1.5 and 0.5, s = 1, g = 2 - 1 = 1: first min((1.5-2)^2, 0) = 0; second
    # min((0.5-2)^2, 0.5^2) = 0.25. Mean over slots, divided by (2s)^2.
    np.testing.assert_allclose(area(masks, 1.0), [0.125 / 4], rtol=1e-6)


def test_encoder_sees_every_pixel_when_strided():
    # Kernel 5 at stride 5 on 35 pixels: seven disjoint blocks and nothing left over.
    settings = Settings(encoder_channels=(4,), encoder_kernels=(5,), encoder_strides=(5,))
    stack = ConvEncoder(settings, rngs=nnx.Rngs(0))
    image = jax.random.normal(jax.random.key(0), (1, 35, 35, 3))
    gradient = jax.grad(lambda x: stack(x).sum())(image)
    assert (gradient != 0).any(-1).all()
    assert stack(image).shape == (1, 7, 7, 4)


def test_residual_layers_start_where_shapes_agree():
    layers = {"encoder_kernels": (3, 3), "encoder_strides": (1, 1), "encoder_residual": True}
    stack = ConvEncoder(Settings(encoder_channels=(4, 4), **layers), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 3))
    stack.layers[1].kernel[...] = jnp.zeros_like(stack.layers[1].kernel[...])
    stack.layers[1].bias[...] = jnp.zeros(4)
    first = jax.nn.leaky_relu(stack.layers[0](x), 0.01)
    np.testing.assert_allclose(stack(x), first, atol=1e-6)
