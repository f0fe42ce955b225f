"""How arrays lie on the devices: parameters on all of them, batches divided among them."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from objdisc_jax.errors import ConfigError


def data_mesh() -> Mesh:
    """A mesh of all devices of all processes with the single axis "data"."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


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


def check_batch_size(key: str, batch_size: int, parts: int = 1) -> None:
    """Checks that a batch, or each of its parts, can be divided among the devices.

    Raises:
        ConfigError: it cannot; names the key and the sizes that can.
    """
    step = jax.device_count() * parts
    if batch_size < 1 or batch_size % step:
        lower = batch_size // step * step
        near = " or ".join(str(size) for size in (lower, lower + step) if size > 0)
        per_part = f" and accumulate_steps = {parts}" if parts > 1 else ""
        raise ConfigError(
            f"{key}: got {batch_size}, which cannot be divided evenly among "
            f"{jax.device_count()} device(s){per_part}. Use a multiple of {step}, for example "
            f"{near}."
        )
