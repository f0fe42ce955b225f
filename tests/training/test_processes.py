"""Real processes that train as one: the same run, agreed stops, deaths, disks that are full."""

import contextlib
import errno
import io
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from objdisc_jax import launch
from objdisc_jax.errors import ConfigError
from objdisc_jax.training import distributed, loop
from tests.conftest import tiny_experiment
from tests.training.test_kill import wait_for_step
from tests.training.test_train import assert_equal_trees, changed, metrics, parameters

EXPERIMENT = """
from tests.conftest import tiny_experiment

def get_config():
    config = tiny_experiment({path!r}).unlock()
    config.num_train_steps = {steps}
    config.update_from_flattened_dict({changes!r})
    return config
"""
# A plateau, so that there is a state which validation changes; an epsilon that keeps Adam from
# turning rounding noise in tiny gradients into full steps.
CHANGES = {
    "plateau.enabled": True,
    "plateau.patience": 0,
    "plateau.threshold": 1.0,
    "optimizer.kwargs.eps": 1e-2,
}

# A machine that runs tests may be suspended; deaths are noticed by broken connections all the same.
PATIENT = ("--heartbeat_seconds=600",)
# Where there is a GPU, too: the processes need a device each.
ON_CPU = {
    **os.environ,
    "PYTHONPATH": os.getcwd(),
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "1",
}


def write_experiment(file, data_file, steps):
    file.write_text(EXPERIMENT.format(path=str(data_file), steps=steps, changes=CHANGES))
    return file


def start(config_file, workdir, *, processes=2, devices=1, arguments=PATIENT):
    """Starts the launcher; its output goes to a file `log` in the workdir."""
    command = [sys.executable, "-m", "objdisc_jax.launch", "--processes", str(processes), "--"]
    command += ["--config", str(config_file), "--workdir", str(workdir), *arguments]
    workdir.mkdir(exist_ok=True)
    with (workdir / "log").open("a") as log:
        return subprocess.Popen(
            command,
            env=ON_CPU | {"JAX_NUM_CPU_DEVICES": str(devices)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def children(process):
    """The processes that the launcher has started, in their order."""
    file = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in file.read_text().split()]


def log_of(workdir):
    return (workdir / "log").read_text()


@pytest.mark.slow
def test_two_processes_equal_two_devices_and_go_on_with_any_number(tetrominoes_file, tmp_path):
    config_file = write_experiment(tmp_path / "experiment.py", tetrominoes_file, 12)
    two, one = tmp_path / "two", tmp_path / "one"
    assert start(config_file, two).wait(180) == 0, log_of(two)
    assert start(config_file, one, processes=1, devices=2).wait(180) == 0, log_of(one)
    for ours, theirs in zip(metrics(two), metrics(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        parameters(two),
        parameters(one),
    )
    assert json.loads((two / "environment.json").read_text())["num_processes"] == 2
    # Log lines come whole, with their process in front; the primary alone tells of the training.
    lines = [line for line in log_of(two).splitlines() if "/12  loss" in line]
    assert len(lines) == 6
    assert all(re.match(r"\[0\] \d\d:\d\d:\d\d step", line) for line in lines)
    told = "Training on 2 devices (cpu) of 1 host, 2 processes with 1 each."
    assert log_of(two).count(told) == 1

    config = changed(tiny_experiment(tetrominoes_file), **CHANGES, num_train_steps=14)
    loop.train(config, two)  # here, on four devices
    assert [line["step"] for line in metrics(two)] == [2, 4, 6, 8, 10, 12, 14]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("node1:9876", 2, None), r"--coordinator, --num_processes and --process_id belong"),
        (("node1", 2, 0), r"--coordinator is 'node1', but must be host:port"),
        (("node1:98765", 2, 0), r"--coordinator is 'node1:98765', but must be host:port"),
        (("node1:9876", 2, 2), r"--process_id is 2, but must lie between 0 and 1"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message), distributed.connected(*arguments):
        pass


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        (1, {}),  # a job of one process needs no other
        (4, {"num_processes": 4, "process_id": 3}),
    ],
)
def test_slurm_tells_the_processes_of_each_other(monkeypatch, tasks, expected):
    for name, value in {
        "SLURM_JOB_ID": "4096",
        "SLURM_STEP_NODELIST": "node[07-08]",
        "SLURM_NTASKS": str(tasks),
        "SLURM_PROCID": str(tasks - 1),
        "SLURM_LOCALID": str((tasks - 1) % 2),
    }.items():
        monkeypatch.setenv(name, value)
    found = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: found.update(arguments))
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: None)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    with distributed.connected():
        pass
    assert expected.items() <= found.items()
    assert found.get("coordinator_address") is None  # JAX knows it of SLURM
    assert bool(found) == bool(expected)


# What srun and mpirun tell a process; the port of the coordinator follows from the job's number.
TASKS = {
    "slurm": {
        "SLURM_JOB_ID": "{job}",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "{rank}",
        "SLURM_LOCALID": "{rank}",
        "SLURM_NODEID": "0",
        "SLURM_STEP_TASKS_PER_NODE": "2",
    },
    "open_mpi": {
        "OMPI_MCA_orte_hnp_uri": "{job}.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "{rank}",
        "OMPI_COMM_WORLD_LOCAL_RANK": "{rank}",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("cluster", TASKS)
def test_tasks_of_a_cluster_train_as_one(tetrominoes_file, tmp_path, cluster):
    config_file = write_experiment(tmp_path / "experiment.py", tetrominoes_file, 6)
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "objdisc_jax.main", "--config", str(config_file)]
    job = os.getpid() % 4096 * (4096 if cluster == "open_mpi" else 1)
    tasks = [
        subprocess.Popen(
            [*command, "--workdir", str(workdir), *PATIENT],
            env=ON_CPU | {k: v.format(job=job, rank=rank) for k, v in TASKS[cluster].items()},
        )
        for rank in range(2)
    ]
    assert [task.wait(180) for task in tasks] == [0, 0]
    assert [line["step"] for line in metrics(workdir)] == [2, 4, 6]
    assert json.loads((workdir / "environment.json").read_text())["num_processes"] == 2


def test_launcher_reads_on_where_its_log_is_full(monkeypatch):
    # Processes whose lines nobody takes would wait for ever.
    class Full(io.StringIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    lines = io.StringIO("one\ntwo\n")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        launch._print_lines(0, lines)
    assert not lines.read()


@pytest.mark.slow
def test_signal_to_one_process_stops_all_at_the_same_step(tetrominoes_file, tmp_path):
    config_file = write_experiment(tmp_path / "experiment.py", tetrominoes_file, 10_000)
    workdir = tmp_path / "run"
    for number in (1, 0):
        launcher = start(config_file, workdir)
        wait_for_step(launcher, workdir, 6 if number else 40)
        os.kill(children(launcher)[number], signal.SIGTERM)
        asked = time.monotonic()
        assert launcher.wait(60) == 0, log_of(workdir)
        assert time.monotonic() - asked < 10
        saved = max(int(folder.name) for folder in (workdir / "checkpoints").iterdir())
        assert f"Asked to stop: saved step {saved}." in log_of(workdir)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_death_of_a_process_is_noticed_and_told(tetrominoes_file, tmp_path, number):
    config_file = write_experiment(tmp_path / "experiment.py", tetrominoes_file, 10_000)
    workdir = tmp_path / "run"
    launcher = start(config_file, workdir)
    wait_for_step(launcher, workdir, 6)
    os.kill(children(launcher)[number], signal.SIGKILL)
    died = time.monotonic()
    assert launcher.wait(60) == 128 + signal.SIGKILL, log_of(workdir)
    print(f"ended after {time.monotonic() - died:.1f} s")
    assert f"process {number} ended with SIGKILL, and so did the run" in log_of(workdir)
    # Ours, where a computation fails first; JAX's own, where its heartbeats do.
    told = rf"process {1 - number} of 2 has lost another process|another task died"
    assert re.search(told, log_of(workdir)), log_of(workdir)


@pytest.mark.slow
def test_silent_process_is_taken_for_dead(tetrominoes_file, tmp_path):
    config_file = write_experiment(tmp_path / "experiment.py", tetrominoes_file, 10_000)
    workdir = tmp_path / "run"
    launcher = start(config_file, workdir, arguments=())
    wait_for_step(launcher, workdir, 6)
    stopped = children(launcher)[1]
    os.kill(stopped, signal.SIGSTOP)
    since = time.monotonic()
    assert launcher.wait(60) != 0, log_of(workdir)
    print(f"ended after {time.monotonic() - since:.1f} s")
    assert "process 0 ended with" in log_of(workdir)
    assert not Path(f"/proc/{stopped}").exists()


@pytest.mark.slow
def test_twenty_random_kills_leave_no_trace(tetrominoes_file, tmp_path):
    steps, kills = 300, 20
    config_file = write_experiment(tmp_path / "experiment.py", tetrominoes_file, steps)
    undisturbed, workdir = tmp_path / "undisturbed", tmp_path / "disturbed"
    assert start(config_file, undisturbed).wait(180) == 0, log_of(undisturbed)

    seed = random.randrange(1000)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for _ in range(kills):
        launcher = start(config_file, workdir)
        if draw.random() < 0.25:  # before the first step, most likely
            while len(children(launcher)) < 2:
                time.sleep(0.05)
            time.sleep(draw.uniform(0.0, 5.0))
        else:  # some steps on, while it trains, validates, draws or saves
            file = workdir / "metrics.jsonl"
            reached = metrics(workdir)[-1]["step"] if file.is_file() and metrics(workdir) else 0
            wait_for_step(launcher, workdir, reached + draw.randint(1, 10))
            time.sleep(draw.uniform(0, 0.3))
        started = children(launcher)
        for victim in draw.sample(started, draw.choice([1, len(started)])):
            os.kill(victim, signal.SIGKILL)
        assert launcher.wait(60) != 0, log_of(workdir)
    assert start(config_file, workdir).wait(180) == 0, log_of(workdir)
    assert "Traceback" not in log_of(workdir)
    assert metrics(workdir) == metrics(undisturbed)
    assert [line["step"] for line in metrics(workdir)] == list(range(2, steps + 1, 2))
    assert_equal_trees(parameters(workdir), parameters(undisturbed))


@contextlib.contextmanager
def full_disk(workdir, primary):
    """A process that may write no more bytes to a file finds what one on a full disk finds."""
    del workdir
    limits = resource.prlimit(primary, resource.RLIMIT_FSIZE)
    resource.prlimit(primary, resource.RLIMIT_FSIZE, (10, limits[1]))
    yield
    resource.prlimit(primary, resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def unwritable_disk(workdir, primary):
    """For a while the workdir leads to where nobody can make a file, not even root."""
    del primary
    real = workdir.readlink()
    repoint(workdir, "/proc")
    yield
    repoint(workdir, real)


def repoint(link, target):
    new = link.with_name("new_link")
    new.symlink_to(target)
    new.replace(link)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [full_disk, unwritable_disk])
def test_training_goes_on_while_nothing_can_be_saved(tetrominoes_file, tmp_path, fault):
    config_file = write_experiment(tmp_path / "experiment.py", tetrominoes_file, 100_000)
    real, workdir = tmp_path / "real", tmp_path / "run"
    real.mkdir()
    workdir.symlink_to(real)
    launcher = start(config_file, workdir)
    wait_for_step(launcher, real, 12)
    with fault(workdir, children(launcher)[0]):
        wait_for_log(launcher, real, "could not be written to")
        before = len(metrics(real))
        time.sleep(3)
        assert launcher.poll() is None, log_of(real)
        assert len(metrics(real)) == before
    wait_for_step(launcher, real, metrics(real)[-1]["step"] + 20)
    launcher.terminate()
    assert launcher.wait(60) == 0, log_of(real)
    steps = [line["step"] for line in metrics(workdir)]
    assert steps[:-1] == list(range(2, steps[-1] - steps[-1] % 2 + 1, 2))[: len(steps) - 1]
    again = [*PATIENT, "--config.num_train_steps", str(steps[-1] + 4)]
    assert start(config_file, workdir, arguments=again).wait(180) == 0, log_of(workdir)


def wait_for_log(process, workdir, text, seconds=60):
    deadline = time.monotonic() + seconds
    while text not in log_of(workdir):
        assert process.poll() is None, log_of(workdir)
        assert time.monotonic() < deadline, log_of(workdir)
        time.sleep(0.05)
