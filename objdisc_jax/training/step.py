"""The training state and the jitted update."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8
from ml_collections import ConfigDict

from objdisc_jax.models import base
from objdisc_jax.training import optim

Batch = dict[str, Array]
Scalars = dict[str, Array]


class TrainState(NamedTuple):
    """All that training changes, a plain pytree.

    Attributes:
        step: number of updates made.
        params: the model's parameters.
        opt_state: the optimiser's state.
    """

    step: Int[Array, ""]
    params: base.Params
    opt_state: Any


def initial_state(config: ConfigDict, params: base.Params, step: int = 0) -> TrainState:
    """The state before the first update, or at a step with a fresh optimiser."""
    opt_state = optim.at_step(optim.optimizer(config).init(params), step)
    return TrainState(jnp.int32(step), params, opt_state)


def prepare_images(
    image: UInt8[Array, "b h w 3"],
    resolution: tuple[int, int],
    input_range: tuple[float, float],
) -> Float[Array, "b h2 w2 3"]:
    """Scales bytes to a model's input range, then resizes to its resolution.

    Bilinear with half-pixel centres and no antialiasing, as the published pipelines do.
    """
    low, high = input_range
    scaled = low + (high - low) * (image.astype(jnp.float32) / 255.0)
    shape = (len(image), *resolution, image.shape[-1])
    return jax.image.resize(scaled, shape, method="bilinear", antialias=False)


def resize_labels(
    segmentation: UInt8[Array, "b h w"], resolution: tuple[int, int]
) -> UInt8[Array, "b h2 w2"]:
    """Resizes label maps to a model's resolution, nearest neighbour with half-pixel centres."""
    return jax.image.resize(segmentation, (len(segmentation), *resolution), method="nearest")


def make_train_step(
    config: ConfigDict, graphdef: nnx.GraphDef
) -> Callable[[TrainState, Batch], tuple[TrainState, Scalars]]:
    """The jitted update `(state, batch) -> (state, scalars)`; the old state's buffers are reused.

    The scalars are `loss` and the model's own, `grad_norm`, `learning_rate` (and that of every
    group of parameters), and `finite`: whether loss and gradient norm are.

    All randomness comes from the config's seed and the step, so a run that is continued draws
    what an undisturbed one draws. With `num_microbatches` n the batch is computed in n parts with
    the same noise, and gives the same update but for rounding and dropout.
    """
    num_parts = config.num_microbatches
    seed = config.seed

    def loss_of_part(params, image, noise, dropout_key, step):
        model = base.merge(graphdef, params)
        loss, scalars = model.loss(image, noise, step=step, dropout_key=dropout_key)
        return jnp.mean(loss), jax.tree.map(jnp.mean, {"loss": loss, **scalars})

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        noise_key, dropout_key = jax.random.split(
            jax.random.fold_in(jax.random.key(seed), state.step)
        )
        model = base.merge(graphdef, state.params)
        image = prepare_images(batch["image"], model.resolution, model.input_range)
        noise = model.noise(noise_key, len(image))
        gradient = jax.grad(loss_of_part, has_aux=True)
        if num_parts == 1:
            grads, scalars = gradient(state.params, image, noise, dropout_key, state.step)
        else:
            # Each part takes every n-th example, so that all devices have a share of it.
            parts = jax.tree.map(
                lambda x: rearrange(x, "(b n) ... -> n b ...", n=num_parts), (image, noise)
            )
            keys = jax.random.split(dropout_key, num_parts)

            def add_part(total, part):
                (image, noise), key = part
                found = gradient(state.params, image, noise, key, state.step)
                return jax.tree.map(jnp.add, total, found), None

            first = jax.tree.map(lambda x: x[0], (parts, keys))
            shapes = jax.eval_shape(lambda: gradient(state.params, *first[0], first[1], state.step))
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            total, _ = jax.lax.scan(add_part, zeros, (parts, keys))
            grads, scalars = jax.tree.map(lambda x: x / num_parts, total)
        scalars["grad_norm"] = optax.tree.norm(grads)
        scalars["finite"] = jnp.isfinite(scalars["loss"]) & jnp.isfinite(scalars["grad_norm"])
        scale = optim.plateau_scale(state.opt_state)
        scalars["learning_rate"] = scale * optim.learning_rate(config, state.step)
        for group in model.optimizer_groups:
            rate = scale * optim.learning_rate(config, state.step, group)
            scalars[f"learning_rate_{group}"] = rate
        transform = optim.optimizer(config, model.optimizer_groups)
        updates, opt_state = transform.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state), scalars

    return jax.jit(train_step, donate_argnums=0)
