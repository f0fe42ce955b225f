"""What IODINE does beyond the official numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from objdisc_jax.models import base
from objdisc_jax.models.iodine.decoder import ConvBroadcastDecoder
from objdisc_jax.models.iodine.likelihood import Decoded, Mixture
from objdisc_jax.models.iodine.model import TRAVERSED, traversed
from objdisc_jax.models.iodine.posterior import kl, kl_per_dimension, sample
from objdisc_jax.testing.models import STEP, ModelCase

PIXELS = {"decoder": "mlp", "num_frequencies": 4}


@pytest.fixture(scope="module")
def case():
    return ModelCase.small("iodine")


def predict(case, method="predict", **noise):
    """What a method says of the case's images."""
    graphdef, params = base.split(case.model)

    @jax.jit
    def compute(params, batch, noise):
        return getattr(base.merge(graphdef, params), method)(batch, noise, step=STEP)

    return jax.device_get(compute(params, case.batch, case.noise | noise))


def gradient(case):
    graphdef, params = base.split(case.model)

    def loss(params):
        return case.loss(graphdef, params, case.batch, case.noise)[0].mean()

    return jax.jit(jax.grad(loss))(params)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def test_equal_noise_leaves_slots_equal(case):
    equal = jnp.repeat(case.noise["latents"][:, :, :1], case.settings.num_slots, axis=2)
    np.testing.assert_allclose(predict(case, latents=equal).masks, 1 / 3, atol=1e-5)
    assert np.abs(predict(case).masks - 1 / 3).max() > 0.01


@pytest.mark.parametrize("likelihood", ["logistic", "normal"])
def test_gradient_by_what_slots_paint_is_that_of_the_likelihood(case, likelihood):
    settings = case.build(likelihood=likelihood).settings
    image = jnp.abs(normal(2, 3, 4, 3))
    decoded = Decoded(normal(2, 3, 3, 4, seed=1), normal(2, 3, 3, 4, 3, seed=2))
    found = Mixture(decoded, image, settings).nll_gradient()
    expected = jax.grad(lambda d: -jnp.sum(Mixture(d, image, settings).log_prob))(decoded)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(found.colours, expected.colours, atol=1e-4)


@pytest.mark.parametrize("likelihood", ["logistic", "normal"])
def test_density_of_a_pixel_integrates_to_one(case, likelihood):
    settings = case.build(likelihood=likelihood, sigma=0.1).settings
    levels = jnp.linspace(-3.0, 4.0, 2001)
    image = jnp.full((1, 1, 2001, 3), 0.5).at[..., 0].set(levels)
    decoded = Decoded(jnp.zeros((1, 1, 1, 2001)), jnp.full((1, 1, 1, 2001, 3), 0.5))
    joint = jnp.exp(Mixture(decoded, image, settings).log_prob)[0, 0]
    at_mean = {"logistic": 1 / (4 * 0.1), "normal": 1 / (0.1 * np.sqrt(2 * np.pi))}[likelihood]
    integral = jnp.sum(joint) * (levels[1] - levels[0]) / at_mean**2
    np.testing.assert_allclose(integral, 1.0, rtol=1e-3)


def test_first_layer_is_the_convolution_of_tiled_slots(case):
    settings = case.build(resolution=(7, 9), decoder_kernel=5).settings
    decoder = ConvBroadcastDecoder(settings, rngs=nnx.Rngs(0))
    slots = normal(2, settings.slot_size)
    rows, cols = jnp.linspace(-1.0, 1.0, 7), jnp.linspace(-1.0, 1.0, 9)
    tiled = jnp.broadcast_to(slots[:, None, None], (2, 7, 9, settings.slot_size))
    yx = jnp.stack(jnp.meshgrid(rows, cols, indexing="ij"), -1)
    yx = jnp.broadcast_to(yx, (2, 7, 9, 2))
    tiled = jnp.concatenate([tiled, jnp.full((2, 7, 9, 1), 5.0), yx], axis=-1)
    expected = decoder.convs[0](tiled)
    np.testing.assert_allclose(decoder._first_layer(slots), expected, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, PIXELS | {"pixel_stride": 3}])
def test_loop_that_computes_again_has_the_same_gradient(changes):
    again, written_out = (
        ModelCase.small("iodine", rematerialize=value, **changes) for value in (True, False)
    )
    found, expected = gradient(again), gradient(written_out)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max()),
        found,
        expected,
    )
    graphdef, params = base.split(again.model)
    program = jax.make_jaxpr(lambda p: again.loss(graphdef, p, again.batch, again.noise))(params)
    assert "remat" in str(program)


@pytest.mark.parametrize("changes", [{}, PIXELS | {"pixel_stride": 3}])
def test_bfloat16_stays_close_to_float32_and_keeps_float32_outputs(changes):
    full, half = (
        ModelCase.small("iodine", dtype=dtype, **changes) for dtype in ("float32", "bfloat16")
    )
    expected, found = predict(full), predict(half)
    for name in ("recon", "masks", "slots"):
        assert getattr(found, name).dtype == np.float32
    np.testing.assert_allclose(found.masks, expected.masks, atol=0.02)
    np.testing.assert_allclose(found.recon, expected.recon, atol=0.02 * expected.recon.max())
    exact, rounded = (case.model.loss(case.batch, case.noise, step=STEP) for case in (full, half))
    for value in jax.tree.leaves(rounded):
        assert value.dtype == np.float32
    np.testing.assert_allclose(rounded[0], exact[0], rtol=0.01)


def test_more_iterations_at_evaluation_leave_the_loss_as_it_is(case):
    more = ModelCase.small("iodine", eval_iterations=4)
    assert more.noise["latents"].shape[1] == 5
    np.testing.assert_array_equal(more.noise["latents"][:, :3], case.noise["latents"])
    found, expected = (one.model.loss(one.batch, one.noise, step=STEP)[0] for one in (more, case))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.abs(predict(more).slots - predict(case).slots).max() > 1e-3
    none = ModelCase.small("iodine", eval_iterations=0)
    start = np.split(none.model.initial_posterior[...], 2)[0]
    np.testing.assert_array_equal(predict(none).slots, np.broadcast_to(start, (4, 3, 6)))


def test_nll_of_some_pixels_stands_for_all():
    case = ModelCase.small("iodine", pixel_stride=3, **PIXELS)
    model, draw = case.model, jax.tree.map(lambda x: x[:, 0], case.noise)
    slots = draw["latents"]
    pixels = model.pixels(case.batch.image, draw)
    assert pixels.image.shape == (4, 5, 5, 3)
    some = Mixture(model.decode(slots, pixels), pixels.image, case.settings)
    every = Mixture(model.decode(slots), case.batch.image, case.settings)
    for example, (row, col) in enumerate(np.asarray(draw["offset"])):
        rows, cols = ([(start + 3 * i) % 16 for i in range(5)] for start in (row, col))
        log_prob = every.log_prob[example][np.ix_(sorted(rows), sorted(cols))]
        np.testing.assert_allclose(some.log_prob[example], log_prob, rtol=1e-3, atol=1e-3)
        expected = -(16 * 16 / 25) * log_prob.sum()
        np.testing.assert_allclose(model.nll(some)[example], expected, rtol=1e-4)


@pytest.mark.parametrize("stride", [2, 3])
def test_refinement_reads_the_square_around_each_pixel(stride):
    case = ModelCase.small("iodine", pixel_stride=stride, **PIXELS)
    draw = jax.tree.map(lambda x: x[:, 0], case.noise)
    pixels = case.model.pixels(case.batch.image, draw)
    image, before = np.asarray(case.batch.image), (stride - 1) // 2
    for example, (row, col) in enumerate(np.asarray(draw["offset"])):
        rows, cols = (
            sorted((start + stride * i) % 16 for i in range(16 // stride)) for start in (row, col)
        )
        for i, j in np.ndindex(stride, stride):
            beside = [np.clip(np.add(x, k - before), 0, 15) for x, k in ((rows, i), (cols, j))]
            channels = pixels.squares[example, ..., 3 * (stride * i + j) :][..., :3]
            np.testing.assert_array_equal(channels, image[example][np.ix_(*beside)])
        np.testing.assert_array_equal(pixels.image[example], image[example][np.ix_(rows, cols)])


def test_every_draw_has_pixels_of_its_own():
    offset = ModelCase.small("iodine", pixel_stride=5, **PIXELS).noise["offset"]
    assert offset.shape == (4, 3, 2)
    assert len({tuple(row) for row in np.asarray(offset).reshape(-1, 2)}) > 4


def test_iterations_are_shown_in_their_order():
    case = ModelCase.small("iodine", eval_iterations=11)
    shapes = jax.eval_shape(lambda: case.model.visualize(case.batch, case.noise, step=jnp.int32(0)))
    shown = [name for name in shapes if name.startswith("iteration") and "masks" not in name]
    assert [int(name.split()[1]) for name in shown] == list(range(12))


def test_visualization_shows_every_iteration_and_moves_one_dimension(case):
    rows = predict(case, "visualize")
    prediction = predict(case)
    for t in range(3):
        assert rows[f"iteration {t} masks"].max() <= 3
    np.testing.assert_allclose(rows["iteration 2"], np.clip(prediction.recon, 0, 1), atol=1e-5)
    np.testing.assert_array_equal(rows["iteration 2 masks"], 1 + prediction.masks.argmax(1))
    first, last = (rows[f"traversal {i}: {TRAVERSED[i]}"] for i in (0, 4))
    assert np.abs(first - last).max() > 0
    posterior = normal(2, 3, 8)
    means = posterior[..., :4]
    changed = np.argwhere(np.asarray(traversed(posterior, 9.0) != means))
    divergence = kl_per_dimension(posterior)
    slots = divergence.sum(-1).argmax(1)
    expected = [(b, slots[b], divergence[b, slots[b]].argmax()) for b in range(2)]
    np.testing.assert_array_equal(changed, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"likelihood": "laplace"}, r"model\.likelihood: got 'laplace'; allowed are logistic"),
        ({"num_slots": 1}, r"model\.num_slots: got 1; it must be at least 2"),
        ({"sigma": 0.0}, r"model\.sigma: got 0\.0; it is above 0"),
        ({"gradient_scale": -1.0}, r"model\.gradient_scale: got -1\.0"),
        ({"eval_iterations": -1}, r"model\.eval_iterations: got -1"),
        ({"decoder_channels": ()}, r"decoder_channels: got \(\); there must be at least one"),
        ({"pixel_stride": 2}, r"pixel_stride: got 2; it must be 1 unless model.decoder is 'mlp'"),
        (PIXELS | {"pixel_stride": 17}, r"pixel_stride: got 17; it lies between 1 and 16"),
        ({"coordinates": "polar"}, r"coordinates: got 'polar'"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelCase.small("iodine", **changes)


def test_posteriors_without_width_keep_their_gradients_finite():
    """The variance of raw values below -104 is 0 in float32, its root's derivative infinite."""
    narrow = jnp.concatenate([jnp.zeros((1, 4)), jnp.full((1, 4), -200.0)], axis=1)

    def loss(posterior):
        return jnp.sum(sample(posterior, jnp.ones((1, 4)))) + jnp.sum(kl(posterior))

    value, gradient = jax.value_and_grad(loss)(narrow)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
