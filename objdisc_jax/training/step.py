"""The training state, and the jitted update."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Int
from ml_collections import ConfigDict

from objdisc_jax.compiling import jit
from objdisc_jax.models import base
from objdisc_jax.preprocessing import prepare_batch
from objdisc_jax.training import optimizers

Fields = dict[str, Array]
Scalars = dict[str, Array]


class TrainState(NamedTuple):
    """All that training changes, a plain pytree."""

    step: Int[Array, ""]  # number of updates made
    params: base.Params  # the model's parameters, less its frozen parts
    opt_state: Any  # the optimiser's state
    plateau: optimizers.Plateau  # the learning rates' factor that follows validations
    ema: base.Params  # moving average of the parameters; empty without `optimizer.ema_decay`

    @property
    def averaged(self) -> base.Params:
        """The parameters that are evaluated, shown and exported."""
        return self.ema or self.params


def initial_state(config: ConfigDict, params: base.Params, step: int = 0) -> TrainState:
    """The state before the first update, or at a step with a fresh optimiser."""
    optimizers.check(config, params)
    opt_state = optimizers.optimizer(config).init(params)
    # A copy, because the update reuses the buffers of both.
    ema = {} if config.optimizer.ema_decay is None else jax.tree.map(jnp.copy, params)
    return TrainState(jnp.int32(step), params, opt_state, optimizers.Plateau.initial(), ema)


def make_train_step(
    config: ConfigDict, graphdef: nnx.GraphDef
) -> Callable[[TrainState, Fields, base.Params], tuple[TrainState, Scalars]]:
    """The jitted update `(state, fields, frozen) -> (state, scalars)`.

    It reuses the old state's buffers. `fields` are those of the data set that the model names,
    `frozen` the parameters of the model's frozen parts. The scalars are `loss` and the model's own,
    `grad_norm`, `learning_rate` (and that of every group of parameters), and `finite`: whether loss
    and gradient norm are.

    All randomness comes from the config's seed and the step, so a run that is continued draws
    what an undisturbed one draws. With gradient accumulation the batch is computed in
    `num_microbatches` parts with the same noise, and gives the same update but for rounding and
    dropout.
    """
    num_microbatches, seed, decay = config.num_microbatches, config.seed, config.optimizer.ema_decay
    transform, rates = optimizers.optimizer(config), optimizers.learning_rates(config)

    def loss_of(params, batch, noise, dropout_key, step, frozen):
        model = base.merge(graphdef, params | frozen)
        loss, scalars = model.loss(batch, noise, step=step, dropout_key=dropout_key)
        return jnp.mean(loss), jax.tree.map(jnp.mean, {"loss": loss, **scalars})

    def train_step(
        state: TrainState, fields: Fields, frozen: base.Params
    ) -> tuple[TrainState, Scalars]:
        step, params = state.step, state.params
        noise_key, dropout_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), step))
        model = base.merge(graphdef, params | frozen)
        batch = prepare_batch(fields, model)
        noise = model.noise(noise_key, len(batch))
        gradient = jax.grad(loss_of, has_aux=True)
        if num_microbatches == 1:
            grads, scalars = gradient(params, batch, noise, dropout_key, step, frozen)
        else:
            # Each takes every n-th example, so that all devices have a share of it.
            microbatches = jax.tree.map(
                lambda x: rearrange(x, "(b n) ... -> n b ...", n=num_microbatches), (batch, noise)
            )
            keys = jax.random.split(dropout_key, num_microbatches)

            def add(total, microbatch):
                (batch, noise), key = microbatch
                found = gradient(params, batch, noise, key, step, frozen)
                return jax.tree.map(jnp.add, total, found), None

            one = jax.tree.map(lambda x: x[0], (microbatches, keys))
            shapes = jax.eval_shape(lambda: gradient(params, *one[0], one[1], step, frozen))
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            total, _ = jax.lax.scan(add, zeros, (microbatches, keys))
            grads, scalars = jax.tree.map(lambda x: x / num_microbatches, total)
        scalars["grad_norm"] = optimizers.global_norm(grads)
        scalars["finite"] = jnp.isfinite(scalars["loss"]) & jnp.isfinite(scalars["grad_norm"])
        scale = state.plateau.scale
        for group, rate in rates.items():
            suffix = "" if group == optimizers.REST else f"_{group}"
            scalars[f"learning_rate{suffix}"] = scale * rate(step)
        updates, opt_state = transform.update(
            grads, state.opt_state, params, step=step, scale=scale
        )
        new: Any = optax.apply_updates(params, updates)
        ema: Any = state.ema
        if decay is not None:  # the first steps count for less, as far from where it will be
            share = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
            ema = optax.incremental_update(new, ema, share)
        return TrainState(step + 1, new, opt_state, state.plateau, ema), scalars

    return jit(train_step, donate_argnums=0)
