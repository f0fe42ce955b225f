"""A real process is killed and told to stop; the run it leaves ends as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.backbones import write_tiny
from tests.conftest import small_config, tiny_experiment
from tests.training.test_train import assert_equal_trees, metrics, parameters

STEPS = 60
EXPERIMENT = """
from tests.training.test_kill import small_experiment

def get_config():
    return small_experiment({model!r}, {path!r})
"""


def small_experiment(model, data_file):
    """The tiny experiment with a small model whose schedules and plateau are at work."""
    tiny = tiny_experiment(data_file).copy_and_resolve_references().unlock()
    if model == "slot_attention":
        config = tiny
    else:
        config = small_config(model)
        if "backbone" in config.model:
            weights = Path(data_file).with_name("tiny.safetensors")
            if not weights.exists():
                write_tiny(weights)
            config.model.weights = str(weights)
        config.update({key: tiny[key] for key in ("data", "eval", "checkpoint", "visualize")})
        config.update(batch_size=tiny.batch_size, log_every=tiny.log_every)
        config.plateau.update(enabled=True, patience=0, threshold=1.0)
    if "temperature_steps" in config.model:
        config.model.temperature_steps = STEPS
    config.num_train_steps = STEPS
    config.optimizer.ema_decay = 0.9
    config.data.num_workers = 1
    return config


def start(config_file, workdir):
    command = [sys.executable, "-m", "objdisc_jax.main", "--config", str(config_file)]
    workdir.mkdir(exist_ok=True)
    with (workdir / "log").open("a") as log:
        return subprocess.Popen(
            [*command, "--workdir", str(workdir)],
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def wait_for_step(process, workdir, step):
    """Waits until the metrics have a line of this step or a later one."""
    file = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        lines = file.read_text().split("\n")[:-1] if file.is_file() else []
        if lines and json.loads(lines[-1])["step"] >= step:
            return
        assert process.poll() is None, (workdir / "log").read_text()
        time.sleep(0.01)
    raise TimeoutError(f"no step {step} within five minutes")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["slot_attention", "gnm", "dinosaur"])  # plain, schedules, frozen
def test_killed_and_stopped_run_equals_undisturbed_run(model, tetrominoes_file, tmp_path):
    config_file = tmp_path / "experiment.py"
    config_file.write_text(EXPERIMENT.format(model=model, path=str(tetrominoes_file)))
    undisturbed = tmp_path / "undisturbed"
    assert start(config_file, undisturbed).wait(180) == 0, (undisturbed / "log").read_text()

    workdir = tmp_path / "disturbed"
    killed = start(config_file, workdir)
    step = random.randrange(6, 16, 2)
    print(f"killed after step {step}")
    wait_for_step(killed, workdir, step)
    killed.kill()
    assert killed.wait(10) == -signal.SIGKILL

    stopped = start(config_file, workdir)
    wait_for_step(stopped, workdir, 20)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(60) == 0, (workdir / "log").read_text()
    saved = [int(entry.name) for entry in (workdir / "checkpoints").iterdir()]
    assert f"Asked to stop: saved step {max(saved)}" in (workdir / "log").read_text()

    assert start(config_file, workdir).wait(180) == 0, (workdir / "log").read_text()
    assert metrics(workdir) == metrics(undisturbed)
    assert [line["step"] for line in metrics(workdir)] == list(range(2, STEPS + 1, 2))
    assert_equal_trees(parameters(workdir), parameters(undisturbed))
