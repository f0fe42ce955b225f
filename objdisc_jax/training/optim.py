"""Optimisers and learning-rate schedules from the config."""

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from ml_collections import ConfigDict


def schedule_factor(config: ConfigDict, step: ArrayLike) -> Float[Array, ""]:
    """The factor of the learning rate at a step, from a `schedule` block.

    Every schedule is multiplied by a linear warm-up min(1, step / warmup_steps), which is 0 at
    step 0, as in the published code. `exponential` halves every `decay_steps`; `cosine` falls
    along half a cosine and stays 0 from `decay_steps` on.
    """
    step = jnp.asarray(step, jnp.float32)
    warmup = jnp.minimum(1.0, step / config.warmup_steps) if config.warmup_steps else 1.0
    decay = 1.0
    if config.name == "exponential":
        decay = 0.5 ** (step / config.decay_steps)
    elif config.name == "cosine":
        progress = jnp.minimum(step / config.decay_steps, 1.0)
        decay = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return jnp.asarray(warmup * decay, jnp.float32)


def learning_rate(config: ConfigDict, step: ArrayLike) -> Float[Array, ""]:
    """The learning rate of the update made at a step."""
    return config.optimizer.learning_rate * schedule_factor(config.schedule, step)


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """The gradient transformation of a config: clipping, then Adam or RMSprop, then the rate.

    RMSprop is PyTorch's: epsilon outside the root, no bias correction.
    """
    settings = config.optimizer
    if settings.name == "adam":
        scale = optax.scale_by_adam(b1=settings.b1, b2=settings.b2, eps=settings.eps)
    else:
        scale = optax.scale_by_rms(decay=settings.b2, eps=settings.eps, eps_in_sqrt=False)
    clip = optax.identity()
    if settings.clip_norm is not None:
        clip = optax.clip_by_global_norm(settings.clip_norm)
    rate = optax.scale_by_learning_rate(lambda step: learning_rate(config, step))
    return optax.chain(clip, scale, rate)
