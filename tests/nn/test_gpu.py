"""What only a GPU can show: pytest -m gpu."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objdisc_jax.models import base
from objdisc_jax.models.base import Batch
from objdisc_jax.models.slot_attention.settings import Settings
from objdisc_jax.nn.conv import conv_transpose2d
from objdisc_jax.testing.models import ModelCase

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_a_gpu():
    if jax.default_backend() != "gpu":
        pytest.skip("JAX sees no GPU")


def test_convolutions_are_the_cpus_on_the_gpu():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 16, 16, 64)).astype(np.float32)
    kernel = rng.normal(size=(5, 5, 64, 64)).astype(np.float32) / 40

    def passes(x, kernel):
        enlarged, gradient = jax.vjp(
            lambda x, k: conv_transpose2d(x, k, 2, ((2, 2), (2, 2)), (32, 32)), x, kernel
        )
        return enlarged, *gradient(enlarged)

    with jax.default_matmul_precision("highest"):
        there = jax.jit(passes)(x, kernel)
        with jax.default_device(jax.devices("cpu")[0]):
            here = jax.jit(passes)(x, kernel)
    for ours, expected in zip(there, here, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_default_model_has_finite_gradients_on_the_gpu(dtype):
    model = ModelCase("slot_attention", Settings(dtype=dtype)).build()
    graphdef, params = base.split(model)
    image = jax.random.uniform(jax.random.key(0), (8, *model.resolution, 3)) * 2 - 1
    batch, noise = Batch({"image": image}), model.noise(jax.random.key(1), 8)

    def loss(params):
        return base.merge(graphdef, params).loss(batch, noise, step=jnp.int32(0))[0].mean()

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
