"""Optimisers and schedules against the published numbers and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from ml_collections import ConfigDict

from objdisc_jax import config as configs
from objdisc_jax.config import defaults
from objdisc_jax.errors import ConfigError
from objdisc_jax.models import base
from objdisc_jax.models.base import Batch
from objdisc_jax.models.slot_attention.model import ramp
from objdisc_jax.training import optimizers
from objdisc_jax.training.optimizers import Plateau
from objdisc_jax.training.step import initial_state
from tests.golden import published
from tests.models.slot_attention.test_parity import RULES, build


def factors(steps, *, total=1000, **values):
    block = ConfigDict(defaults.default_config().schedule.to_dict() | values)
    return [optimizers.schedule(block, total)(step) for step in steps]


def updated(config, params, gradients, scale=1.0):
    """Parameters after one update for each gradient."""
    transform = optimizers.optimizer(config)
    state = transform.init(params)
    for step, gradient in enumerate(gradients):
        updates, state = transform.update(
            gradient, state, params, step=jnp.int32(step), scale=jnp.float32(scale)
        )
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("name", ["sa_lr_factor", "sa_lr_factor_total100"])
def test_published_shares_of_the_steps_give_the_published_schedule(name):
    golden = published.load_json("schedules.json")[name]
    shares = {key: golden["kwargs"][f"{key}_steps_pct"] for key in ("warmup", "decay")}
    assert shares == {"warmup": 0.02, "decay": 0.2}  # those of the defaults
    found = factors(golden["steps"], total=golden["kwargs"]["total_steps"])
    np.testing.assert_allclose(found, golden["values"], rtol=2e-5)


def test_warm_up_from_the_first_step_matches_published():
    golden = published.load_json("schedules.json")["slate_lr_factor_main"]
    found = factors(golden["steps"], name="constant", warmup_steps=30_000.0, warmup_offset=1)
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
    expected = [0, 0.5 * 0.5 * (1 + np.cos(np.pi * 0.05)), 0.5, 0, 0]
    steps = (0, 5, 50, 100, 200)
    found = factors(steps, name="cosine", warmup_steps=10.0, decay_steps=100.0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    shares = factors(steps, name="cosine", warmup_steps=0.1, decay_steps=1.0, total=100)
    np.testing.assert_allclose(shares, found, rtol=1e-6)


def steady(**values):
    """A config with a rate of 0.01, whatever the step."""
    config = defaults.default_config()
    config.optimizer.update(learning_rate=0.01, **values)
    config.schedule.update(name="constant", warmup_steps=0.0)
    return config


@pytest.mark.parametrize(
    ("name", "kwargs", "make"),
    [
        ("adam", {"b2": 0.99}, lambda w: torch.optim.Adam(w, lr=0.01, betas=(0.9, 0.99))),
        (
            "rmsprop",
            {"decay": 0.99, "eps_in_sqrt": False},
            lambda w: torch.optim.RMSprop(w, lr=0.01, alpha=0.99),
        ),
        ("sgd", {"momentum": 0.8}, lambda w: torch.optim.SGD(w, lr=0.01, momentum=0.8)),
    ],
)
def test_updates_equal_pytorch(name, kwargs, make):
    config = steady(name=name, clip_norm=1.0)
    config.optimizer.kwargs.update(kwargs)
    start = np.array([1.0, -2.0, 3.0], np.float32)
    gradients = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32) * 2
    weight = torch.nn.Parameter(torch.tensor(start))
    theirs = make([weight])
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        theirs.step()
    found = updated(config, jnp.asarray(start), jnp.asarray(gradients))
    np.testing.assert_allclose(found, weight.detach().numpy(), rtol=1e-5)


def test_decoupled_weight_decay_of_matrices_equals_pytorch():
    config = steady(weight_decay=0.1)
    start = {"matrix": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)}
    gradient = {"matrix": np.full((2, 2), 0.3, np.float32), "bias": np.full(2, 0.2, np.float32)}
    weights = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    theirs = torch.optim.AdamW(
        [
            {"params": [weights["matrix"]], "weight_decay": 0.1},
            {"params": [weights["bias"]], "weight_decay": 0.0},
        ],
        lr=0.01,
    )
    for _ in range(3):
        for name, weight in weights.items():
            weight.grad = torch.tensor(gradient[name])
        theirs.step()
    found = updated(config, jax.tree.map(jnp.asarray, start), [gradient] * 3)
    for name, weight in weights.items():
        np.testing.assert_allclose(found[name], weight.detach().numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "lion", "contrib.muon"])
def test_any_optimiser_of_optax_descends(name):
    params = {"a": jnp.ones((3, 3))}
    found = updated(steady(name=name), params, [{"a": jnp.ones((3, 3))}] * 2)
    assert (found["a"] < params["a"]).all()


def test_groups_have_rates_of_their_own_and_one_clipping():
    config = steady(clip_norm=1.0)
    config.schedule.update(warmup_steps=10.0, warmup_offset=1)
    config.optimizer.groups.fast = configs.group_config(
        "a/b/.*", multiplier=3.0, schedule="constant"
    )
    values = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32) * 2
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    theirs = torch.optim.Adam([{"params": [weights[0]], "lr": 0.03}, {"params": [weights[1]]}])
    for step in range(3):
        theirs.param_groups[1]["lr"] = 0.01 * (step + 1) / 10
        for weight, value in zip(weights, values, strict=True):
            weight.grad = torch.tensor(value)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        theirs.step()
    params = {"a": {"b": {"c": jnp.ones(3)}, "bc": jnp.ones(3)}}
    gradient = {"a": {"b": {"c": jnp.asarray(values[0])}, "bc": jnp.asarray(values[1])}}
    found = updated(config, params, [gradient] * 3)
    np.testing.assert_allclose(found["a"]["b"]["c"], weights[0].detach(), rtol=1e-5)
    np.testing.assert_allclose(found["a"]["bc"], weights[1].detach(), rtol=1e-5)


def test_group_without_a_schedule_has_that_of_the_rest():
    config = steady()
    config.schedule.update(warmup_steps=10.0, warmup_offset=1)
    config.optimizer.groups.twice = configs.group_config(".*", multiplier=2.0)
    rates = optimizers.learning_rates(config)
    for step in (0, 4, 20):
        np.testing.assert_allclose(rates["twice"](step), 2 * rates[optimizers.REST](step))


def test_all_parameters_can_be_frozen():
    config = steady(clip_norm=1.0)
    config.optimizer.groups.still = configs.group_config(".*", multiplier=0.0)
    params = {"a": jnp.ones(3)}
    np.testing.assert_array_equal(updated(config, params, [params])["a"], params["a"])


def test_frozen_group_stays_and_has_no_state_and_no_share_of_the_norm():
    params = {"a": jnp.ones(3), "b": jnp.ones(3)}
    gradient = {"a": jnp.full(3, 100.0), "b": jnp.full(3, 0.1)}
    config = steady(name="sgd", clip_norm=1.0)
    config.optimizer.groups.still = configs.group_config("a", multiplier=0.0)
    found = updated(config, params, [gradient])
    np.testing.assert_array_equal(found["a"], params["a"])
    np.testing.assert_allclose(found["b"], 1 - 0.01 * 0.1, rtol=1e-6)
    config.optimizer.name = "adam"
    arrays = jax.tree.leaves(optimizers.optimizer(config).init(params))
    assert sum(x.shape == (3,) for x in arrays) == 2  # both moments of b alone


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("a.*", ".*b"), r"the parameter ab matches the patterns of first and second"),
        (("x",), r"optimizer\.groups\.first\.pattern: 'x' matches .* no parameter\. There are ab"),
    ],
)
def test_patterns_that_match_twice_or_never_are_refused(patterns, message):
    config = steady()
    for name, pattern in zip(("first", "second"), patterns, strict=False):
        config.optimizer.groups[name] = configs.group_config(pattern)
    with pytest.raises(ConfigError, match=message):
        initial_state(config, {"ab": jnp.ones(2)})


def no_schedule(group):
    del group.schedule


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rest", {}, r"groups\.rest: this name"),
        (
            "own",
            {"multipllier": 0.0},
            r"groups\.own: multipllier is missing, or no key",
        ),
        ("own", {"schedule.decay": 1}, r"groups\.own\.schedule: decay is missing, or no key"),
        ("own", no_schedule, r"groups\.own: schedule is missing"),
        (
            "own",
            {"schedule.warmup_steps": 0.1},
            r"name: is None, so warmup_steps would be",
        ),
        ("own", {"pattern": "dec(["}, r"own\.pattern: 'dec\(\[' is no regular expression"),
    ],
)
def test_groups_made_by_mistake_are_refused(name, change, message):
    config = configs.experiment(model="slot_attention", data="tetrominoes")
    config.optimizer.groups[name] = group = configs.group_config(".*")
    if callable(change):
        change(group)
    else:
        for key, value in change.items():
            block = group.schedule if "." in key else group
            block[key.removeprefix("schedule.")] = value
    with pytest.raises(ConfigError, match=message):
        configs.check(config)


def test_optimiser_that_needs_more_than_gradients_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer: optax\.lbfgs cannot be used with gradients"):
        initial_state(steady(name="lbfgs"), {"a": jnp.ones(2)})


def test_no_weight_decay_means_none_with_adamw_either():
    params = {"a": jnp.ones((2, 2))}
    found = updated(steady(name="adamw"), params, [{"a": jnp.zeros((2, 2))}])
    np.testing.assert_array_equal(found["a"], params["a"])


def test_unknown_argument_of_an_optimiser_is_refused():
    config = steady(name="sgd")
    config.optimizer.kwargs.b1 = 0.9
    with pytest.raises(ConfigError, match=r"kwargs\.b1: optax\.sgd has no such .*momentum"):
        optimizers.optimizer(config)
    config = steady(name="sgd")
    config.optimizer.kwargs.learning_rate = 0.9
    with pytest.raises(ConfigError, match=r"kwargs\.learning_rate: optax\.sgd has no such"):
        optimizers.optimizer(config)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_plateau_halves_after_the_fifth_validation_without_gain(sign):
    config = steady()
    config.plateau.enabled = True
    first = sign * 2.0
    plateau, scales = Plateau.initial(), []
    #        best   too little a gain   worse             five, a gain,   and five again
    losses = [first, first - 1e-4, first + 1, *[first] * 3, first - 0.1, *[first] * 5, first]
    for loss in losses:
        plateau = plateau.after(loss, config.plateau)
        scales.append(float(plateau.scale))
    assert scales == [1.0] * 5 + [0.5] * 6 + [0.25] * 2
    found = updated(config, jnp.zeros(3), [jnp.ones(3)], plateau.scale)
    np.testing.assert_allclose(found, -0.25 * 0.01, rtol=1e-4)


def test_twenty_adam_steps_match_published():
    golden = published.load_json("train_trace.json")
    kwargs = golden["schedule"]
    config = defaults.default_config()
    config.num_train_steps = kwargs["total_steps"]
    assert config.schedule.warmup_steps == kwargs["warmup_steps_pct"]
    assert config.schedule.decay_steps == kwargs["decay_steps_pct"]
    model = golden["model"]
    graphdef, params = build(model)
    params = published.recipe_params(params, RULES)
    image = published.make_image(golden["img_seed"], golden["batch"], *model["resolution"], -1, 1)
    shape = (golden["batch"], model["num_slots"], model["slot_size"])
    noise = {"slots": published.make_noise(golden["noise_seed"], shape)}
    transform = optimizers.optimizer(config)

    @jax.jit
    def update(params, state, step):
        def loss(params):
            batch = Batch({"image": image})
            return base.merge(graphdef, params).loss(batch, noise, step=jnp.int32(0))[0].mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = transform.update(grads, state, params, step=step, scale=1.0)
        return value, optax.apply_updates(params, updates), state

    state = transform.init(params)
    losses = []
    for step in range(21):
        loss, params, state = update(params, state, step)
        losses.append(float(loss))
    np.testing.assert_allclose(losses[:20], golden["loss"], rtol=1e-4)
    np.testing.assert_allclose(losses[20], golden["loss_after_20_updates"], rtol=1e-4)
    rate = optimizers.learning_rates(config)[optimizers.REST]
    rates = [float(rate(step)) for step in range(20)]
    np.testing.assert_allclose(rates, golden["lr"], rtol=1e-5)
