"""Metrics reach JSON lines, TensorBoard and Weights & Biases, without TensorFlow."""

import json
import resource
import subprocess
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from objdisc_jax.errors import ConfigError
from objdisc_jax.training import writers
from tests.training.test_train import changed


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_writes_of_one_step_share_a_line(tmp_path):
    file = tmp_path / "metrics.jsonl"
    writer = writers.JsonLinesWriter(file, last_step=0)
    writer.write_scalars(1, {"a": np.float32(0.5)})
    writer.write_scalars(2, {"a": 1})
    writer.write_scalars(2, {"b": 2})
    writer.close()
    assert lines(file) == [{"step": 1, "a": 0.5}, {"step": 2, "a": 1.0, "b": 2.0}]


def test_lines_after_the_checkpoint_and_broken_lines_are_removed(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "a": 1.0}\n{"step": 2, "a": 2.0}\n{"step": 3, "a": 3.0}\n{"st')
    writer = writers.JsonLinesWriter(file, last_step=2)
    assert [line["step"] for line in lines(file)] == [1, 2]
    writer.write_scalars(3, {"a": 4.0})
    writer.close()
    assert lines(file)[2] == {"step": 3, "a": 4.0}


def test_lines_are_kept_until_there_is_space(tmp_path):
    file = tmp_path / "metrics.jsonl"
    writer = writers.JsonLinesWriter(file, last_step=0)
    writer.write_scalars(1, {"a": 1})
    writer.flush()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Room for the second line and the beginning of the third.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * file.stat().st_size + 5, limits[1]))
    try:
        for step in (2, 3, 4):
            writer.write_scalars(step, {"a": step})
        with pytest.raises(OSError, match="File too large"):
            writer.flush()
        assert [line["step"] for line in lines(file)] == [1, 2]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    writer.flush()
    assert lines(file) == [{"step": step, "a": step} for step in (1, 2, 3, 4)]


def test_tensorboard_gets_scalars_images_and_the_config(tiny, tmp_path):
    writer = writers.create(tiny, tmp_path, last_step=0, primary=True)
    writer.write_hparams({"batch_size": 8})
    writer.write_scalars(3, {"train/loss": 0.25})
    writer.write_images(3, {"val/panel": np.zeros((8, 9, 3), np.uint8)})
    writer.close()
    # A run that died at step 3 goes on from step 2: what it wrote at step 3 is replaced.
    again = writers.create(tiny, tmp_path, last_step=2, primary=True)
    again.write_scalars(3, {"train/loss": 0.25})
    again.write_images(3, {"val/panel": np.zeros((8, 9, 3), np.uint8)})
    again.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (scalar,) = events.Scalars("train/loss")
    assert (scalar.step, scalar.value) == (3, 0.25)
    (image,) = events.Images("val/panel")
    assert (image.height, image.width) == (8, 9)
    assert "config/text_summary" in events.Tags()["tensors"]


def test_other_processes_write_nothing(tiny, tmp_path):
    writer = writers.create(tiny, tmp_path, last_step=0, primary=False)
    writer.write_scalars(1, {"a": 1})
    writer.close()
    assert not list(tmp_path.iterdir())


def test_tensorflow_is_never_imported():
    code = "import sys, objdisc_jax.training.loop; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_wandb_writes_a_run_offline(tiny, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = changed(tiny, **{"wandb.enabled": True, "wandb.mode": "offline"})
    writer = writers.create(config, tmp_path, last_step=0, primary=True)
    writer.write_hparams({"batch_size": 8})
    writer.write_scalars(1, {"train/loss": 0.5})
    writer.write_images(1, {"val/panel": np.zeros((8, 8, 3), np.uint8)})
    writer.write_scalars(2, {"train/loss": 0.25})
    writer.close()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert next(run.glob("*.wandb")).stat().st_size > 0
    assert run.name.endswith((tmp_path / "wandb_run_id.txt").read_text())


def test_missing_wandb_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
    config = changed(tiny, **{"wandb.enabled": True})
    with pytest.raises(ConfigError, match=r"pip install 'objdisc_jax\[wandb\]'"):
        writers.WandbWriter(config, tmp_path)
