"""Optimisers and learning-rate schedules from the config."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PyTree
from ml_collections import ConfigDict

Groups = Mapping[str, tuple[str, ...]]
"""Groups of parameters: what the paths of each begin with. All others are the rest."""


def schedule_factor(config: ConfigDict, step: ArrayLike) -> Float[Array, ""]:
    """The factor of the learning rate at a step, from a `schedule` block.

    Every schedule is multiplied by a linear warm-up min(1, (step + offset) / warmup_steps), whose
    `warmup_offset` is 0 for the published Slot Attention and 1 for the published SLATE.
    `exponential` halves every `decay_steps`; `cosine` falls along half a cosine and stays 0 from
    `decay_steps` on.
    """
    step = jnp.asarray(step, jnp.float32)
    warmup = 1.0
    if config.warmup_steps:
        warmup = jnp.minimum(1.0, (step + config.warmup_offset) / config.warmup_steps)
    decay = 1.0
    if config.name == "exponential":
        decay = 0.5 ** (step / config.decay_steps)
    elif config.name == "cosine":
        progress = jnp.minimum(step / config.decay_steps, 1.0)
        decay = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return jnp.asarray(warmup * decay, jnp.float32)


def learning_rate(
    config: ConfigDict, step: ArrayLike, group: str | None = None
) -> Float[Array, ""]:
    """The learning rate of the update made at a step, of a group or of the rest.

    What a group's block leaves open is as for the rest.
    """
    rate, schedule = config.optimizer.learning_rate, config.schedule
    if group is not None:
        own = config.optimizer.groups[group]
        rate = rate if own.learning_rate is None else own.learning_rate
        schedule = schedule if own.schedule.name is None else own.schedule
    return rate * schedule_factor(schedule, step)


def optimizer(config: ConfigDict, groups: Groups | None = None) -> optax.GradientTransformation:
    """The gradient transformation of a config: clipping, Adam or RMSprop, rates, plateau.

    The gradient is clipped by its norm over all groups. RMSprop is PyTorch's: epsilon outside the
    root, no bias correction. The groups are of no consequence to the state.
    """
    settings = config.optimizer
    if settings.name == "adam":
        scale = optax.scale_by_adam(b1=settings.b1, b2=settings.b2, eps=settings.eps)
    else:
        scale = optax.scale_by_rms(decay=settings.b2, eps=settings.eps, eps_in_sqrt=False)
    clip = optax.identity()
    if settings.clip_norm is not None:
        clip = optax.clip_by_global_norm(settings.clip_norm)
    parts = [clip, scale, _scale_by_rates(config, groups or {})]
    if config.plateau.enabled:
        parts.append(_scale_by_plateau())
    return optax.chain(*parts)


def at_step(opt_state: Any, step: int) -> Any:
    """A chain's state with its learning rates as of a step; moments and plateau stay."""
    count = jnp.int32(step)
    return tuple(
        part._replace(count=count) if isinstance(part, optax.ScaleByScheduleState) else part
        for part in opt_state
    )


def _scale_by_rates(config: ConfigDict, groups: Groups) -> optax.GradientTransformation:
    """Multiplies every group's updates by −1 times its learning rate."""

    def init(params: PyTree) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree | None = None):
        del params
        rates = {name: learning_rate(config, state.count, name) for name in (None, *groups)}

        def scaled(path, x):
            return -rates[_group(path, groups)] * x

        updates = jax.tree.map_with_path(scaled, updates)
        return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def _group(path: jax.tree_util.KeyPath, groups: Groups) -> str | None:
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    for group, beginnings in groups.items():
        if any(name == part or name.startswith(f"{part}.") for part in beginnings):
            return group
    return None


class Plateau(NamedTuple):
    """How validation goes, for halving the rate when it no longer gets better.

    Attributes:
        scale: factor of all learning rates.
        best: the lowest validation loss yet.
        num_bad: validations in a row that were no better.
    """

    scale: Float[Array, ""]
    best: Float[Array, ""]
    num_bad: Int[Array, ""]


def _scale_by_plateau() -> optax.GradientTransformation:
    """Multiplies updates by the plateau's scale, which `after_validation` changes."""

    def init(params: PyTree) -> Plateau:
        del params
        return Plateau(jnp.float32(1.0), jnp.float32(jnp.inf), jnp.int32(0))

    def update(updates: PyTree, state: Any, params: PyTree | None = None):
        del params
        return jax.tree.map(lambda x: state.scale * x, updates), state

    return optax.GradientTransformation(init, update)


def plateau_scale(opt_state: Any) -> Array | float:
    """The factor that a plateau has left of the learning rates; 1 where there is none."""
    return opt_state[-1].scale if isinstance(opt_state[-1], Plateau) else 1.0


def after_validation(config: ConfigDict, opt_state: Any, loss: float) -> Any:
    """The optimiser's state when a scheduled validation has found this loss.

    With `plateau.enabled` the rates are multiplied by `factor` when more than `patience`
    validations in a row were not better than the best by a relative `threshold`.
    """
    settings = config.plateau
    if not settings.enabled:
        return opt_state
    *others, plateau = opt_state
    found = jnp.float32(loss)
    is_better = found < plateau.best - settings.threshold * jnp.abs(plateau.best)
    # At first `best` is infinite, and so is the difference's second part.
    is_better |= jnp.isinf(plateau.best)
    num_bad = jnp.where(is_better, 0, plateau.num_bad + 1)
    is_over = num_bad > settings.patience
    new = Plateau(
        jnp.where(is_over, plateau.scale * settings.factor, plateau.scale),
        jnp.where(is_better, found, plateau.best),
        jnp.where(is_over, 0, num_bad),
    )
    return (*others, jax.tree.map(lambda x, old: jax.device_put(x, old.sharding), new, plateau))
