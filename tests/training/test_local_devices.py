"""Which GPUs a process is given, in every layout of tasks and GPUs that clusters have."""

from types import SimpleNamespace

import jax
import pytest
from absl import logging

from objdisc_jax import launch, local_devices
from objdisc_jax.errors import ConfigError, UserError
from objdisc_jax.training import distributed

EIGHT = "0,1,2,3,4,5,6,7"
UUIDS = "GPU-1f0c-4b,GPU-77aa-01,GPU-9b3e-5d,GPU-c2d4-88"


def slurm(tasks="2(x2)", rank=0, node=0, gpus=None, **others):
    """The environment of a task; `gpus` are those that it sees."""
    environment = {
        "SLURM_STEP_TASKS_PER_NODE": tasks,
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": str(node),
    }
    environment |= {f"SLURM_{name.upper()}": value for name, value in others.items()}
    return environment if gpus is None else environment | {"CUDA_VISIBLE_DEVICES": gpus}


def open_mpi(size, rank, gpus=None, **others):
    environment = {
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
        **{name.upper(): value for name, value in others.items()},
    }
    return environment if gpus is None else environment | {"CUDA_VISIBLE_DEVICES": gpus}


ALL: list[int] = []
LAYOUTS = {
    "one task per node": (slurm("1(x2)", gpus=EIGHT, gpus_on_node="8"), [*range(8)]),
    "one task per node, by UUID": (slurm("1(x2)", gpus=UUIDS, gpus_on_node="4"), [*range(4)]),
    "one task per node, no list": (slurm("1(x2)", gpus_on_node="8"), ALL),
    "one task per node, one GPU": (slurm("1(x2)", gpus="5", gpus_on_node="1"), [0]),
    "one task on a node of several": (slurm("4,1", node=1, gpus=EIGHT), [*range(8)]),
    "own list from 0": (slurm("2(x2)", 1, gpus="0,1,2,3", gpus_on_node="8"), [*range(4)]),
    "own list from 4": (slurm("2(x2)", 1, gpus="4,5,6,7", gpus_on_node="8"), [*range(4)]),
    "own list of UUIDs": (slurm("4", 3, gpus=UUIDS, gpus_on_node="16"), [*range(4)]),
    "GPUs per task": (slurm("2", 1, gpus="2,3", gpus_per_task="2"), [0, 1]),
    "GPUs per task, by type": (slurm("2", 1, gpus="0,1", gpus_per_task="a100:2"), [0, 1]),
    "GPUs per task, counted": (
        slurm("2", 1, gpus="0,1", gpus_per_task="2", gpus_on_node="2"),
        [0, 1],
    ),
    "GPUs per task, unbound": (
        slurm("4(x2)", 3, gpus=EIGHT, gpus_per_task="2", gpus_on_node="8"),
        [6, 7],
    ),
    "one GPU per task": (slurm("8", 6, gpus="6", gpus_on_node="8", gpus_per_task="1"), [0]),
    "one GPU per task, nothing said": ({"CUDA_VISIBLE_DEVICES": "3"}, [0]),
    "one task per GPU, all see all": (slurm("8", 6, gpus=EIGHT, gpus_on_node="8"), [6]),
    "two tasks that see all": (slurm("2(x2)", 1, gpus=EIGHT, gpus_on_node="8"), [4, 5, 6, 7]),
    "two tasks that see all, uncounted": (slurm("2", 0, gpus=EIGHT), [0, 1, 2, 3]),
    "two tasks that see all, by UUID": (slurm("2", 1, gpus=UUIDS, gpus_on_node="4"), [2, 3]),
    "two tasks, no list": (slurm("2", 1, gpus_on_node="8"), [4, 5, 6, 7]),
    "two tasks, nobody counts": (slurm("2", 1), [2, 3]),  # `nvidia-smi` says 4
    "more tasks here than there": (slurm("4(x2),2", 1, 2, EIGHT, gpus_on_node="8"), [4, 5, 6, 7]),
    "three tasks, eight GPUs": (slurm("3", 2, gpus=EIGHT, gpus_on_node="8"), [4, 5]),
    "no GPUs": (slurm("2", 1, gpus="NoDevFiles"), []),
    "nothing known": ({}, None),
    "node unknown": ({"SLURM_STEP_TASKS_PER_NODE": "4,1", "SLURM_LOCALID": "0"}, None),
    "Open MPI, one task": (open_mpi(1, 0, EIGHT), [*range(8)]),
    "Open MPI, one task, no list": (open_mpi(1, 0), ALL),
    "Open MPI, two that see all": (open_mpi(2, 1, EIGHT), [4, 5, 6, 7]),
    "Open MPI, own list": (open_mpi(2, 1, "6"), [0]),
    "Open MPI, no list": (open_mpi(2, 0), [0, 1]),
    "Open MPI inside SLURM": (
        slurm("1(x2)", gpus=EIGHT, gpus_on_node="8") | open_mpi(4, 3),
        [6, 7],
    ),
    "the user's choice": (slurm("1(x2)", gpus=EIGHT) | {"JAX_LOCAL_DEVICE_IDS": "2,3"}, [2, 3]),
    "the user's choice, no list": ({"JAX_LOCAL_DEVICE_IDS": "1"}, [1]),
    "no choice": (slurm("1(x2)", gpus="0,1") | {"JAX_LOCAL_DEVICE_IDS": ""}, [0, 1]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_devices_follow_from_the_layout(layout):
    environment, expected = LAYOUTS[layout]
    assert local_devices.in_cluster(environment, count_gpus=lambda: 4) == expected


def test_tasks_that_see_all_have_disjoint_shares():
    shares = [
        local_devices.in_cluster(slurm("4", rank, gpus=EIGHT, gpus_on_node="8"))
        for rank in range(4)
    ]
    assert shares == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_more_tasks_than_gpus_is_refused():
    with pytest.raises(ConfigError, match=r"4 tasks on this node, which share 2 GPUs"):
        local_devices.in_cluster(slurm("4", gpus="0,1", gpus_on_node="2"))


@pytest.mark.parametrize("text", ["a", "0,8", "-1", "1,1", "0,", "0;1"])
def test_choice_that_is_none_is_refused(text):
    environment = {"JAX_LOCAL_DEVICE_IDS": text, "CUDA_VISIBLE_DEVICES": EIGHT}
    with pytest.raises(ConfigError, match=r"JAX_LOCAL_DEVICE_IDS is .* of the 8 in CUDA_VISIBLE"):
        local_devices.chosen(environment)


@pytest.fixture
def told(monkeypatch):
    """What JAX is told of the processes, without starting any."""
    found = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: found.update(arguments))
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: None)
    monkeypatch.setattr(jax.config, "update", lambda key, value: found.update({key: value}))
    return found


def in_environment(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


JOB = {"SLURM_JOB_ID": "4096", "SLURM_STEP_NODELIST": "node[07-08]", "SLURM_NTASKS": "4"}


@pytest.mark.parametrize("arguments", [(), ("node07:9876", 4, 3)])
def test_flags_and_cluster_say_the_same_of_devices(monkeypatch, told, arguments):
    in_environment(monkeypatch, JOB | slurm("2(x2)", 1, 1, EIGHT, gpus_on_node="8", procid="3"))
    with distributed.connected(*arguments):
        pass
    assert (told["num_processes"], told["process_id"]) == (4, 3)
    assert told["local_device_ids"] == [4, 5, 6, 7]


def test_processes_that_somebody_started_in_a_job_have_what_they_see(monkeypatch, told):
    # Not SLURM's task 0, though it has its variables: `launch`, say, or a script has started it.
    in_environment(monkeypatch, JOB | slurm("4", 0, gpus="2,3", gpus_on_node="4", procid="0"))
    with distributed.connected("localhost:9876", 2, 1):
        pass
    assert told["local_device_ids"] == []  # all: JAX would take [0], the task's number here


@pytest.mark.parametrize("arguments", [(), ("localhost:9876", 1, 0)])
def test_single_process_has_the_devices_that_the_user_chose(monkeypatch, told, arguments):
    in_environment(monkeypatch, {"JAX_LOCAL_DEVICE_IDS": "1,3"})
    with distributed.connected(*arguments):
        pass
    assert told["jax_cuda_visible_devices"] == "1,3"


def test_launched_processes_have_their_share_whatever_the_job_says():
    # The second of two, in a job with one task per GPU; JAX_LOCAL_DEVICE_IDS goes first in JAX.
    job = JOB | slurm("8", 0, gpus=UUIDS, gpus_on_node="8", procid="0")
    first, second = launch._shares_of_gpus(2, job)
    assert second["CUDA_VISIBLE_DEVICES"] == "GPU-9b3e-5d,GPU-c2d4-88"
    assert local_devices.in_cluster(job | second) == [0, 1]
    assert first["CUDA_VISIBLE_DEVICES"] == "GPU-1f0c-4b,GPU-77aa-01"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "4,5,6"}, ["4", "5"]),  # equal shares: one GPU stays unused
        ({"CUDA_VISIBLE_DEVICES": "4,5,6,7", "JAX_LOCAL_DEVICE_IDS": "1,3"}, ["5", "7"]),
        ({"CUDA_VISIBLE_DEVICES": "4,5,6,7"}, ["4,5", "6,7"]),
        ({}, ["0,1", "2,3"]),
        ({"JAX_PLATFORMS": "cpu"}, [None, None]),
        ({"CUDA_VISIBLE_DEVICES": ""}, [None, None]),
    ],
)
def test_launcher_shares_the_gpus_out(monkeypatch, environment, expected):
    monkeypatch.setattr(local_devices, "installed_gpus", lambda: 4)
    shares = launch._shares_of_gpus(2, environment)
    assert [share.get("CUDA_VISIBLE_DEVICES") for share in shares] == expected


def test_launcher_refuses_more_processes_than_gpus():
    with pytest.raises(UserError, match="--processes is 4, but there are only 3 GPUs"):
        launch._shares_of_gpus(4, {"CUDA_VISIBLE_DEVICES": "4,5,6"})


def test_log_tells_how_many_devices_train(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "info", lambda text, *values: lines.append(text % values))
    distributed.check_devices()
    count, kind = jax.device_count(), jax.default_backend()
    devices = "device" if count == 1 else "devices"
    assert lines == [f"Training on {count} {devices} ({kind}) of 1 host."]


def test_processes_with_different_numbers_of_devices_are_refused(monkeypatch):
    devices = [SimpleNamespace(process_index=process) for process in (0, 0, 1)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    with pytest.raises(ConfigError, match=r"process 0 has 2, process 1 has 1"):
        distributed.check_devices()
