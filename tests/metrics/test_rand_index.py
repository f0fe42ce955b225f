from fractions import Fraction
from math import comb
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from objdisc_jax.metrics import (
    adjusted_rand_index,
    contingency_table,
    fg_adjusted_rand_index,
)

REFERENCE = np.load(Path(__file__).parent / "ari_reference.npz")
NO_FOREGROUND = np.char.startswith(REFERENCE["case"], "no_foreground")


def table_of(true, predicted, num_true=8, num_predicted=8):
    return contingency_table(true, predicted, num_true=num_true, num_predicted=num_predicted)


def noisy_labels(size, noise, num_true=6, num_predicted=5, batch=8, seed=0):
    """True rectangles over background, and predictions that follow them but for the noise."""
    rng = np.random.default_rng(seed)
    true = np.zeros((batch, size, size), np.uint8)
    for image in true:
        for label in range(1, num_true):
            y, x = rng.integers(0, size - size // 4, 2)
            image[y : y + size // 3, x : x + size // 4] = label
    random = rng.integers(0, num_predicted, true.shape, np.uint8)
    return true, np.where(rng.uniform(size=true.shape) < noise, random, true % num_predicted)


def sklearn_scores(true, predicted, background=()):
    pairs = [
        (t[keep], p[keep])
        for t, p in zip(true, predicted, strict=True)
        for keep in [~np.isin(t, background)]
    ]
    return np.array([adjusted_rand_score(t, p) if t.size else np.nan for t, p in pairs])


@pytest.mark.parametrize("size", [8, 35, 64, 256, 320])
@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_scores_equal_sklearn(size, noise):
    true, predicted = noisy_labels(size, noise, batch=4)
    table = table_of(true, predicted)
    np.testing.assert_allclose(
        adjusted_rand_index(table), sklearn_scores(true, predicted), rtol=0, atol=5e-7
    )
    np.testing.assert_allclose(
        fg_adjusted_rand_index(table), sklearn_scores(true, predicted, (0,)), rtol=0, atol=5e-7
    )


def test_several_background_labels_are_dropped_together():
    true, predicted = noisy_labels(35, 0.3)
    np.testing.assert_allclose(
        fg_adjusted_rand_index(table_of(true, predicted), background=(0, 2, 99)),
        sklearn_scores(true, predicted, (0, 2)),
        rtol=0,
        atol=5e-7,
    )


def test_scores_equal_published_implementation():
    """But for images without foreground or with one pixel of it, where it divides by zero."""
    table = table_of(REFERENCE["true"], REFERENCE["predicted"])
    expected, one_pixel = REFERENCE["fg_ari"], REFERENCE["case"] == "one_foreground_pixel"
    scores = fg_adjusted_rand_index(table)
    regular = ~NO_FOREGROUND & ~one_pixel
    np.testing.assert_allclose(scores[regular], expected[regular], rtol=0, atol=2e-6)
    np.testing.assert_array_equal(scores[NO_FOREGROUND], np.nan)
    np.testing.assert_array_equal(scores[one_pixel], 1)
    np.testing.assert_allclose(adjusted_rand_index(table), REFERENCE["ari"], rtol=0, atol=2e-6)


def test_reference_cases_equal_sklearn():
    true, predicted = REFERENCE["true"], REFERENCE["predicted"]
    table = table_of(true, predicted)
    for scores, background in ((adjusted_rand_index, ()), (fg_adjusted_rand_index, (0,))):
        np.testing.assert_allclose(
            scores(table), sklearn_scores(true, predicted, background), rtol=0, atol=5e-7
        )


def test_128x128_scores_equal_published_implementation():
    table = table_of(REFERENCE["large_true"], REFERENCE["large_predicted"])
    np.testing.assert_allclose(
        fg_adjusted_rand_index(table), REFERENCE["large_fg_ari"], rtol=0, atol=2e-6
    )


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([[7]], 1),  # a single cluster on both sides
        ([[1, 0], [0, 1]], 1),  # every pixel a cluster of its own, on both sides
        ([[1]], 1),  # a single pixel
        ([[4, 4]], 0),  # a single object, split
        ([[4], [4]], 0),  # two objects, merged
        ([[2, 2], [2, 2]], -1 / 6),  # worse than chance
        ([[0, 0], [0, 0]], np.nan),  # no pixel
        ([[-1, -1], [-1, -1]], -np.inf),  # spoilt by a label out of range
        ([[65535, 0], [0, 1]], 1),  # 2^16 pixels: the largest count of pairs that is exact
        ([[65535, 1]], 0),
    ],
)
def test_degenerate_tables(table, expected):
    np.testing.assert_allclose(
        adjusted_rand_index(np.array([table], np.int32)), [expected], rtol=1e-6
    )


@pytest.mark.parametrize("pixels", [2**16, 2**24])
def test_rounding_stays_within_a_millionth(pixels):
    """Against exact fractions, for tables from dominated by one cell to scattered."""
    rng = np.random.default_rng(0)
    shares = np.concatenate([rng.dirichlet(np.full(42, a), 40) for a in (0.02, 0.2, 5.0)])
    tables = np.floor(shares * pixels).astype(np.int32).reshape(-1, 6, 7)
    scores = np.asarray(adjusted_rand_index(tables)).tolist()
    pairs = zip(scores, tables, strict=True)
    assert max(abs(Fraction(score) - exact_ari(table)) for score, table in pairs) < 1e-6


def exact_ari(table):
    def pairs(counts):
        return sum(comb(int(count), 2) for count in np.ravel(counts))

    true, predicted = pairs(table.sum(1)), pairs(table.sum(0))
    expected = Fraction(true * predicted, pairs(table.sum()))
    if true + predicted == 2 * expected:
        return Fraction(1)
    return (pairs(table) - expected) / (Fraction(true + predicted, 2) - expected)


def test_scores_do_not_depend_on_batch_or_jit():
    tables = table_of(*noisy_labels(64, 0.3))
    together = np.asarray(fg_adjusted_rand_index(tables))
    alone = np.concatenate([fg_adjusted_rand_index(tables[i : i + 1]) for i in range(len(tables))])
    with jax.disable_jit():
        plain = fg_adjusted_rand_index(tables)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_allclose(together, plain, rtol=0, atol=2e-7)
