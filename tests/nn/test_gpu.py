"""What only a GPU can show: pytest -m gpu."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objdisc_jax.models import base
from objdisc_jax.models.base import Batch
from objdisc_jax.models.slot_attention.settings import Settings
from objdisc_jax.nn.conv import dilated_conv_transpose, subpixel_conv_transpose
from objdisc_jax.testing.models import ModelCase

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_a_gpu():
    if jax.default_backend() != "gpu":
        pytest.skip("JAX sees no GPU")


def test_both_transposed_convolutions_agree_on_the_gpu():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 16, 16, 64)).astype(np.float32)
    kernel = rng.normal(size=(5, 5, 64, 64)).astype(np.float32) / 40
    with jax.default_matmul_precision("highest"):
        dilated, subpixel = (
            jax.jit(way, static_argnums=2)(x, kernel, 2)
            for way in (dilated_conv_transpose, subpixel_conv_transpose)
        )
    np.testing.assert_allclose(dilated, subpixel, atol=1e-4)


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
