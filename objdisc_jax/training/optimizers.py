"""Optimisers of optax by name, learning rates, and groups of parameters, from the config."""

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PyTree
from ml_collections import ConfigDict

from objdisc_jax.config.defaults import REST
from objdisc_jax.errors import ConfigError
from objdisc_jax.names import closest

Schedule = Callable[[ArrayLike], ArrayLike]


def schedule(block: ConfigDict, num_train_steps: int) -> Schedule:
    """The factor of the learning rate as a function of the step, from a `schedule` block.

    It is multiplied by a linear warm-up min(1, (step + offset) / warmup_steps), whose
    `warmup_offset` is 0 for the published Slot Attention and 1 for the published SLATE.
    `exponential` halves every `decay_steps`; `cosine` falls along half a cosine and stays 0 from
    `decay_steps` on.
    """
    warmup, decay = (_steps(block[key], num_train_steps) for key in ("warmup_steps", "decay_steps"))
    decays: dict[str, Schedule] = {
        "constant": optax.constant_schedule(1.0),
        "exponential": optax.exponential_decay(1.0, max(decay, 1), 0.5),
        "cosine": optax.cosine_decay_schedule(1.0, max(decay, 1)),
    }

    def factor(step: ArrayLike) -> Array:
        # optax's linear schedule is off by 4e-4 of itself in the first steps.
        warm = jnp.minimum(1.0, (step + block.warmup_offset) / warmup) if warmup else 1.0
        return jnp.float32(warm * decays[block.name](step))

    return factor


def _steps(value: float, num_train_steps: int) -> int:
    """A number of steps; up to 1 it is a share of all."""
    return round(value * num_train_steps if value <= 1 else value)


def learning_rates(config: ConfigDict) -> dict[str, Schedule]:
    """The learning rate of every group of parameters as a function of the step.

    A group's is its multiplier times that of the rest, along its own schedule if it names one.
    """

    def rate(factor: float, block: ConfigDict) -> Schedule:
        factors = schedule(block, config.num_train_steps)
        return lambda step: factor * factors(step)

    peak, groups = config.optimizer.learning_rate, config.optimizer.groups
    return {REST: rate(peak, config.schedule)} | {
        name: rate(
            peak * group.multiplier, group.schedule if group.schedule.name else config.schedule
        )
        for name, group in groups.items()
    }


def optimizer(config: ConfigDict) -> optax.GradientTransformationExtraArgs:
    """The gradient transformation of a config: clip, optimiser, decay, learning rates.

    `update` takes the keyword arguments `step` and `scale`, a factor of all learning rates. The
    gradient is clipped by its norm over all groups that are not frozen; these have no state.

    Raises:
        ConfigError: optax has no such optimiser, or that has no such argument.
    """
    settings = config.optimizer
    parts = [_named(settings)]
    if settings.clip_norm is not None:
        parts.insert(0, _clip_by_global_norm(settings.clip_norm))
    by_group = {}
    for name, rate in learning_rates(config).items():
        decay = settings.weight_decay
        if name != REST:
            decay *= settings.groups[name].decay_multiplier
        # The optimiser has been given the rate 1, so its updates already point downhill.
        decayed = optax.add_decayed_weights(-decay, _are_matrices) if decay else optax.identity()
        by_group[name] = optax.chain(decayed, _scale_by_rate(rate))
    parts.append(optax.partition(by_group, lambda params: labels(config, params)))
    trained = optax.chain(*parts)
    frozen = {name for name, group in settings.groups.items() if group.multiplier == 0}
    if not frozen:
        return optax.with_extra_args_support(trained)
    return optax.partition(
        {True: optax.set_to_zero(), False: trained},
        lambda params: jax.tree.map(lambda name: name in frozen, labels(config, params)),
    )


def labels(config: ConfigDict, params: PyTree) -> PyTree[str]:
    """The group of every parameter; one in two groups is a `ConfigError`."""

    def label(path: jax.tree_util.KeyPath, _: Any) -> str:
        name = _name(path)
        found = [
            group
            for group, block in config.optimizer.groups.items()
            if re.fullmatch(block.pattern, name)
        ]
        if len(found) > 1:
            raise ConfigError(
                f"optimizer.groups: the parameter {name} matches the patterns of "
                f"{' and '.join(found)}. A parameter is in one group at most: narrow one pattern."
            )
        return found[0] if found else REST

    return jax.tree.map_with_path(label, params)


def _name(path: jax.tree_util.KeyPath) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check(config: ConfigDict, params: PyTree) -> None:
    """Checks that every group has parameters, no parameter two groups, and that updates work."""
    used = jax.tree.leaves(labels(config, params))
    for name, group in config.optimizer.groups.items():
        if name in used:
            continue
        paths = [_name(path) for path, _ in jax.tree.leaves_with_path(params)]
        raise ConfigError(
            f"optimizer.groups.{name}.pattern: {group.pattern!r} matches "
            f"the whole path of no parameter. There are {', '.join(paths[:8])}, ..."
        )
    try:
        transform = optimizer(config)
        jax.eval_shape(lambda p: transform.update(p, transform.init(p), p, step=0, scale=1), params)
    except TypeError as error:
        raise ConfigError(
            f"optimizer: optax.{config.optimizer.name} cannot be used with gradients alone, or not "
            f"with these kwargs ({error}). Choose another."
        ) from error


def _named(settings: ConfigDict) -> optax.GradientTransformation:
    """The optimiser with a learning rate of 1; that of a step is a factor behind it."""
    make: Any = optax
    for part in settings.name.split("."):
        make = getattr(make, part, None)
    parameters = inspect.signature(make).parameters if callable(make) else {}
    if "learning_rate" not in parameters:
        known = [
            name for name in dir(optax) if name[0] != "_" and _takes_a_rate(getattr(optax, name))
        ]
        raise ConfigError(
            f"optimizer.name: optax has no optimiser {settings.name!r}"
            f"{closest(settings.name, known)}. There are {', '.join(known)}, and those of "
            "optax.contrib, as in 'contrib.muon'."
        )
    arguments = {key: value for key, value in settings.kwargs.items() if value is not None}
    if "weight_decay" in parameters:
        arguments.setdefault("weight_decay", 0.0)  # optimizer.weight_decay is that of all
    for key in arguments:
        if key not in parameters or key == "learning_rate":
            raise ConfigError(
                f"optimizer.kwargs.{key}: optax.{settings.name} has no such argument here"
                f"{closest(key, parameters)}. It has {', '.join(parameters)}."
            )
    return cast(Callable[..., Any], make)(learning_rate=1.0, **arguments)


def _takes_a_rate(member: Any) -> bool:
    return inspect.isfunction(member) and "learning_rate" in inspect.signature(member).parameters


def global_norm(tree: PyTree[Array]) -> Float[Array, ""]:
    """`optax.tree.norm`, as one sum and not a kernel on the GPU for every parameter."""
    return jnp.linalg.norm(ravel_pytree(tree)[0])


def _clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """optax's, with that norm."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        factor = max_norm / jnp.maximum(global_norm(updates), max_norm)
        return jax.tree.map(lambda x: factor * x, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _are_matrices(params: PyTree) -> PyTree[bool]:
    return jax.tree.map(lambda x: x.ndim >= 2, params)


def _scale_by_rate(rate: Schedule) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by a learning rate of the step that the update is told."""

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params
        factor = extra["scale"] * rate(extra["step"])
        return jax.tree.map(lambda x: factor * x, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


class Plateau(NamedTuple):
    """How validation goes, for lowering the rates when it no longer gets better.

    optax's own counts a loss below 0, as GNM's, as better when it is a little worse.
    """

    scale: Float[Array, ""]  # factor of all learning rates
    best: Float[Array, ""]  # the lowest validation loss yet
    num_bad: Int[Array, ""]  # validations in a row that were no better

    @classmethod
    def initial(cls) -> "Plateau":
        """Before the first validation."""
        return cls(jnp.float32(1.0), jnp.float32(jnp.inf), jnp.int32(0))

    def after(self, loss: float, settings: ConfigDict) -> "Plateau":
        """When a scheduled validation has found this loss.

        The scale is multiplied by `factor` when more than `patience` validations in a row were not
        better than the best by a relative `threshold`.
        """
        if not settings.enabled:
            return self
        found = jnp.float32(loss)
        is_better = found < self.best - settings.threshold * jnp.abs(self.best)
        # At first `best` is infinite, and so is the difference's second part.
        is_better |= jnp.isinf(self.best)
        num_bad = jnp.where(is_better, 0, self.num_bad + 1)
        is_over = num_bad > settings.patience
        new = Plateau(
            jnp.where(is_over, self.scale * settings.factor, self.scale),
            jnp.where(is_better, found, self.best),
            jnp.where(is_over, 0, num_bad),
        )
        return jax.tree.map(lambda x, old: jax.device_put(x, old.sharding), new, self)
