"""SPOT's second stage: a trained model teaches another, and is not needed afterwards."""

import json

import jax
import numpy as np
import pytest

import objdisc_jax
from objdisc_jax import features
from objdisc_jax.errors import ConfigError, UserError
from objdisc_jax.training import evaluate, loop, publishing, run_dir
from tests.backbones import cached_dinosaur
from tests.training.test_train import changed, metrics, parameters


@pytest.fixture
def config(tmp_path, tetrominoes_file):
    """Of the first stage, on stored features."""
    config = cached_dinosaur(tmp_path, tetrominoes_file)
    config.model.update(decoder="transformer", orders="random")
    config.update(batch_size=8, num_train_steps=2, log_every=1)
    config.schedule.update(name="constant", warmup_steps=0.0)
    features.write(config)
    return config


def test_a_published_first_stage_teaches_a_second(config, tmp_path):
    loop.train(config, tmp_path / "first")
    evaluate.evaluate(tmp_path / "first", split="test")
    publishing.publish(tmp_path / "first", tmp_path / "model", limits="-", data_command="-")
    weights = tmp_path / "model" / "model.safetensors"
    second = changed(config, **{"model.teacher": str(weights.parent), "model.gradient": "bo_qsa"})
    second.model.teacher_weight = 0.5
    loop.train(second, tmp_path / "second")  # the features know nothing of a teacher

    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    taught = run_dir.load_trained(tmp_path / "second", place, loss=True).params["teacher"]
    teacher = parameters(tmp_path / "first")
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.device_get(taught),
        {part: teacher[part] for part in ("slot_attention", "decoder")},
    )
    first = metrics(tmp_path / "second")[0]
    assert first["train/loss"] == pytest.approx(
        first["train/recon_loss"] + 0.5 * first["train/teacher"], rel=1e-5
    )
    assert set(json.loads((tmp_path / "second" / "frozen.json").read_text())) == {
        "backbone",
        "teacher",
    }
    scores = evaluate.evaluate(tmp_path / "second", split="test")
    assert scores.means["teacher"] > 0

    # What is predicted needs none; what is scored has a loss.
    publishing.publish(tmp_path / "second", tmp_path / "pupil", limits="-", data_command="-")
    recorded = json.loads((tmp_path / "pupil" / "frozen.json").read_text())
    assert {part: found["source"] for part, found in recorded.items()} == {
        "backbone": "tiny.safetensors",
        "teacher": "model",
    }
    again = evaluate.evaluate(tmp_path / "pupil", config=second, output=tmp_path / "scores")
    assert again.means == scores.means
    weights.unlink()
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    labels = [
        objdisc_jax.load(tmp_path / name, weights=config.model.weights).segment(image).segmentation
        for name in ("second", "pupil")
    ]
    np.testing.assert_array_equal(*labels)
    with pytest.raises(UserError, match=r"'teacher' comes from .*/model, but that folder has no"):
        evaluate.evaluate(tmp_path / "second")


def test_other_models_are_no_teachers(config, tmp_path):
    queries = changed(config, **{"model.gradient": "bo_qsa"})
    loop.train(queries, tmp_path / "first")
    evaluate.evaluate(tmp_path / "first", split="test")
    publishing.publish(tmp_path / "first", tmp_path / "model", limits="-", data_command="-")
    folder = tmp_path / "model"
    second = changed(config, **{"model.teacher": str(folder)})
    said = json.loads((folder / "config.json").read_text())
    for changes, message in (
        ({}, r"model\.teacher: .* has model\.gradient = 'bo_qsa', but .* with 'unrolled'"),
        ({"gradient": "unrolled", "num_heads": 1}, r"has model\.num_heads = 1, but"),
    ):
        changed_block = {**said, "model": {**said["model"], **changes}}
        (folder / "config.json").write_text(json.dumps(changed_block))
        with pytest.raises(ConfigError, match=message):
            loop.train(second, tmp_path / "second")
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"does not fit the frozen part 'teacher'(.|\n)*slot_mu"):
        loop.train(second, tmp_path / "second")
    elsewhere = changed(config, **{"model.teacher": str(tmp_path / "first")})
    with pytest.raises(ConfigError, match=r"has no model\.safetensors .*to-pretrained.*\.teacher="):
        loop.train(elsewhere, tmp_path / "second")
