"""How arrays lie on the devices: parameters on all of them, batches divided among them."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from objdisc_jax.errors import ConfigError


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of the devices, by default all of all processes, with the single axis "data"."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), devices=devices, axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """The first axis divided among the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays of this process's part of a batch."""
    sharding = batched(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Puts every leaf on all devices."""
    return jax.device_put(tree, replicated(mesh))


def on_one_device(tree: Any) -> Any:
    """This process's first copy of arrays that every device has whole."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def check_batch_size(batch_size: int, parts: int, mesh: Mesh) -> None:
    """Checks that each part of a batch can be divided among the devices.

    Raises:
        ConfigError: it cannot; names sizes that can.
    """
    if parts < 1:
        raise ConfigError(f"num_microbatches: got {parts}; it is at least 1.")
    step = mesh.size * parts
    if batch_size < 1 or batch_size % step:
        lower = batch_size // step * step
        near = " or ".join(str(size) for size in (lower, lower + step) if size > 0)
        raise ConfigError(
            f"batch_size: got {batch_size}, which cannot be divided evenly among {mesh.size} "
            f"device(s) and num_microbatches = {parts}. Use a multiple of {step}, for example "
            f"{near}."
        )
