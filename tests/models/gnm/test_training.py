"""Training GNM: half precision, continued runs, counting in evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from objdisc_jax import sharding
from objdisc_jax.data.synthetic import tetrominoes
from objdisc_jax.models import base
from objdisc_jax.models.base import Batch
from objdisc_jax.training import loop, run_dir
from objdisc_jax.training.evaluate import evaluate
from objdisc_jax.training.run_dir import build_model
from objdisc_jax.training.step import initial_state, make_train_step
from tests.conftest import small_config, tiny_experiment


@pytest.fixture
def tiny_gnm(tetrominoes_file):
    config, tiny = small_config("gnm"), tiny_experiment(tetrominoes_file)
    for key in ("data", "eval", "checkpoint", "visualize", "batch_size", "num_train_steps"):
        config[key] = tiny[key]
    config.optimizer.learning_rate = 1e-3
    return config.lock()


def elbo_per_element(config, dtype, steps):
    """The ELBO in nats per pixel and channel, mean over the last 20 steps."""
    with config.unlocked():
        config.model.dtype = dtype
    graphdef, params = base.split(build_model(config))
    state, step = initial_state(config, params), make_train_step(config, graphdef)
    images = tetrominoes.generate(3, 0, 512)["image"]
    rng, found = np.random.default_rng(0), []
    for _ in range(steps):
        batch = {"image": jax.device_put(images[rng.integers(0, len(images), 16)])}
        state, scalars = step(state, batch, {})
        found.append(scalars["elbo"])
    return np.mean(found[-20:]) / (3 * np.prod(config.model.resolution)), np.mean(found[:20])


def test_every_term_of_the_loss_is_float32_under_bfloat16(tiny_gnm):
    with tiny_gnm.unlocked():
        tiny_gnm.model.dtype = "bfloat16"

    def compute():
        model = build_model(tiny_gnm)
        image = jnp.zeros((2, *model.resolution, 3))
        return model.loss(
            Batch({"image": image}), model.noise(jax.random.key(0), 2), step=jnp.int32(0)
        )

    loss, scalars = nnx.eval_shape(compute)
    assert len(scalars) == 14
    assert {x.dtype for x in (loss, *scalars.values())} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_bfloat16_trains_as_float32_does(tiny_gnm):
    exact, start = elbo_per_element(tiny_gnm, "float32", 200)
    rounded, _ = elbo_per_element(tiny_gnm, "bfloat16", 200)
    print(f"ELBO in nats per pixel and channel: float32 {exact:.5f}, bfloat16 {rounded:.5f}")
    assert abs(rounded - exact) < 0.01
    assert exact > start / (3 * np.prod(tiny_gnm.model.resolution)) + 0.05  # it has learnt


@pytest.mark.slow
def test_continued_run_equals_an_undisturbed_one_and_counts(tiny_gnm, tmp_path):
    for name, stops in (("whole", [8]), ("parts", [4, 8])):
        for stop in stops:
            with tiny_gnm.unlocked():
                tiny_gnm.num_train_steps = stop
            loop.train(tiny_gnm, tmp_path / name)
    everywhere = sharding.replicated(sharding.data_mesh())
    whole, parts = (run_dir.load_trained(tmp_path / n, everywhere) for n in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, whole.params, parts.params)
    scores = evaluate(tmp_path / "whole", split="test").means
    assert 0 <= scores["count_accuracy"] <= 1
    assert scores["count_error"] >= 0
    for name in ("elbo", "rec_loss", "kl_pres", "kl_aux_where", "kl_global", "fg_ari", "mse"):
        assert np.isfinite(scores[name])
