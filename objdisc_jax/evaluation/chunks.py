"""Examples computed in chunks of one size: the same bits, however many are computed together."""

from collections.abc import Callable
from typing import Any

import jax
from einops import rearrange
from jax.sharding import Mesh
from jaxtyping import Array

from objdisc_jax import sharding
from objdisc_jax.compiling import jit
from objdisc_jax.models import base

CHUNK = 16
"""Images that a device computes at a time. XLA rounds differently for other batch shapes, enough to
turn a pixel between two equal masks; with this one shape every image gets the same bits always."""


def whole_chunks(batch_size: int, mesh: Mesh, chunk: int = CHUNK) -> int:
    """The batch size rounded up to whole chunks on every device."""
    step = mesh.size * chunk
    return -(-batch_size // step) * step


def in_chunks(
    function: Callable[[base.Params, Any, Array], Any], mesh: Mesh, chunk: int = CHUNK
) -> Callable[[base.Params, Any, Any], Any]:
    """Jits a function of (parameters, examples, step), devices sharing the examples.

    Args:
        function: its result, like the examples, is a tree of arrays `[b, ...]`.
        mesh: the devices.
        chunk: images that a device computes at a time; with another number the bits are others.

    Returns:
        The same function for a number of examples that `whole_chunks` returns. All devices have
        the whole result.
    """

    def compute(params, examples, step):
        chunks = jax.tree.map(lambda x: rearrange(x, "(n c) ... -> n c ...", c=chunk), examples)
        found = jax.lax.map(lambda some: function(params, some, step), chunks)
        return jax.tree.map(lambda x: rearrange(x, "n c ... -> (n c) ..."), found)

    everywhere, divided = sharding.replicated(mesh), sharding.batched(mesh)
    specs = (everywhere.spec, divided.spec, everywhere.spec)
    # Unchecked, so that a model's scan may begin with a constant, which all devices have alike.
    compute = jax.shard_map(
        compute, mesh=mesh, in_specs=specs, out_specs=divided.spec, check_vma=False
    )
    return jit(compute, out_shardings=everywhere)
