"""Optimisers and schedules against the published numbers and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from ml_collections import ConfigDict

from objdisc_jax import settings
from objdisc_jax.models import base
from objdisc_jax.models.slot_attention import ramp
from objdisc_jax.training import optim
from tests.golden import published
from tests.models.test_slot_attention_parity import RULES, build


def schedule(**values):
    return ConfigDict(settings.default_config().schedule.to_dict() | values)


@pytest.mark.parametrize("name", ["sa_lr_factor", "sa_lr_factor_total100"])
def test_exponential_schedule_matches_published(name):
    golden = published.load_json("schedules.json")[name]
    total, warmup, decay = (
        golden["kwargs"][key] for key in ("total_steps", "warmup_steps_pct", "decay_steps_pct")
    )
    config = schedule(warmup_steps=round(total * warmup), decay_steps=round(total * decay))
    found = [optim.schedule_factor(config, step) for step in golden["steps"]]
    np.testing.assert_allclose(found, golden["values"], rtol=2e-5)


@pytest.mark.parametrize("name", ["sa_separation_tau", "sa_area_tau"])
def test_regulariser_ramps_match_published(name):
    golden = published.load_json("schedules.json")[name]
    kwargs = golden["kwargs"]
    found = [
        ramp(jnp.int32(step), kwargs["max_val"], (kwargs["start"], kwargs["end"]))
        for step in golden["steps"]
    ]
    np.testing.assert_allclose(found, golden["values"], atol=2e-7 * kwargs["max_val"])


def test_cosine_schedule_warms_up_and_ends_at_zero():
    config = schedule(name="cosine", warmup_steps=10, decay_steps=100)
    factor = [float(optim.schedule_factor(config, step)) for step in (0, 5, 50, 100, 200)]
    expected = [0, 0.5 * 0.5 * (1 + np.cos(np.pi * 0.05)), 0.5, 0, 0]
    np.testing.assert_allclose(factor, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_updates_equal_pytorch(name):
    config = settings.default_config()
    config.optimizer.update(name=name, learning_rate=0.01, b2=0.99, clip_norm=1.0)
    config.schedule.update(name="constant", warmup_steps=0)
    start = np.array([1.0, -2.0, 3.0], np.float32)
    gradients = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32) * 2

    weight = torch.nn.Parameter(torch.tensor(start))
    if name == "adam":
        theirs = torch.optim.Adam([weight], lr=0.01, betas=(0.9, 0.99))
    else:
        theirs = torch.optim.RMSprop([weight], lr=0.01, alpha=0.99)
    transform = optim.optimizer(config)
    params = jnp.asarray(start)
    state = transform.init(params)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        theirs.step()
        updates, state = transform.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, weight.detach().numpy(), rtol=1e-5)


def test_twenty_adam_steps_match_published():
    golden = published.load_json("train_trace.json")
    kwargs = golden["schedule"]
    config = settings.default_config()
    config.schedule.update(
        warmup_steps=round(kwargs["total_steps"] * kwargs["warmup_steps_pct"]),
        decay_steps=round(kwargs["total_steps"] * kwargs["decay_steps_pct"]),
    )
    model = golden["model"]
    graphdef, params = build(model)
    params = published.recipe_params(params, RULES)
    image = published.make_image(golden["img_seed"], golden["batch"], *model["resolution"], -1, 1)
    shape = (golden["batch"], model["num_slots"], model["slot_size"])
    noise = {"slots": published.make_noise(golden["noise_seed"], shape)}
    transform = optim.optimizer(config)

    @jax.jit
    def update(params, state):
        def loss(params):
            return base.merge(graphdef, params).loss(image, noise, step=jnp.int32(0))[0].mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = transform.update(grads, state, params)
        return value, optax.apply_updates(params, updates), state

    state = transform.init(params)
    losses = []
    for _ in range(21):
        loss, params, state = update(params, state)
        losses.append(float(loss))
    np.testing.assert_allclose(losses[:20], golden["loss"], rtol=1e-4)
    np.testing.assert_allclose(losses[20], golden["loss_after_20_updates"], rtol=1e-4)
    rates = [float(optim.learning_rate(config, step)) for step in range(20)]
    np.testing.assert_allclose(rates, golden["lr"], rtol=1e-5)
