"""Several processes that train as one: how they find each other, agree, and end.

Every process has its devices and reads its part of each batch; the primary, process 0, alone
writes. Whatever ends one of them ends all, in bounded time and with a message.
"""

import collections
import contextlib
import os
import socket
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from objdisc_jax import local_devices, sharding
from objdisc_jax.errors import ConfigError, UserError

CONNECT_SECONDS = 300
"""How long processes wait for each other at the start; the nodes of a cluster start unevenly."""
FINISH_SECONDS = 600
"""How long processes that are done wait for the primary to write what is left."""


class _Place(NamedTuple):
    """Where a process stands among the others: the arguments of `jax.distributed.initialize`."""

    coordinator_address: str | None
    num_processes: int
    process_id: int
    local_device_ids: list[int] | None = None


_CLUSTERS = (
    (
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK",
        ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ),
    ("SLURM_NTASKS", "SLURM_PROCID", ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_LOCALID")),
)
"""What tells a process how many there are and which it is, and what JAX wants to know besides.

As in JAX, Open MPI goes first: inside a job of SLURM, it has started the processes.
"""


@contextlib.contextmanager
def connected(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: int = 40,
) -> Iterator[None]:
    """Connects this process with the others, if there are any, for as long as the context lasts.

    Without arguments they are what the cluster says, if it is one that JAX knows (SLURM and Open
    MPI are tested) and runs several processes. An error in one of several processes ends it at
    once, after a message: the others notice, and nothing waits for what will not come.

    Args:
        coordinator: `host:port` of process 0, the same for all.
        num_processes: how many there are.
        process_id: which one this is, from 0.
        heartbeat_seconds: a process that is silent for so long is taken for dead.

    Raises:
        ConfigError: the arguments don't fit together.
    """
    place = _place(coordinator, num_processes, process_id)
    if place is None:
        _use_chosen_devices()
        yield
        return
    # SIGTERM is the training loop's, not JAX's. GPUs have collectives of their own.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            **place._asdict(),
            initialization_timeout=CONNECT_SECONDS,
            heartbeat_timeout_seconds=heartbeat_seconds,
            shutdown_timeout_seconds=FINISH_SECONDS,
        )
        if not is_primary():
            logging.set_verbosity(logging.WARNING)  # the primary tells how it goes
        yield
    except BaseException as error:
        _end(error, place)
    jax.distributed.shutdown()


def is_primary() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def barrier(what: str) -> None:
    """Waits until all processes have come here; `what` names the place."""
    multihost_utils.sync_global_devices(what)


def from_primary(tree: Any) -> Any:
    """The primary's values of a pytree of arrays, in all processes.

    Bytes are sent, so that every value arrives as it is.
    """
    if jax.process_count() == 1:
        return tree
    host = jax.tree.map(np.asarray, tree)
    sent = multihost_utils.broadcast_one_to_all(
        jax.tree.map(lambda x: np.frombuffer(x.tobytes(), np.uint8), host)
    )
    return jax.tree.map(
        lambda x, like: np.asarray(x, np.uint8).view(like.dtype).reshape(like.shape), sent, host
    )


def check_devices() -> None:
    """Checks that all processes have as many devices; tells how many there are, on which hosts.

    Raises:
        ConfigError: some processes have more devices than others.
    """
    devices, num_processes = jax.devices(), jax.process_count()
    counts = collections.Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"process {number} has {counts[number]}" for number in sorted(counts))
        raise ConfigError(
            f"The processes have different numbers of devices ({listed}), but each gets as many "
            "images of a batch. Start as many tasks on each host, with as many GPUs each; "
            f"{local_devices.VARIABLE}=0,1 lets a process use two of those that it sees."
        )
    hosts = {zlib.crc32(socket.gethostname().encode())}
    if num_processes > 1:
        hosts = set(multihost_utils.process_allgather(np.uint32(*hosts)).reshape(-1).tolist())
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    logging.info(
        "Training on %s (%s) of %s%s.",
        _count(len(devices), "device"),
        kinds,
        _count(len(hosts), "host"),
        f", {num_processes} processes with {len(devices) // num_processes} each"
        if num_processes > 1
        else "",
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def check_same_step(step: int, workdir: object) -> None:
    """Checks that all processes go on from the same step, and so see the same checkpoints."""
    steps = multihost_utils.process_allgather(np.int32(step)).reshape(-1)
    if (steps != step).any():
        raise UserError(
            f"workdir: the processes see different checkpoints in {workdir}: their latest steps "
            f"are {', '.join(map(str, steps))} (0 for none). All need the same directory: put it "
            "on a file system that all hosts share."
        )


def any_process(mesh: Mesh) -> Callable[[bool], bool | jax.Array]:
    """A function that tells all processes whether it was called with True in any of them.

    All have to call it, and get the same answer, which may be read later. One process alone answers
    itself.
    """
    if jax.process_count() == 1:
        return lambda flag: flag
    anywhere = jax.jit(jnp.any, out_shardings=sharding.replicated(mesh))

    def ask(flag: bool) -> jax.Array:
        flags = sharding.put_batch({"flag": np.full(jax.local_device_count(), flag)}, mesh)
        return anywhere(flags["flag"])

    return ask


def _place(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> _Place | None:
    """Where this process stands, by flags or cluster; None if it is alone."""
    given = (coordinator, num_processes, process_id)
    if given == (None, None, None):
        return _place_in_cluster()
    if coordinator is None or num_processes is None or process_id is None:
        raise ConfigError(
            "--coordinator, --num_processes and --process_id belong together, but only some of "
            "them were given. On one machine, objdisc launch gives all three."
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"--coordinator is {coordinator!r}, but must be host:port of process 0, for example "
            "node1:9876, the same for all processes."
        )
    if not 0 <= process_id < num_processes:
        raise ConfigError(
            f"--process_id is {process_id}, but must lie between 0 and {num_processes - 1}: "
            f"--num_processes is {num_processes}."
        )
    if num_processes == 1:
        return None
    return _Place(coordinator, num_processes, process_id, _devices(num_processes, process_id))


def _place_in_cluster() -> _Place | None:
    """Where SLURM or Open MPI has put this process, if it is one of several there.

    The coordinator's address is left to JAX, which knows these clusters.
    """
    for size, rank, others in _CLUSTERS:
        if all(name in os.environ for name in (size, rank, *others)):
            num_processes, process_id = int(os.environ[size]), int(os.environ[rank])
            if num_processes == 1:
                return None
            devices = local_devices.in_cluster(os.environ)
            return _Place(None, num_processes, process_id, devices)
    return None


def _devices(num_processes: int, process_id: int) -> list[int] | None:
    """The devices of a process that was told its place by flags; an empty list stands for all.

    Where the place is that of a task of a cluster, so are the devices. Otherwise somebody else, in
    a job or outside, has started the processes and says which GPUs each sees.
    """
    for size, rank, _ in _CLUSTERS:
        if (os.environ.get(size), os.environ.get(rank)) == (str(num_processes), str(process_id)):
            return local_devices.in_cluster(os.environ)
    return local_devices.chosen(os.environ) or []


def _use_chosen_devices() -> None:
    """Does for a single process what JAX does for one of several."""
    if (choice := local_devices.chosen(os.environ)) is not None:
        for platform in ("cuda", "rocm"):
            jax.config.update(f"jax_{platform}_visible_devices", ",".join(map(str, choice)))


def _end(error: BaseException, place: _Place) -> None:
    """Says what went wrong and ends this process without waiting for any other."""
    status = 1
    if isinstance(error, UserError):
        message = f"error: {error}"
    elif isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else 1
        message = "" if isinstance(error.code, int | None) else str(error.code)
    elif not _is_of_communication(error):
        message = traceback.format_exc()
    elif not jax.distributed.is_initialized():
        where = f" at {place.coordinator_address}" if place.coordinator_address else ""
        message = (
            f"error: process {place.process_id} of {place.num_processes} could not connect with "
            f"the others{where} within {CONNECT_SECONDS} s "
            f"({_first_line(error)}). Check that all {place.num_processes} were started, that "
            "process 0 runs on that host, and that the port is free and open."
        )
    else:
        message = (
            f"error: process {place.process_id} of {place.num_processes} has lost another process, "
            f"and ends ({_first_line(error)}). The log of the one that ended first says why. The "
            "same command goes on from the latest checkpoint."
        )
    print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _is_of_communication(error: BaseException | None) -> bool:
    # What Gloo says comes as a ValueError from computations, as a RuntimeError from JAX's own, and
    # inside another error where it keeps JAX from setting up the devices.
    while error is not None:
        if isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300]
