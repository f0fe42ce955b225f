"""Computes records in blocks of one size, on all devices, whatever the number of records."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


class BlockRenderer:
    """Computes records from their numbers; several threads may call it at once.

    Every block is padded to the same size, so that there is one compiled program and a record does
    not depend on its neighbours. Blocks take turns on the devices.

    Attributes:
        size: records in a block.
    """

    def __init__(self, render: Callable[..., Any], arguments: Any, *, size: int | None = None):
        """Keeps what there is to compute.

        Args:
            render: returns the arrays of one record, given its number (int32) and `arguments`.
            arguments: arrays that all records share, such as the seed: they are no part of the
                program, which is compiled for all of their values.
            size: records in a block; by default 16 on a CPU, else 128.
        """
        # Records one after another suit a CPU: its cores work on blocks of their own.
        on_cpu = jax.default_backend() == "cpu"
        self.size = size or (16 if on_cpu else 128)

        @jax.jit
        def block(numbers: jax.Array, arguments: Any) -> Any:
            def one(number: jax.Array) -> Any:
                return render(number, arguments)

            return jax.lax.map(one, numbers) if on_cpu else jax.vmap(one)(numbers)

        self._block = block
        self._devices = jax.local_devices()
        self._arguments = [jax.device_put(arguments, device) for device in self._devices]

    def __call__(self, first: int, count: int) -> Any:
        """Returns records `first` ... `first + count - 1`, [count, ...] each; count <= size."""
        numbers = np.minimum(np.arange(first, first + self.size), first + count - 1)
        turn = first // self.size % len(self._devices)
        placed = jax.device_put(numbers.astype(np.int32), self._devices[turn])
        arrays = self._block(placed, self._arguments[turn])
        return jax.tree.map(lambda values: np.asarray(values)[:count], arrays)
