"""A hash-based random generator: random bits as a function of a seed and a position.

Any part of an array can be drawn on its own, because bits are addressed by their position: SLATE's
Gumbel noise, `[b, tokens, vocabulary]`, and its dropout masks, a bit for every pair of tokens, head
and block, are computed where they are read, chunk by chunk, in the backward pass again, and are
never whole in memory. A hash is also several times cheaper on a CPU than JAX's cryptographic
generator, which would be half of a step. Everything small is drawn with `jax.random`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt32


def seeds(key: Array, *shape: int) -> UInt32[Array, "*n 2"]:
    """Seeds for `random_bits`, from a JAX key."""
    return jax.random.bits(key, (*shape, 2), jnp.uint32)


def random_bits(
    seed: UInt32[Array, "*b 2"], shape: tuple[int, ...], first: Array | int = 0
) -> UInt32[Array, "*n"]:
    """Random words of 32 bits, a function of a seed and a position.

    Every seed has an array of words of this shape; `first` is the position of its first word.
    """
    assert math.prod(shape) < 2**32
    leading = seed.shape[:-1]
    position = lax.iota(jnp.uint32, math.prod(shape)) + jnp.uint32(first)
    position = position.reshape(*(1,) * len(leading), *shape)
    low, high = (seed[..., i].reshape(*leading, *(1,) * len(shape)) for i in (0, 1))
    return _mix(_mix(position + low) ^ high)


def _mix(x: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    """A bijection of 32-bit words in which every input bit turns half of the output bits.

    Its constants are those of the "lowbias32" hash found by search (Wellons 2018).
    """
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def gumbel(
    seed: UInt32[Array, "*b 2"], shape: tuple[int, ...], first: Array | int = 0
) -> Float[Array, "*n"]:
    """Standard Gumbel draws; the arguments are those of `random_bits`."""
    bits = random_bits(seed, shape, first)
    # 23 bits, in the middle of their intervals: neither logarithm meets a 0.
    uniform = (bits >> 9).astype(jnp.float32) * 2.0**-23 + 2.0**-24
    return -jnp.log(-jnp.log(uniform))


def dropout(
    x: Float[Array, "*n"], rate: float, seed: UInt32[Array, "2"] | None
) -> Float[Array, "*n"]:
    """Sets a share `rate` of the elements to 0 and scales the others up; None leaves all."""
    if seed is None or rate == 0.0:
        return x
    keep = random_bits(seed, x.shape) >= np.uint32(rate * 2.0**32)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))
