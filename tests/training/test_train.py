"""Runs of the training loop: resuming, stopping, diverging, refusing."""

import dataclasses
import json
import re
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from objdisc_jax import config as configs
from objdisc_jax import sharding
from objdisc_jax.data.datasets import tetrominoes
from objdisc_jax.errors import ConfigError, UserError
from objdisc_jax.training import checkpoint, hooks, loop, run_dir
from objdisc_jax.training.checkpoint import Checkpoints
from objdisc_jax.training.stopping import StopRequest


def metrics(workdir):
    """The metric lines of a run without their timing."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in hooks.TIMING} for line in lines]


def parameters(workdir):
    sharding_ = sharding.replicated(sharding.data_mesh())
    return jax.device_get(run_dir.load_trained(workdir, sharding_).params)


def assert_equal_trees(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def changed(config, **values):
    config = config.copy_and_resolve_references()
    for key, value in values.items():
        config.update_from_flattened_dict({key: value})
    return config


def test_resumed_run_equals_undisturbed_run_to_the_bit(tiny, tmp_path):
    loop.train(tiny, tmp_path / "undisturbed")
    loop.train(changed(tiny, num_train_steps=7), tmp_path / "resumed")
    loop.train(tiny, tmp_path / "resumed")
    ours = [line for line in metrics(tmp_path / "resumed") if line["step"] != 7]
    assert ours == metrics(tmp_path / "undisturbed")
    assert [line["step"] for line in ours] == [2, 4, 6, 8, 10, 12]
    assert_equal_trees(parameters(tmp_path / "resumed"), parameters(tmp_path / "undisturbed"))


def test_resumed_run_keeps_its_plateau_to_the_bit(tiny, tmp_path):
    config = changed(
        tiny,
        **{
            "plateau.enabled": True,
            "plateau.patience": 0,
            "plateau.threshold": 1.0,  # nothing counts as a gain: every validation halves
            "eval.every": 3,
        },
    )
    loop.train(config, tmp_path / "undisturbed")
    # The first part ends with a validation that isn't scheduled, and leaves the plateau alone.
    loop.train(changed(config, num_train_steps=7), tmp_path / "resumed")
    loop.train(config, tmp_path / "resumed")
    ours = [line for line in metrics(tmp_path / "resumed") if line["step"] != 7]
    assert ours == metrics(tmp_path / "undisturbed")
    assert_equal_trees(parameters(tmp_path / "resumed"), parameters(tmp_path / "undisturbed"))
    rates = {line["step"]: line["train/learning_rate"] for line in ours}
    expected = {4: 1e-3, 8: 5e-4, 10: 2.5e-4, 12: 2.5e-4}
    assert {step: rates[step] for step in expected} == pytest.approx(expected)


def test_run_leaves_everything_needed_to_use_it(tiny, tmp_path):
    loop.train(tiny, str(tmp_path))
    names = {entry.name for entry in tmp_path.iterdir()}
    assert {"config.json", "environment.json", "checkpoints", "metrics.jsonl"} <= names
    assert {"tensorboard", "visualizations", "curves.png"} <= names
    assert [f.name for f in (tmp_path / "visualizations").iterdir()] == ["step_0000012.png"]
    saved = configs.load(tmp_path)
    assert configs.to_dict(saved) == configs.to_dict(tiny)
    last = metrics(tmp_path)[-1]
    assert {"val/fg_ari", "val/miou", "val/mse", "train/loss", "train/grad_norm"} <= last.keys()


def test_latest_and_best_checkpoints_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    state = {"x": np.arange(3.0)}
    for step, score in [(1, 0.1), (2, 0.9), (3, None), (4, 0.5), (5, float("nan")), (6, None)]:
        checkpoints.save(step, state, {"seconds": 1.0}, score)
        checkpoints.wait()
    assert checkpoints.find("best") == 2
    assert checkpoints.find("latest") == 6
    assert checkpoints.find("5") == 5
    with pytest.raises(UserError, match="there are steps 2, 5, 6"):
        checkpoints.find("4")
    checkpoints.close()


def test_best_checkpoint_is_the_one_of_the_highest_validation_score(tiny, tmp_path):
    loop.train(changed(tiny, **{"eval.every": 2, "checkpoint.keep": 1}), tmp_path)
    scores = {line["step"]: line["val/fg_ari"] for line in metrics(tmp_path)}
    replicated = sharding.replicated(sharding.data_mesh())
    best = run_dir.load_trained(tmp_path, replicated, which="best").step
    assert scores[best] == max(scores.values())


def test_lowest_loss_is_best_without_masks(tiny, tmp_path, monkeypatch):
    # The same file, read as a set that has no masks.
    declare = tetrominoes.declare
    monkeypatch.setattr(
        tetrominoes, "declare", lambda c: dataclasses.replace(declare(c), has_masks=False)
    )
    loop.train(changed(tiny, **{"eval.every": 2, "checkpoint.keep": 1}), tmp_path)
    losses = {line["step"]: line["val/loss"] for line in metrics(tmp_path)}
    assert "val/fg_ari" not in metrics(tmp_path)[-1]
    replicated = sharding.replicated(sharding.data_mesh())
    best = run_dir.load_trained(tmp_path, replicated, which="best").step
    assert losses[best] == min(losses.values())


def test_validation_needs_no_common_multiple_with_logging(tiny, tmp_path):
    loop.train(changed(tiny, **{"log_every": 5, "eval.every": 3, "num_train_steps": 7}), tmp_path)
    assert [line["step"] for line in metrics(tmp_path)] == [3, 5, 6, 7]
    assert (tmp_path / "curves.png").is_file()


def test_speed_counts_neither_compilation_nor_validation(tiny, tmp_path, monkeypatch):
    def validate(self, step, state):
        time.sleep(2.0)
        return state

    monkeypatch.setattr(hooks.Validate, "__call__", validate)
    loop.train(changed(tiny, **{"log_every": 1, "eval.every": 2, "num_train_steps": 5}), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    speeds = [line.get("train/steps_per_second") for line in lines if "train/loss" in line]
    assert speeds[0] is None  # the first step is compiled
    assert len(speeds) == 5
    assert min(speeds[1:]) > 1 / 1.5


def test_finished_run_says_so_and_changes_nothing(tiny, tmp_path, caplog):
    loop.train(tiny, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with caplog.at_level("INFO", logger="absl"):
        loop.train(tiny, tmp_path)
    assert "has reached its 12 steps" in caplog.text
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(tiny, tmp_path):
    loop.train(changed(tiny, num_train_steps=4), tmp_path)
    good = parameters(tmp_path)
    # Adam bounds every update by the rate, so only an absurd rate overflows the loss.
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["optimizer"]["learning_rate"] = 1e30
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(hooks.Diverged, match=r"step (5|6|7) has loss .* last good .* step 4"):
        loop.train(changed(tiny, **{"optimizer.learning_rate": 1e30}), tmp_path)
    report = json.loads((tmp_path / "diverged.json").read_text())
    assert 5 <= report["step"] <= 7
    assert len(report["batch_index"]) == tiny.batch_size
    assert all(0 <= index < 64 for index in report["batch_index"])
    assert_equal_trees(parameters(tmp_path), good)


def test_run_of_another_config_is_refused(tiny, tmp_path):
    loop.train(changed(tiny, num_train_steps=2), tmp_path)
    with pytest.raises(ConfigError, match=r"model\.slot_size: 8 -> 16") as error:
        loop.train(changed(tiny, **{"model.slot_size": 16, "log_every": 3}), tmp_path)
    assert "log_every:" not in str(error.value)


def test_failed_start_leaves_no_run_behind(tiny, tmp_path):
    with pytest.raises(UserError, match=r"missing.h5"):
        loop.train(changed(tiny, **{"data.path": str(tmp_path / "missing.h5")}), tmp_path / "a")
    with pytest.raises(ConfigError, match=r"model\.decoder: got 'x'; allowed are conv, mlp"):
        loop.train(changed(tiny, **{"model.decoder": "x"}), tmp_path / "a")
    if jax.device_count() > 1:
        with pytest.raises(ConfigError, match=r"batch_size: got 7.*cannot be divided"):
            loop.train(changed(tiny, batch_size=7), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_damaged_checkpoint_is_named(tiny, tmp_path):
    loop.train(changed(tiny, num_train_steps=4), tmp_path)
    folder = tmp_path / "checkpoints" / "4" / "state"
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(UserError, match=r"checkpoints/4 cannot be read"):
        loop.train(tiny, tmp_path)


def test_checkpoint_that_cannot_be_read_gives_way_to_the_one_before(tiny, tmp_path, caplog):
    loop.train(changed(tiny, num_train_steps=8), tmp_path)
    folder = tmp_path / "checkpoints"
    for file in (folder / "8" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    (folder / "9.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    with caplog.at_level("INFO", logger="absl"):
        loop.train(tiny, tmp_path)
    assert re.search(r"Ignored and removed .*9\.orbax-checkpoint-tmp", caplog.text)
    assert re.search(r"checkpoints/8 cannot be read .* going on from step 6", caplog.text)
    assert (folder / "8.unreadable").is_dir()
    assert [line["step"] for line in metrics(tmp_path)] == [2, 4, 6, 8, 10, 12]
    loop.train(tiny, tmp_path / "undisturbed")
    assert metrics(tmp_path) == metrics(tmp_path / "undisturbed")
    assert_equal_trees(parameters(tmp_path), parameters(tmp_path / "undisturbed"))


def test_second_run_in_a_workdir_is_refused(tiny, tmp_path):
    with run_dir.opened(tmp_path, tiny):
        with pytest.raises(UserError, match=r"is in use by another run \(process \d+ on "):
            loop.train(tiny, tmp_path)
    loop.train(changed(tiny, num_train_steps=2), tmp_path)


def test_a_run_that_has_ended_keeps_what_it_was_made_on(tiny, tmp_path):
    loop.train(changed(tiny, num_train_steps=2), tmp_path)
    kept = {name: tmp_path / name for name in ("environment.json", "config.json")}
    (tmp_path / "environment.json").write_text("{}")
    before = {name: file.read_bytes() for name, file in kept.items()}
    loop.train(changed(tiny, num_train_steps=1), tmp_path)
    assert {name: file.read_bytes() for name, file in kept.items()} == before


def test_commit_of_the_code_is_recorded(tiny, tmp_path):
    run_dir.record(tmp_path, tiny)
    environment = json.loads((tmp_path / "environment.json").read_text())
    root = Path(run_dir.__file__).parents[2]
    commit = None
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert environment["git_commit"].removesuffix("-dirty") == commit
    else:
        assert environment["git_commit"] is None


def test_save_that_fails_is_tried_again(tiny, tmp_path, caplog, monkeypatch):
    # The folder of checkpoints is away for two saves, of which the second is a repetition.
    monkeypatch.setattr(checkpoint, "RETRY_SECONDS", 0.0)
    folder, tried = tmp_path / "checkpoints", []
    save = Checkpoints.save

    def save_without_folder(self, step, *rest):
        tried.append(step)
        if step in (4, 5):
            folder.rename(tmp_path / "away")
            folder.write_text("")
        save(self, step, *rest)
        self.wait()
        if step in (4, 5):
            folder.unlink()
            (tmp_path / "away").rename(folder)

    monkeypatch.setattr(Checkpoints, "save", save_without_folder)
    loop.train(changed(tiny, **{"eval.every": 12, "num_train_steps": 7}), tmp_path)
    assert tried == [4, 5, 6, 7, 7]
    assert caplog.text.count("could not be written to") == 2
    assert Checkpoints(tmp_path, create=False).latest_step == 7


def test_run_that_is_stopped_before_its_first_metrics_is_saved(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(StopRequest, "made", True)
    loop.train(tiny, tmp_path)
    assert Checkpoints(tmp_path, create=False).latest_step == 1
    assert not (tmp_path / "metrics.jsonl").exists()
    monkeypatch.undo()
    loop.train(tiny, tmp_path)
    assert [line["step"] for line in metrics(tmp_path)] == [2, 4, 6, 8, 10, 12]


def test_unwritable_workdir_is_named(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        loop.train(tiny, tmp_path / "file" / "run")


def test_profile_writes_a_trace(tiny, tmp_path):
    # A window that the end of the run cuts short.
    loop.train(changed(tiny, **{"profile.start": 11, "profile.steps": 99}), tmp_path)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_checkpoints_without_a_config_are_refused(tiny, tmp_path):
    loop.train(changed(tiny, num_train_steps=4), tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        loop.train(tiny, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule.name": "linear"}, r"schedule\.name: got 'linear'; allowed are constant"),
        ({"optimizer.name": "adm"}, r"no optimiser 'adm' \(did you mean 'adam'"),
        ({"checkpoint.best": "fg_ari"}, r"checkpoint\.best: got 'fg_ari'; it is a direction"),
        ({"checkpoint.best": "max fg_iri"}, r"no metric 'fg_iri' \(did you mean 'fg_ari'"),
        ({"evals": ("segmantation",)}, r"no evaluator 'segmantation' \(did you mean"),
        ({"background.mode": "all"}, r"background\.mode: got 'all'"),
        ({"background.threshold": 7.0}, r"background\.threshold: got 7\.0"),
        ({"eval.num_images": 0}, r"eval\.num_images: got 0; it must be at least 1"),
        ({"data.num_workers": -1}, r"data\.num_workers: got -1; it must be at least 0"),
        ({"seed": 2**32}, r"seed: got"),
        ({"model.dtype": "float16"}, r"model\.dtype: got 'float16'; allowed are float32, bfloat16"),
        ({"model.resolution": (64,)}, r"model\.resolution: got \(64,\)"),
        ({"model.encoder_channels": ()}, r"encoder_kernels: got .* asks for 0 entries"),
        ({"model.num_slots": 0}, r"model\.num_slots: got 0"),
    ],
)
def test_settings_out_of_range_stop_the_start(tiny, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        loop.train(changed(tiny, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_run_of_another_version_is_refused(tiny, tmp_path):
    loop.train(changed(tiny, num_train_steps=2), tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    for change in ({"pictures": {"every": 5}}, {"optimizer": {"name": "adam", "b1": 0.9}}):
        (tmp_path / "config.json").write_text(json.dumps(values | change))
        with pytest.raises(ConfigError, match="is of another version of objdisc_jax"):
            loop.train(tiny, tmp_path)
