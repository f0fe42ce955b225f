"""Compiling what runs models."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax

_EIGEN = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
"""XLA's option for what YNNPACK computes: single matrix products, and no convolutions."""


def jit(function: Callable[..., Any], **settings: Any) -> Any:
    """`jax.jit` of the outermost function, which on CPUs convolves with Eigen.

    XLA's own choice, YNNPACK, takes up to three times as long, uses one thread for small maps, and
    loses digits in sums over many pixels. An XLA that doesn't know the option keeps its choice. JAX
    takes options from the outermost function alone, and refuses them inside another.
    """
    options = _EIGEN if jax.default_backend() == "cpu" and _has_option() else None
    return jax.jit(function, compiler_options=options, **settings)


@cache
def _has_option() -> bool:
    try:
        jax.jit(lambda: 0, compiler_options=_EIGEN).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
