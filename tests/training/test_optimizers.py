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
from objdisc_jax.models.slot_attention.model import ramp
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


def test_warm_up_from_the_first_step_matches_published():
    golden = published.load_json("schedules.json")["slate_lr_factor_main"]
    config = schedule(name="constant", warmup_steps=30_000, warmup_offset=1)
    found = [optim.schedule_factor(config, step) for step in golden["steps"]]
    np.testing.assert_allclose(found, golden["values"], rtol=1e-6)


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


def grouped(**values):
    """A config with a group of parameters "fast"."""
    config = settings.default_config()
    config.optimizer.groups.fast = settings.group_config()
    config.optimizer.update(learning_rate=0.01, clip_norm=1.0)
    config.schedule.update(name="constant", warmup_steps=10, warmup_offset=1)
    config.optimizer.groups.fast.update(values)
    return config


def test_groups_have_rates_of_their_own_and_one_clipping():
    config = grouped(learning_rate=0.03)
    config.optimizer.groups.fast.schedule.name = "constant"
    values = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32) * 2
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    theirs = torch.optim.Adam([{"params": [weights[0]], "lr": 0.03}, {"params": [weights[1]]}])
    transform = optim.optimizer(config, {"fast": ("a.b",)})
    params = {"a": {"b": {"c": jnp.ones(3)}, "bc": jnp.ones(3)}}
    state = transform.init(params)
    for step in range(3):
        theirs.param_groups[1]["lr"] = 0.01 * (step + 1) / 10
        for weight, value in zip(weights, values, strict=True):
            weight.grad = torch.tensor(value)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        theirs.step()
        gradient = {"a": {"b": {"c": jnp.asarray(values[0])}, "bc": jnp.asarray(values[1])}}
        updates, state = transform.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["a"]["b"]["c"], weights[0].detach(), rtol=1e-5)
    np.testing.assert_allclose(params["a"]["bc"], weights[1].detach(), rtol=1e-5)


def test_open_settings_of_a_group_are_those_of_the_rest():
    config = grouped()
    for step in (0, 4, 20):
        assert optim.learning_rate(config, step, "fast") == optim.learning_rate(config, step)
    config.optimizer.groups.fast.learning_rate = 0.1
    np.testing.assert_allclose(optim.learning_rate(config, 4, "fast"), 0.05)


def test_groups_and_idle_plateau_leave_the_state_as_it_was():
    params = {"a": jnp.ones(3)}
    plain = optim.optimizer(settings.default_config()).init(params)
    chain = optax.chain(
        optax.identity(), optax.scale_by_adam(), optax.scale_by_schedule(lambda _: 1.0)
    )
    assert jax.tree.structure(plain) == jax.tree.structure(chain.init(params))
    assert jax.tree.structure(optim.optimizer(grouped()).init(params)) == jax.tree.structure(plain)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_plateau_halves_after_the_fifth_validation_without_gain(sign):
    config = settings.default_config()
    config.plateau.enabled = True
    config.schedule.update(name="constant", warmup_steps=0)
    transform = optim.optimizer(config)
    params = jnp.ones(3)
    state = transform.init(params)

    def rate():
        return float(optim.plateau_scale(state))

    first = sign * 2.0
    scales = []
    #        best   too little a gain   worse             five, a gain,   and five again
    losses = [first, first - 1e-4, first + 1, *[first] * 3, first - 0.1, *[first] * 5, first]
    for loss in losses:
        state = optim.after_validation(config, state, loss)
        scales.append(rate())
    assert scales == [1.0] * 5 + [0.5] * 6 + [0.25] * 2
    updates, _ = transform.update(jnp.ones(3), state, params)
    np.testing.assert_allclose(updates, -0.25 * config.optimizer.learning_rate, rtol=1e-4)


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
