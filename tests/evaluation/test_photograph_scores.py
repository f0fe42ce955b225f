"""Both conventions for photographs, against the published metrics' own values."""

from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objdisc_jax.config import experiment
from objdisc_jax.data import datasets
from objdisc_jax.data.instances import NUM_ENTITIES, Instances
from objdisc_jax.errors import UserError
from objdisc_jax.evaluation import evaluators
from objdisc_jax.models.base import Batch, Model, Prediction
from objdisc_jax.training.prepare import prepare
from tests.backbones import write_tiny
from tests.conftest import small_config

PUBLISHED = np.load(Path(__file__).parents[1] / "metrics" / "instance_masks.npz")
TRUE, IGNORE = (np.unpackbits(PUBLISHED[name], axis=-1).astype(bool) for name in ("true", "ignore"))
NAMES = {
    "instances": {
        "mbo_i": "mbo",
        "miou_i": "miou",
        "corloc": "corloc",
        "recovery": "recovery",
        "fg_ari_i": "fg_ari",
    },
    "panoptic": {
        "panoptic_mbo": "mbo_with_background",
        "panoptic_miou": "miou_with_background",
    },
}


def fields_of(classes):
    """What a reader gives of the published cases, with the same classes for all."""
    found = []
    for masks, void in zip(TRUE, IGNORE, strict=True):
        masks = masks[masks.any((1, 2))]
        found.append(Instances.stacked(masks, classes[: len(masks)], void))
    return {name: jnp.stack([getattr(x, name) for x in found]) for name in Instances._fields}


def scores(name, classes=(1, 2, 3, 4, 5, 6, 7), masks=None):
    config = experiment(model="slot_attention", data="voc")
    config.evals = (name,)
    declaration = datasets.get("voc").declare(config.data)
    (evaluator,) = evaluators.create(config, declaration)
    if masks is None:
        masks = np.moveaxis(np.eye(5, dtype=np.float32)[PUBLISHED["predicted"]], -1, 1)
    prediction = Prediction(None, jnp.asarray(masks), jnp.zeros((len(masks), masks.shape[1], 1)))
    fields = fields_of(classes)
    model, batch = mock.create_autospec(Model, instance=True), Batch({})
    values = evaluator.score(model, batch, prediction, fields)
    found = evaluator.finish(jax.device_get(values))
    assert set(found) == set(evaluator.metrics)
    return found


@pytest.mark.parametrize(("name", "best"), [("instances", "mbo_i"), ("panoptic", "panoptic_mbo")])
def test_a_score_of_photographs_makes_the_best_checkpoint(tmp_path, name, best):
    datasets.get("voc").write_example(tmp_path / "voc")
    config = small_config("dinosaur")
    config.model.weights = str(write_tiny(tmp_path / "tiny.safetensors"))
    with config.unlocked():
        config.data = experiment(model="dinosaur", data="voc").data
    config.data.update(path=str(tmp_path / "voc"), num_workers=0, resolution=(24, 24))
    config.update(batch_size=8, evals=(name,))
    assert prepare(config).best == ("max", best)
    config.checkpoint.best = "max fg_ari"
    with pytest.raises(UserError, match=rf"no metric 'fg_ari'.*{best}"):
        prepare(config)


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_the_published_metrics(name):
    found = scores(name)
    for ours, theirs in NAMES[name].items():
        np.testing.assert_allclose(found[ours], PUBLISHED[theirs], atol=1e-6, err_msg=ours)
        assert len(np.unique(found[ours])) > 2


@pytest.mark.parametrize("name", ["instances", "panoptic"])
def test_data_without_void_or_classes_are_scored_too(tmp_path, name):
    config = experiment(model="slot_attention", data="clevrtex")
    config.evals = (name,)
    declaration = datasets.get("clevrtex").declare(config.data)
    (evaluator,) = evaluators.create(config, declaration)
    true = np.zeros((1, 8, 8), np.uint8)
    true[:, 2:6, 1:4], true[:, 1:3, 5:7] = 1, 2
    masks = np.moveaxis(np.eye(3, dtype=np.float32)[true], -1, 1)
    prediction = Prediction(None, jnp.asarray(masks), jnp.zeros((1, 3, 1)))
    model, batch = mock.create_autospec(Model, instance=True), Batch({})
    fields = {"segmentation": jnp.asarray(true)}
    found = evaluator.finish(jax.device_get(evaluator.score(model, batch, prediction, fields)))
    assert set(found) == set(evaluator.metrics) - {"mbo_c"}
    for values in found.values():
        np.testing.assert_allclose(values, 1.0, atol=1e-6)


def test_objects_of_a_class_are_one():
    apart, together = scores("instances"), scores("instances", classes=(3,) * 7)
    np.testing.assert_array_equal(apart["mbo_c"], apart["mbo_i"])
    np.testing.assert_array_equal(together["mbo_i"], apart["mbo_i"])
    # All objects as one: the best overlap of their union, without overlaps and void.
    union, several = TRUE.any(1), (TRUE.sum(1) > 1) | IGNORE
    for image in range(len(TRUE)):
        predicted = PUBLISHED["predicted"][image]
        inside = union[image] & ~several[image]
        best = max(
            (inside & own).sum() / max((inside | own).sum(), 1)
            for own in ((predicted == label) & ~several[image] for label in range(5))
        )
        if inside.any():
            assert together["mbo_c"][image] == pytest.approx(best)


def test_masks_are_enlarged_smoothly_to_the_size_of_the_true_ones():
    """Between the centres of two pixels of a mask the border lies where both are equal."""
    masks = np.zeros((len(TRUE), 2, 2, 2), np.float32)
    masks[:, 0, :, 0], masks[:, 1, :, 0] = 0.9, 0.1
    masks[:, 0, :, 1], masks[:, 1, :, 1] = 0.3, 0.7
    # 24 pixels: centres at columns 5.5 and 17.5, equal after 4 / 6 of the way: column 13.5.
    sharp = np.zeros((len(TRUE), 2, 24, 24), np.float32)
    sharp[:, 0, :, :14] = sharp[:, 1, :, 14:] = 1
    for name in NAMES:
        found, expected = scores(name, masks=masks), scores(name, masks=sharp)
        for metric, values in expected.items():
            np.testing.assert_allclose(found[metric], values, err_msg=metric)


def test_there_are_labels_for_all_published_objects():
    assert TRUE.shape[1] < NUM_ENTITIES
