"""Functions of many tokens or heads in parts, so that what they need is never whole in memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax
from jaxtyping import Array, Int, PyTree

LIMIT = 2**24
"""Numbers that a part may need for one intermediate array: 64 MiB in float32."""


def in_chunks(
    function: Callable[..., PyTree[Array]], *arrays: Array, width: int, limit: int = LIMIT
) -> PyTree[Array]:
    """`function(0, *arrays)` for a function that treats the entries of axis 1 alone.

    Where they don't fit into `limit` all at once, some are computed at a time, for all examples (of
    which every device has a share), and again in the backward pass rather than kept.

    Args:
        function: takes the index of its first entry and arrays `[b, n', ...]`; returns such arrays.
        arrays: `[b, n, ...]`.
        width: how many numbers the function needs for an entry of an example.
        limit: how many it may need at a time.
    """
    batch, length = arrays[0].shape[:2]
    fitting = [n for n in range(1, length + 1) if length % n == 0 and n * batch * width <= limit]
    size = max(fitting, default=1)
    if size == length:
        return function(0, *arrays)

    def body(first: Int[Array, ""], part: tuple[Array, ...]) -> tuple[Array, Any]:
        return first + size, jax.checkpoint(function)(first, *part)

    parts = tuple(rearrange(x, "b (n t) ... -> n b t ...", t=size) for x in arrays)
    _, found = lax.scan(body, jnp.int32(0), parts)
    return jax.tree.map(lambda x: rearrange(x, "n b t ... -> b (n t) ..."), found)
