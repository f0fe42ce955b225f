"""Weight initialisation of the published models."""

import math
from collections.abc import Callable
from typing import Literal

import jax
from jax.nn.initializers import truncated_normal, variance_scaling, zeros
from jaxtyping import Array

Initializer = Callable[..., Array]

Init = Literal["fan_in", "xavier", "kaiming", "truncated"]


def uniform(bound: float) -> Initializer:
    """An initializer `(key, shape, dtype) -> array`, uniform on ±bound."""

    def init(key, shape, dtype=None, out_sharding=None):
        del out_sharding
        return jax.random.uniform(key, shape, dtype or float, minval=-bound, maxval=bound)

    return init


def fan_in_uniform(fan_in: int) -> Initializer:
    """Uniform on ±1/√fan_in: PyTorch's default for linear and convolution layers.

    Args:
        fan_in: number of inputs of one output unit. PyTorch uses the same bound for the bias.
    """
    return uniform(1.0 / math.sqrt(fan_in))


def initializers(init: str, fan_in: int, gain: float = 1.0) -> tuple[Initializer, Initializer]:
    """Initialisers of the weights and of the bias of a layer.

    Args:
        init: `fan_in` draws both from ±1/√fan_in (PyTorch's default); `xavier` and `kaiming` draw
            uniform weights by Glorot's or He's rule and set the bias to zero, as does `truncated`
            (Sonnet's default): normal with σ = 1/√fan_in, cut at 2σ.
        fan_in: number of inputs of one output unit.
        gain: factor of the `xavier` weights.

    Raises:
        ValueError: `init` is none of these.
    """
    if init == "fan_in":
        return fan_in_uniform(fan_in), fan_in_uniform(fan_in)
    if init == "xavier":
        return variance_scaling(gain**2, "fan_avg", "uniform"), zeros
    if init == "kaiming":
        return variance_scaling(2.0, "fan_in", "uniform"), zeros
    if init == "truncated":
        return truncated_normal(1.0 / math.sqrt(fan_in)), zeros
    raise ValueError(
        f"initialisation: got {init!r}; allowed are fan_in, xavier, kaiming, truncated."
    )
