"""Computes records in blocks of one size, on all devices, whatever the number of records."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Arrays = Mapping[str, np.ndarray]


class BlockRenderer:
    """Computes records from their numbers; several threads may call it at once.

    Every block is padded to the same size, so that there is one compiled program and a record does
    not depend on its neighbours. Blocks take turns on the devices.

    Attributes:
        size: records in a block.
    """

    def __init__(self, render: Callable[[jax.Array], Any], size: int):
        """Keeps what there is to compute.

        Args:
            render: returns the arrays of one record, given its number (int32).
            size: records in a block.
        """
        self.size = size
        # Records one after another suit a CPU: its cores work on blocks of their own.
        on_cpu = jax.default_backend() == "cpu"

        @jax.jit
        def block(numbers: jax.Array) -> Any:
            return jax.lax.map(render, numbers) if on_cpu else jax.vmap(render)(numbers)

        self._block = block
        self._devices = jax.local_devices()

    def __call__(self, first: int, count: int) -> Any:
        """Returns records `first` ... `first + count - 1`, [count, ...] each; count <= size."""
        numbers = np.minimum(np.arange(first, first + self.size), first + count - 1)
        device = self._devices[first // self.size % len(self._devices)]
        placed = jax.device_put(jnp.asarray(numbers, jnp.int32), device)
        return jax.tree.map(lambda values: np.asarray(values)[:count], self._block(placed))
