"""GNM: what it offers beside the contract, settings it refuses, and extreme inputs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objdisc_jax.models import base
from objdisc_jax.models.base import Batch
from objdisc_jax.models.gnm.model import without_noise
from objdisc_jax.testing.models import ModelCase

BATCH = 3


def build(**settings):
    return ModelCase.small("gnm", **settings).build()


@pytest.fixture(scope="module")
def small():
    """A small model taken apart, images, and noise."""
    model = build()
    graphdef, params = base.split(model)
    image = jax.random.uniform(jax.random.key(1), (BATCH, *model.resolution, 3))
    return graphdef, params, image, model.noise(jax.random.key(2), BATCH)


def call(case, method, *arguments, **settings):
    graphdef, params, _, _ = case

    @jax.jit
    def compute(params, *arguments):
        return getattr(base.merge(graphdef, params), method)(*arguments, **settings)

    return compute(params, *arguments)


STEP = jnp.int32(700)


def test_scalars_add_up(small):
    _, _, image, noise = small
    loss, scalars = call(small, "loss", Batch({"image": image}), noise, step=STEP)
    terms = [value for name, value in scalars.items() if name.startswith("kl_")]
    assert len(terms) == 11
    np.testing.assert_allclose(sum(terms), scalars["kl"], rtol=1e-5)
    np.testing.assert_allclose(scalars["rec_loss"] - scalars["kl"], scalars["elbo"], rtol=1e-5)
    np.testing.assert_allclose(-scalars["elbo"], loss)


def test_prediction_is_that_of_the_means(small):
    _, _, image, noise = small
    found = call(small, "predict", Batch({"image": image}), noise, step=STEP)
    again = call(small, "predict", Batch({"image": image}), without_noise(noise), step=STEP)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    assert found.background == 4
    assert found.masks.shape == (BATCH, 5, 16, 16)
    z_pres = found.extras["z_pres"]
    np.testing.assert_array_equal(found.count, (np.asarray(z_pres) > 0.5).sum(1))
    top, bottom, left, right = np.moveaxis(np.asarray(found.extras["boxes"]), -1, 0)
    assert (top < bottom).all()
    assert (left < right).all()
    assert found.slots.shape == (BATCH, 4, 4 + 4 + 1 + 1)


@pytest.fixture(scope="module")
def found(small):
    """What a small model predicts, with its glimpses in the image and opaque."""
    _, _, image, noise = small
    return call(small, "predict", Batch({"image": image}), noise, step=STEP)


def test_slots_are_drawn_as_they_were_found_in_any_order(small, found):
    background = found.extras["background"]
    drawn = call(small, "render", found.slots, step=STEP, background=background)
    np.testing.assert_allclose(drawn, found.recon, atol=1e-6)
    turned = found.slots[:, jnp.array([2, 0, 3, 1])]
    again = call(small, "render", turned, step=STEP, background=background)
    np.testing.assert_allclose(again, drawn, atol=1e-6)
    boxes = found.extras["boxes"]
    again = call(small, "render", found.slots, step=STEP, boxes=boxes, background=background)
    np.testing.assert_allclose(again, drawn, atol=1e-5)
    on_black = call(small, "render", found.slots, step=STEP)
    np.testing.assert_allclose(on_black, found.extras["foreground"], atol=1e-6)


def test_an_object_whose_box_is_moved_is_drawn_there(small, found):
    slots = found.slots[:, :1].at[..., -1].set(1.0)
    boxes = jnp.broadcast_to(jnp.array([2.0, 8.0, 3.0, 9.0]), (BATCH, 1, 4))
    move = jnp.array([[[5.0, 5.0, 4.0, 4.0]]])
    before, after = (
        np.asarray(call(small, "render", slots, step=STEP, boxes=b)) for b in (boxes, boxes + move)
    )
    np.testing.assert_allclose(after[:, 5:, 4:], before[:, :-5, :-4], atol=1e-5)
    assert before[:, 4, 5].min() > 0.01
    assert not after[:, :5].any()
    larger = call(small, "render", slots, step=STEP, boxes=boxes + jnp.array([[[-1, 1, -1, 1.0]]]))
    assert not before[:, 1].any()
    assert np.asarray(larger)[:, 1, 4:8].any()


def test_objects_are_hidden_and_copied(small, found):
    background = jnp.full_like(found.recon, 0.5)
    slots = found.slots[:, :1].at[..., -1].set(1.0)
    there, elsewhere = [0.0, 6.0, 0.0, 6.0], [9.0, 15.0, 9.0, 15.0]
    boxes = jnp.broadcast_to(jnp.array([there, elsewhere]), (BATCH, 2, 4))
    both = call(small, "render", slots.repeat(2, 1), step=STEP, boxes=boxes, background=background)
    np.testing.assert_allclose(both[:, 9:, 9:], both[:, :7, :7], atol=1e-5)
    one = call(small, "render", slots, step=STEP, boxes=boxes[:, :1], background=background)
    np.testing.assert_allclose(one[:, :7, :7], both[:, :7, :7], atol=1e-5)
    np.testing.assert_allclose(one[:, 9:, 9:], 0.5, atol=1e-6)


def test_samples_are_fixed_by_their_noise_and_cooled_by_temperature(small):
    _, _, _, noise = small
    found = call(small, "sample", noise, step=STEP)
    np.testing.assert_array_equal(found, call(small, "sample", noise, step=STEP))
    assert found.shape == (BATCH, 16, 16, 3)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    frozen = call(small, "sample", noise, step=STEP, temperature=0.0)
    np.testing.assert_allclose(frozen[0], frozen[1], atol=1e-6)
    assert np.isfinite(frozen).all()


def test_reconstruction_from_the_global_code_uses_the_prior(small):
    _, _, image, noise = small
    found = call(small, "reconstruct_from_global", image, noise, step=STEP)
    assert found.shape == image.shape
    assert (
        np.abs(
            found - call(small, "predict", Batch({"image": image}), noise, step=STEP).recon
        ).max()
        > 1e-4
    )


def test_log_likelihood_grows_with_the_number_of_samples(small):
    _, _, image, _ = small
    key = jax.random.key(5)
    few, many = (
        call(small, "log_likelihood", image, key, step=STEP, num_samples=n) for n in (1, 50)
    )
    assert few.shape == (BATCH,)
    assert np.isfinite(many).all()
    assert many.mean() > few.mean()


def test_log_likelihood_of_equal_weights_is_their_weight():
    """Nets of zeros, whose posterior is the prior, and a σ to which all images are alike."""
    sigma = 1e3
    graphdef, params = base.split(build(sigma=sigma))
    image = jnp.zeros((BATCH, 16, 16, 3))
    case = graphdef, jax.tree.map(jnp.zeros_like, params), None, None
    expected = -image[0].size * math.log(sigma * math.sqrt(2.0 * math.pi))
    for n in (1, 50):
        found = call(case, "log_likelihood", image, jax.random.key(5), step=STEP, num_samples=n)
        np.testing.assert_allclose(found, np.full(BATCH, expected), atol=0.05, rtol=0)


def test_log_likelihood_of_no_sample_is_refused(small):
    with pytest.raises(ValueError, match="num_samples: got 0; it must be at least 1"):
        call(small, "log_likelihood", small[2], jax.random.key(5), step=STEP, num_samples=0)


@pytest.mark.slow
def test_one_sample_of_the_log_likelihood_has_the_elbo_as_its_mean(small):
    """Without auxiliary terms, with presence almost certain, so that relaxing it hardly matters."""
    _, _, image, _ = small
    off = {f"beta_aux_{name}": 0.0 for name in ("pres", "depth", "what")}
    off |= dict.fromkeys(("beta_aux_where", "beta_aux_bg"), (0.0, 0.0, 0, 1))
    model = build(**off, beta_pres=0.0, beta_global=(1.0, 1.0, 0, 1))
    graphdef, params = base.split(model)
    # The same distribution of presence on both sides: its terms vanish from both estimates.
    params["local_net"]["pres"] = jax.tree.map(jnp.zeros_like, params["local_net"]["pres"])

    @jax.jit
    def both(params, key):
        model = base.merge(graphdef, params)
        elbo = model.loss(Batch({"image": image}), model.noise(key, BATCH), step=STEP)[1]["elbo"]
        return elbo, model.log_likelihood(image, key, step=STEP, num_samples=1)

    elbo, weight = jax.lax.map(
        lambda key: both(params, key), jax.random.split(jax.random.key(0), 2000)
    )
    spread = np.std(weight - elbo, axis=0) / np.sqrt(len(weight))
    np.testing.assert_array_less(np.abs(np.mean(weight - elbo, axis=0)), 5 * spread + 0.05)


IMAGES = {
    "black": np.zeros((1, 16, 16, 3)),
    "white": np.ones((1, 16, 16, 3)),
    "noise": np.random.default_rng(0).uniform(size=(1, 16, 16, 3)),
    "colour": np.broadcast_to(np.array([0.9, 0.1, 0.4]), (1, 16, 16, 3)),
}


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_extreme_inputs_give_finite_losses_and_gradients_at_every_stage(dtype):
    graphdef, params = base.split(build(dtype=dtype))

    @jax.jit
    def compute(params, image, noise, step):
        def loss(params):
            return (
                base.merge(graphdef, params)
                .loss(Batch({"image": image}), noise, step=step)[0]
                .mean()
            )

        return jax.value_and_grad(loss)(params)

    model = base.merge(graphdef, params)
    image = jnp.asarray(np.concatenate(list(IMAGES.values())), jnp.float32)
    ends = {
        name: jnp.full_like(x, 1.0 - 2.0**-23 if name == "pres" else 5.0)
        for name, x in model.noise(jax.random.key(0), len(image)).items()
    }
    # The widest draws, and matrices three times as large, which saturate most nonlinearities.
    large = jax.tree.map(lambda x: 3.0 * x if x.ndim > 1 else x, params)
    for weights, noise in ((params, model.noise(jax.random.key(0), len(image))), (large, ends)):
        for step in (0, 1, 250, 499, 500, 4000, 20_000, 50_000, 100_000, 300_000):
            value, gradients = compute(weights, image, noise, jnp.int32(step))
            assert np.isfinite(value)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": (3, 3)}, r"model.grid: got \(3, 3\); .* bring .*\(2, 2\)"),
        ({"encoder_strides": (4,)}, r"model.encoder_strides: got \(4,\).*asks for 2"),
        ({"glimpse_upscales": (2,)}, r"model.glimpse_upscales: got \(2,\).*asks for 2"),
        ({"background_upscales": (4, 3)}, r"background of 12x12 pixels"),
        ({"sigma": 0.0}, r"model.sigma: got 0.0; .*positive"),
        ({"aux_where_std": (0.1, 0.3, 0.0, 1.0)}, r"model.aux_where_std: got .*positive"),
        ({"aux_where_std": (0.1, 0.3)}, r"model.aux_where_std: got \(0.1, 0.3\); .*tuple of 4"),
        ({"aux_where_mean": [0.0] * 5}, r"model.aux_where_mean: got \[0.0, .*tuple of 4"),
        (
            {"encoder_channels": (), "encoder_kernels": (), "encoder_strides": ()},
            r"model.encoder_channels: got \(\); .*at least one layer",
        ),
        ({"local_channels": ()}, r"model.local_channels: got \(\); .*at least one layer"),
        ({"glimpse_upscales": (2, 0)}, r"model.glimpse_upscales: got \(2, 0\); .*at least 1"),
        ({"encoder_strides": (4, 0)}, r"model.encoder_strides: got \(4, 0\); .*at least 1"),
        ({"background_hidden": (0,)}, r"model.background_hidden: got \(0,\); .*at least 1"),
        ({"resolution": (0, 16)}, r"model.resolution: got \(0, 16\); .*at least 1"),
        ({"resolution": (16,)}, r"model.resolution: got \(16,\); .*tuple of 2"),
        ({"temperature": (0.0, 0.5, 0, 9)}, r"model.temperature: got \(0.0, .*above 0"),
        ({"temperature": 0.5}, r"model.temperature: got 0.5; it is a tuple of 4"),
        ({"aux_pres": (1.5, 0.1, 0, 9)}, r"model.aux_pres: got \(1.5, .*between 0 and 1"),
        ({"early_pres": 1.5}, r"model.early_pres: got 1.5; it lies between 0.0 and 1.0"),
        ({"early_alpha": -0.5}, r"model.early_alpha: got -0.5; it lies between 0.0 and 1.0"),
        ({"beta_pres": [1.0, 0.0, 0, 9]}, r"model.beta_pres: got \[1.0, .*of type float"),
        ({"what_size": 0}, r"model.what_size: got 0"),
        ({"temperature": (1.0, 0.5)}, r"model.temperature: got \(1.0, 0.5\)"),
        ({"dtype": "float16"}, r"model.dtype: got 'float16'; allowed are float32, bfloat16"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)
