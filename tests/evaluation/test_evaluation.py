"""Scores do not depend on how they are computed."""

import json
from collections import Counter

import jax
import numpy as np
import pytest

from objdisc_jax import sharding
from objdisc_jax.data import loader
from objdisc_jax.errors import ConfigError, UserError
from objdisc_jax.evaluation.runner import Runner
from objdisc_jax.models import base
from objdisc_jax.progress import Progress
from objdisc_jax.training import loop
from objdisc_jax.training.evaluate import evaluate
from objdisc_jax.training.run_dir import build_model
from tests.training.test_train import changed


def score(config, devices=1, num_images=None):
    model = build_model(config)
    graphdef, params = base.split(model)
    mesh = sharding.data_mesh(jax.devices()[:devices])
    dataset = loader.load(config.data, "val")
    params = sharding.put_replicated(params, mesh)
    return Runner(config, graphdef, dataset, mesh, model.fields, num_images)(params, 5)


@pytest.fixture
def reference(tiny):
    return score(changed(tiny, **{"eval.batch_size": 48}))


@pytest.mark.parametrize(
    ("batch_size", "devices"), [(7, 1), (32, 1), (64, 1), (7, 4), (32, 4), (64, 4)]
)
def test_scores_depend_on_neither_batch_size_nor_devices(tiny, reference, batch_size, devices):
    if jax.device_count() < devices:
        pytest.skip(f"needs {devices} devices")
    found = score(changed(tiny, **{"eval.batch_size": batch_size}), devices)
    assert found.num_images == 48
    assert found == reference  # to the bit


def test_workers_make_no_difference(tiny, reference):
    found = score(changed(tiny, **{"data.num_workers": 2, "eval.batch_size": 48}))
    assert found == reference


def test_pixels_of_low_confidence_are_a_segment_of_the_segmentation_only(tiny, reference):
    # No mask reaches 1, so everything is background: one segment, and an ARI of 0.
    config = changed(tiny, **{"background.mode": "low_confidence", "background.threshold": 1.0})
    found = score(config)
    assert found.means["ari"] == 0
    assert found.means["fg_ari"] == pytest.approx(reference.means["fg_ari"], rel=1e-6)
    assert reference.means["ari"] != 0


def test_number_of_images_is_obeyed_and_progress_told(tiny, monkeypatch):
    told = []
    monkeypatch.setattr(Progress, "update", lambda self, count: told.append((self._total, count)))
    assert score(tiny, num_images=20).num_images == 20
    assert told == [(20, 16)]  # the second batch is the last


def test_eval_mode_writes_the_table_and_the_file(tiny, tmp_path, capsys, monkeypatch):
    config, told = changed(tiny, num_train_steps=4), Counter()
    monkeypatch.setattr(Progress, "update", lambda self, count=1: told.update({self._unit: count}))
    loop.train(config, tmp_path)
    assert told == {"steps": 4}  # of scoring in a single batch there is nothing to tell
    scores = evaluate(tmp_path, split="test")
    written = json.loads((tmp_path / "eval_test.json").read_text())
    wanted = {"fg_ari", "ari", "miou", "mbo", "mse", "mse_sum", "num_images", "step", "checkpoint"}
    assert wanted <= written.keys()
    assert written["fg_ari"] == scores.means["fg_ari"]
    assert written["num_images"] == 48
    assert written["step"] == 4
    np.testing.assert_allclose(written["mse_sum"], written["mse"] * 35 * 35 * 3, rtol=1e-5)
    assert f"{scores.means['fg_ari']:.4f}" in capsys.readouterr().out
    assert (tmp_path / "visualizations" / "test.png").is_file()

    # More slots, given as a config: the same weights, other masks.
    more = evaluate(tmp_path, config=changed(config, **{"model.num_slots": 5}))
    assert more.means["fg_ari"] != scores.means["fg_ari"]
    assert more.means["mse"] != scores.means["mse"]

    with pytest.raises(ConfigError, match=r"slot_mu.*\(1, 1, 8\) in the run, \(1, 1, 16\)"):
        evaluate(tmp_path, config=changed(config, **{"model.slot_size": 16}))
    assert evaluate(str(tmp_path), step=4).means == scores.means
    with pytest.raises(UserError, match=r"no checkpoint '3' .* there are steps 4"):
        evaluate(tmp_path, step=3)
    with pytest.raises(UserError, match="no split 'tset'"):
        evaluate(tmp_path, split="tset")


def test_directory_without_a_run_is_named(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        evaluate(tmp_path)
    with pytest.raises(UserError, match=r"no trained model.*nothing.*Name a run directory"):
        evaluate(str(tmp_path / "nothing"))
