"""What IODINE does beyond the official numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objdisc_jax.models import base
from objdisc_jax.models.iodine.likelihood import Mixture
from objdisc_jax.models.iodine.posterior import kl, mean_and_variance
from objdisc_jax.testing.models import BATCH, STEP, ModelCase

PIXELS = {"decoder": "mlp", "position_frequencies": 4}


@pytest.fixture(scope="module")
def case():
    return ModelCase.small("iodine")


def gradient(case):
    graphdef, params = base.split(case.model)

    def loss(params):
        return case.loss(graphdef, params, case.batch, case.noise)[0].mean()

    return jax.jit(jax.grad(loss))(params)


def test_equal_noise_leaves_slots_equal_for_ever(case):
    noise = {"latents": jnp.repeat(case.noise["latents"][:, :, :1], 3, axis=2)}
    prediction = case.model.predict(case.batch, noise, step=STEP)
    np.testing.assert_allclose(prediction.masks, 1 / 3, atol=1e-5)
    prediction = case.model.predict(case.batch, case.noise, step=STEP)
    assert np.abs(prediction.masks - 1 / 3).max() > 0.01


def test_refining_explains_an_image_better(case):
    """Along the gradient that the network reads, the ELBO of the same draws falls."""
    model, image = case.model, case.batch.image
    pixels = model.pixels(image, case.noise)
    noise = jnp.moveaxis(case.noise["latents"], 1, 0)[0]

    def negative_elbo(posterior):
        mean, variance = mean_and_variance(posterior)
        decoded = model.decode(mean + jnp.sqrt(variance) * noise)
        mixture = Mixture(decoded, image, case.settings)
        return jnp.sum(model.nll(mixture)) + jnp.sum(kl(posterior))

    shape = (BATCH, case.settings.num_slots, 2 * case.settings.slot_size)
    posterior = jnp.broadcast_to(model.initial_posterior[...], shape)
    by_posterior = jax.grad(negative_elbo)(posterior)
    read = []
    original = model.refinement.__class__.__call__
    try:
        model.refinement.__class__.__call__ = lambda self, maps, by, *rest: (
            read.append(by),
            original(self, maps, by, *rest),
        )[1]
        with jax.disable_jit():
            model.refine(pixels, noise[None])
    finally:
        model.refinement.__class__.__call__ = original
    expected = case.settings.gradient_scale * by_posterior
    np.testing.assert_allclose(read[0], expected, rtol=1e-3, atol=1e-4)
