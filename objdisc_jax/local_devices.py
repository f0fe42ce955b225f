"""Which of a node's GPUs are a process's own, by what its cluster and its user say.

A cluster may start one task per node or several, and several may all see the node's GPUs or each
its own. JAX takes it that there is one task per GPU, and that all tasks see all.
"""

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from absl import logging

from objdisc_jax.errors import ConfigError

VARIABLE = "JAX_LOCAL_DEVICE_IDS"
"""The user's choice: numbers of GPUs, counted from 0 among those that the process sees."""

Gpu = TypeVar("Gpu")

_NO_GPU = ("", "-1", "NoDevFiles", "none", "void")
"""Entries at which CUDA stops reading its list; SLURM writes one of them where it gives no GPU."""


class _Tasks(NamedTuple):
    """The tasks that a cluster has started on this node."""

    count: int  # how many there are
    rank: int  # which of them this process is, from 0


def chosen(environment: Mapping[str, str]) -> list[int] | None:
    """The GPUs that the user has chosen for a process; None if that is left to us.

    Raises:
        ConfigError: the variable holds no such choice.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        return None
    entries, seen = [entry.strip() for entry in text.split(",")], visible_gpus(environment)
    most = len(seen) if seen else 10**6
    is_valid = all(entry.isdecimal() and int(entry) < most for entry in entries)
    if not is_valid or len(set(entries)) < len(entries):
        among = f" of the {most} in CUDA_VISIBLE_DEVICES" if seen else ""
        raise ConfigError(
            f"{VARIABLE} is {text!r}, but must be numbers of GPUs{among}, counted from 0 and "
            "separated by commas, as in 0,1. Unset it to leave the choice to the cluster."
        )
    return [int(entry) for entry in entries]


def in_cluster(
    environment: Mapping[str, str], count_gpus: Callable[[], int] | None = None
) -> list[int] | None:
    """The GPUs of a task of SLURM or Open MPI, as numbers among those that it sees.

    The user's choice goes first. The only task on a node has all that it sees, and so has one that
    sees fewer than the node's tasks have together; tasks that all see the same have equal shares.

    Args:
        environment: of the task.
        count_gpus: counts the node's GPUs, where the cluster doesn't say; by default
            `installed_gpus`.

    Returns:
        The numbers; an empty list stands for all. None if the cluster doesn't say how many tasks
        there are on the node.

    Raises:
        ConfigError: the user's choice is none, or tasks that share GPUs outnumber them.
    """
    if (choice := chosen(environment)) is not None:
        return choice
    seen, tasks = visible_gpus(environment), _tasks(environment)
    if seen is not None and len(seen) < 2:
        return list(range(len(seen)))
    if tasks is None:
        return None
    everything = [] if seen is None else list(range(len(seen)))
    if tasks.count == 1:
        return everything
    per_node = _number(environment.get("SLURM_GPUS_ON_NODE"))
    per_task = _number(environment.get("SLURM_GPUS_PER_TASK"))
    count = per_node or (count_gpus or installed_gpus)() if seen is None else len(seen)
    if seen is not None and (count <= per_task or count < (per_node or tasks.count)):
        return everything
    if not count:  # no GPUs of NVIDIA's, or nobody says how many
        return None
    if count < tasks.count:
        raise ConfigError(
            f"The cluster has started {tasks.count} tasks on this node, which share {count} GPUs, "
            "but each needs its own. Start one task per node (srun --ntasks-per-node=1), which "
            f"takes all of them, or at most {count}."
        )
    return list(shares(range(count), tasks.count)[tasks.rank])


def shares(gpus: Sequence[Gpu], processes: int) -> list[Sequence[Gpu]]:
    """Divides a node's GPUs among its processes, which must not be more.

    All get as many, since they get as many images of a batch; neighbours stay together.
    """
    size = len(gpus) // processes
    if unused := len(gpus) - size * processes:
        logging.warning(
            "%d processes share %d GPUs: each has %d, and %d of them stay unused.",
            processes,
            len(gpus),
            size,
            unused,
        )
    return [gpus[number * size : (number + 1) * size] for number in range(processes)]


def visible_gpus(environment: Mapping[str, str]) -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES lists, numbers or UUIDs; None if it is not set."""
    text = environment.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return None
    entries = [entry.strip() for entry in text.split(",")]
    ends = [i for i, entry in enumerate(entries) if entry in _NO_GPU]
    return entries[: ends[0]] if ends else entries


def installed_gpus() -> int:
    """The number of this machine's GPUs that `nvidia-smi` lists."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return 0
    return len(re.findall(r"^GPU \d+", listing.stdout, re.MULTILINE))


def _tasks(environment: Mapping[str, str]) -> _Tasks | None:
    """The tasks on this node; an `mpirun` inside a job of SLURM has started them itself."""
    size, rank = (environment.get(f"OMPI_COMM_WORLD_LOCAL_{name}") for name in ("SIZE", "RANK"))
    if size is not None and rank is not None:
        return _Tasks(int(size), int(rank))
    per_node = _tasks_per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    rank, node = environment.get("SLURM_LOCALID"), environment.get("SLURM_NODEID")
    if not per_node or rank is None:
        return None
    if len(set(per_node)) == 1:
        return _Tasks(per_node[0], int(rank))
    if node is None or int(node) >= len(per_node):
        return None
    return _Tasks(per_node[int(node)], int(rank))


def _tasks_per_node(text: str) -> list[int]:
    """Numbers of tasks as SLURM writes them: "8(x2),4" are 8, 8 and 4."""
    groups = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(tasks) for tasks, nodes in groups for _ in range(int(nodes or 1))]


def _number(text: str | None) -> int:
    """A number of GPUs as SLURM writes it, "2" or by type, "a100:2,v100:1"; 0 for none."""
    parts = [part.rpartition(":")[2] for part in (text or "").split(",")]
    return sum(int(part) for part in parts if part.isdecimal())
