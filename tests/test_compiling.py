"""How what runs models is compiled."""

import jax
import jax.numpy as jnp
import pytest

from objdisc_jax import compiling
from objdisc_jax.nn.conv import conv2d

PADDING = ((1, 1), (1, 1))
MAPS = jax.ShapeDtypeStruct((4, 64, 64, 64), jnp.float32)
KERNEL = jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32)


def convolve(x, kernel):
    return conv2d(x, kernel, 1, PADDING)


def test_convolutions_are_eigens_on_a_cpu():
    if jax.default_backend() != "cpu":
        pytest.skip("is of CPUs")
    program = compiling.jit(convolve).lower(MAPS, KERNEL).compile().as_text()
    assert "convolution" in program
    assert "ynn" not in program


def test_an_xla_that_lacks_the_option_compiles_as_it_likes(monkeypatch):
    monkeypatch.setattr(compiling, "_EIGEN", {"xla_cpu_no_such_option": "1"})
    compiling._has_option.cache_clear()
    try:
        assert compiling.jit(jnp.cos)(0.0) == 1.0
    finally:
        compiling._has_option.cache_clear()
