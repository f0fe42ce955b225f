"""Computes records in blocks of one size, on all devices, whatever the number of records."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from objdisc_jax.errors import UserError


class BlockRenderer:
    """Computes records from their numbers; several threads may call it at once.

    Every block is padded to the same size, so that there is one compiled program and a record does
    not depend on its neighbours. Blocks take turns on the devices, two at a time on a GPU.

    Args:
        render: returns the arrays of one record, given its number (int32) and `arguments`.
        arguments: arrays that all records share, such as the seed: they are no part of the
            program, which is compiled for all of their values.
        resolution: rows and columns of the images.
        size: records in a block; by default 16 on a CPU, else 128, and fewer of large images.
    """

    def __init__(
        self,
        render: Callable[..., Any],
        arguments: Any,
        *,
        resolution: tuple[int, int] = (240, 320),
        size: int | None = None,
    ):
        # Records one after another suit a CPU: its cores work on blocks of their own.
        on_cpu = jax.default_backend() == "cpu"
        share = min(1.0, 240 * 320 / (resolution[0] * resolution[1]))
        self.size = size or max(1, int((16 if on_cpu else 128) * share))

        @jax.jit
        def block(numbers: jax.Array, arguments: Any) -> Any:
            def one(number: jax.Array) -> Any:
                return render(number, arguments)

            return jax.lax.map(one, numbers) if on_cpu else jax.vmap(one)(numbers)

        self._block = block
        self._devices = jax.local_devices()
        self._arguments = [jax.device_put(arguments, device) for device in self._devices]
        # On a CPU a block is a thread's work; a GPU's memory holds no block for each of many.
        limit = threading.BoundedSemaphore(2 * len(self._devices))
        self._limit = contextlib.nullcontext() if on_cpu else limit

    def __call__(self, first: int, count: int) -> Any:
        """Returns records `first` ... `first + count - 1`, [count, ...] each; count <= size.

        Raises:
            UserError: a device has too little memory.
        """
        numbers = np.minimum(np.arange(first, first + self.size), first + count - 1)
        turn = first // self.size % len(self._devices)
        try:
            with self._limit:
                placed = jax.device_put(numbers.astype(np.int32), self._devices[turn])
                arrays = jax.device_get(self._block(placed, self._arguments[turn]))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError(
                f"{self._devices[turn]} has too little memory for {self.size} images at once. "
                "Free it of other programs, render smaller images, or render on the CPU "
                "(JAX_PLATFORMS=cpu)."
            ) from None
        return jax.tree.map(lambda values: values[:count], arrays)
