"""Annealed quantities as functions of the traced training step."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def cosine_ramp(
    step: ArrayLike, *, start_value: float, end_value: float, start_step: int, end_step: int
) -> Float[Array, "*n"]:
    """Goes from one value to another along half a cosine, constant outside the two steps."""
    span = max(end_step - start_step, 1)
    progress = jnp.clip((jnp.asarray(step) - start_step) / span, 0.0, 1.0)
    return end_value + (start_value - end_value) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))


def linear_ramp(
    step: ArrayLike, *, start_value: float, end_value: float, start_step: int, end_step: int
) -> Float[Array, "*n"]:
    """Goes from one value to another along a straight line, constant outside the two steps."""
    span = max(end_step - start_step, 1)
    progress = jnp.clip((jnp.asarray(step) - start_step) / span, 0.0, 1.0)
    return start_value + (end_value - start_value) * progress


def annealed(step: ArrayLike, value: float | tuple[float, float, int, int]) -> Float[Array, ""]:
    """A setting at a step: a number, or (first value, last value, first step, last step)."""
    if not isinstance(value, tuple):
        return jnp.float32(value)
    first, last, start, end = value
    return linear_ramp(step, start_value=first, end_value=last, start_step=start, end_step=end)
