"""Weight initialisation of the published PyTorch models."""

import math
from collections.abc import Callable

import jax
from jax.nn.initializers import variance_scaling
from jaxtyping import Array

Initializer = Callable[..., Array]

kaiming_uniform: Initializer = variance_scaling(2.0, "fan_in", "uniform")
"""He et al. (2015) for layers followed by a ReLU; zero-mean uniform."""


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
