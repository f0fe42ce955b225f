"""Spectral clustering: cuts that are known, scikit-learn's, and a run without training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from objdisc_jax.errors import ConfigError
from objdisc_jax.models.base import Batch
from objdisc_jax.models.spectral.model import affinity, k_means, normalised_cut, seeds
from objdisc_jax.models.spectral.settings import Settings
from objdisc_jax.testing.models import MODEL_CHECKS, ModelCase
from objdisc_jax.training import evaluate, loop
from tests.backbones import write_tiny
from tests.conftest import small_config

STEP = jnp.int32(0)


def clusters(seed, sizes, spread):
    """Points around unit vectors, `[n, 16]`, and which they are around."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((len(sizes), 16))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    points = centres[labels] + spread * rng.standard_normal((len(labels), 16))
    return jnp.asarray(points, jnp.float32), labels


def test_clusters_are_found_whatever_their_sizes():
    points, labels = clusters(0, (20, 3, 9, 4), 0.03)
    found = normalised_cut(affinity(points[None], 0.1)[0], 4, eigengap=False)
    assert adjusted_rand_score(labels, found) == 1.0


@pytest.mark.parametrize("sizes", [(18, 18), (20, 3, 13), (9, 9, 9, 9)])
def test_eigengap_tells_their_number(sizes):
    points, labels = clusters(1, sizes, 0.03)
    found = np.asarray(normalised_cut(affinity(points[None], 0.1)[0], 6, eigengap=True))
    assert len(np.unique(found)) == len(sizes)
    assert adjusted_rand_score(labels, found) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_cut_is_hardly_worse_than_scikit_learns(seed):
    points, _ = clusters(seed, (15, 12, 9), 0.35)  # far from clear
    weights = affinity(points[None], 0.3)[0]

    def cut(labels):
        members = np.eye(3)[np.asarray(labels)]
        degree = members.T @ np.asarray(weights).sum(1)
        return (1 - np.diag(members.T @ np.asarray(weights) @ members) / degree).sum()

    theirs = SpectralClustering(3, affinity="precomputed", random_state=0).fit_predict(weights)
    assert cut(normalised_cut(weights, 3, eigengap=False)) < 1.05 * cut(theirs)


def test_loss_is_the_normalised_cut():
    model = ModelCase.small("spectral", cached=True).model
    points, labels = zip(*(clusters(seed, (12, 20, 4), 0.03) for seed in (0, 1)), strict=True)
    features = jnp.pad(jnp.stack(points), ((0, 0), (0, 0), (0, 32)))
    batch = Batch({"features": features})
    loss, _ = model.loss(batch, {}, step=STEP)
    weights = np.asarray(affinity(features, 0.1))
    for value, w, own in zip(loss, weights, labels, strict=True):
        expected = sum(w[own == k][:, own != k].sum() / w[own == k].sum() for k in range(3))
        np.testing.assert_allclose(value, expected, rtol=1e-4)
    slots = np.asarray(model.predict(batch, {}, step=STEP).slots[0])
    for k in range(3):
        mean = np.asarray(features[0])[labels[0] == k].mean(0)
        assert np.abs(slots - mean).max(1).min() < 1e-5


def test_seeds_are_points_of_different_clusters():
    points = jnp.repeat(jnp.eye(4)[:, :3], 5, axis=0) + 1e-3
    assert len(np.unique(np.round(seeds(points)), axis=0)) == 3


def test_centres_that_do_not_count_have_no_points():
    points = jax.random.normal(jax.random.key(0), (30, 2))
    labels = k_means(points, points[:4], jnp.array([True, True, False, True]))
    assert set(np.unique(labels)) == {0, 1, 3}


def test_run_without_training_is_scored(tmp_path, tetrominoes_file):
    config = small_config("spectral")
    config.data.update(path=str(tetrominoes_file), num_workers=0)
    config.model.weights = str(write_tiny(tmp_path / "tiny.safetensors"))
    config.batch_size = 8
    assert config.num_train_steps == 1
    loop.train(config, tmp_path / "run")
    scores = evaluate.evaluate(tmp_path / "run")
    assert scores.num_images == 48
    assert 0 < scores.means["loss"] < 3
    assert 0 < scores.means["fg_ari"] < 1


@pytest.mark.parametrize("eigengap", [False, True])
@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
def test_variant_keeps_the_contract(eigengap, check):
    check(variant_case(eigengap))


@functools.cache
def variant_case(eigengap):
    return ModelCase.small("spectral", eigengap=eigengap, num_slots=5, block=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_slots": 1}, r"model\.num_slots: got 1; it lies between 2 and 35"),
        ({"temperature": 0.0}, r"model\.temperature: got 0\.0; it must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Settings(resolution=(24, 24), backbone="tiny", block=2, **changes)
