"""Requests to stop that reach all processes of a job, and whatever else they end."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from objdisc_jax.training import loop, prepare, stopping
from tests.conftest import tiny_experiment
from tests.training.test_train import changed, metrics

READ = """
import os, signal, sys
import numpy as np, torch
from objdisc_jax.data import loader

class Ones:
    def __getitems__(self, number):
        return torch.full((64, 64, 3), number)

if __name__ == "__main__":
    os.setpgid(0, 0)
    asked = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    batches = loader.read_ahead(Ones(), range(1000), num_workers=2, in_process="")
    for number in range(200):
        if number in (0, 50, 100):  # 0: where the workers begin, with modules still to import
            os.killpg(0, signal.SIGTERM)
            os.killpg(0, signal.SIGINT)
        assert next(batches)[0, 0, 0] == number
    batches.close()
    print(len(asked))
"""


def test_workers_live_on_when_all_processes_are_told_to_stop(tmp_path):
    program = tmp_path / "read.py"
    program.write_text(READ)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(program)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("6\n", "")


@pytest.fixture
def long_run(tetrominoes_file):
    periods = {"eval.every": 10**6, "visualize.every": 10**6, "checkpoint.every": 10**6}
    return changed(tiny_experiment(tetrominoes_file), num_train_steps=10**6, **periods)


def batches_that_end(monkeypatch, steps, *, stop):
    """Lets the loader fail as it does whose shared memory is gone."""

    def train_batches(prepared, first_step):
        batches = prepare.train_batches(prepared, first_step)
        for _ in range(steps):
            yield next(batches)
        if stop:
            os.kill(os.getpid(), signal.SIGTERM)
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(loop, "train_batches", train_batches)


def checkpoints(workdir):
    return sorted(int(folder.name) for folder in (workdir / "checkpoints").iterdir())


def test_run_that_is_asked_to_stop_saves_though_its_batches_fail(long_run, tmp_path, monkeypatch):
    batches_that_end(monkeypatch, 3, stop=True)
    loop.train(long_run, tmp_path)
    assert checkpoints(tmp_path) == [3]
    assert [line["step"] for line in metrics(tmp_path)] == [2]


def test_run_that_is_asked_to_stop_before_its_first_batch_ends(long_run, tmp_path, monkeypatch):
    batches_that_end(monkeypatch, 0, stop=True)
    loop.train(long_run, tmp_path)
    assert checkpoints(tmp_path) == []


def test_batches_that_fail_unasked_are_an_error(long_run, tmp_path, monkeypatch):
    batches_that_end(monkeypatch, 3, stop=False)
    with pytest.raises(ConnectionResetError):
        loop.train(long_run, tmp_path)


def test_only_what_must_not_be_saved_is_raised_after_a_request():
    request = stopping.StopRequest()
    request.made = True
    with request.excuses_errors(but=ZeroDivisionError):
        raise ConnectionResetError
    with pytest.raises(ZeroDivisionError), request.excuses_errors(but=ZeroDivisionError):
        raise ZeroDivisionError


ROUNDS = 50
TRAIN = """
import sys

if __name__ == "__main__":  # the workers, which import this file, need none of these
    from pathlib import Path
    from absl import logging
    from objdisc_jax.training import loop
    from tests.training.test_kill import small_experiment

    logging.set_verbosity(logging.INFO)
    config = small_experiment("slot_attention", sys.argv[1])
    config.num_train_steps = 10**6
    config.data.num_workers = 4
    config.checkpoint.every = config.eval.every = config.visualize.every = 10**6
    make, made = loop.make_train_step, []

    def make_once(*arguments):  # a step is compiled once, not in every round
        made[:] = made or [make(*arguments)]
        return made[0]

    loop.make_train_step = make_once
    for _ in range(int(sys.argv[3])):
        loop.train(config, Path(sys.argv[2]))
        print("stopped", flush=True)
"""

ALONE = {"PYTHONPATH": os.getcwd(), "PYTHONWARNINGS": "ignore", "JAX_NUM_CPU_DEVICES": "1"}


@pytest.mark.slow
def test_signal_to_all_processes_at_random_moments_loses_no_step(tetrominoes_file, tmp_path):
    program, workdir = tmp_path / "program.py", tmp_path / "run"
    program.write_text(TRAIN)
    seed = random.randrange(1000)
    print(f"seed {seed}")
    draw = random.Random(seed)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(program), str(tetrominoes_file), str(workdir), str(ROUNDS)],
            env={**os.environ, **ALONE},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    saved = 0
    try:
        for _ in range(ROUNDS):
            reached = wait_for_step(process, tmp_path, workdir, saved + draw.randint(1, 12))
            time.sleep(draw.uniform(0, 0.2))
            os.killpg(process.pid, signal.SIGTERM)
            assert process.stdout.readline() == "stopped\n", (tmp_path / "log").read_text()
            saved = checkpoints(workdir)[-1]
            assert saved >= reached
        assert process.wait(60) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
    told = re.findall(r"Asked to stop: saved step (\d+)", (tmp_path / "log").read_text())
    assert len(told) == ROUNDS
    assert int(told[-1]) == saved


def wait_for_step(process: subprocess.Popen, folder: Path, workdir: Path, step: int) -> int:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        file = workdir / "metrics.jsonl"
        lines = file.read_text().split("\n")[:-1] if file.is_file() else []
        if lines and (reached := json.loads(lines[-1])["step"]) >= step:
            return reached
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.01)
    raise TimeoutError(f"no step {step} within five minutes")
