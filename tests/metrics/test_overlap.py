from itertools import permutations

import numpy as np
import pytest

from objdisc_jax.metrics import contingency_table, mean_best_overlap, mean_iou

# Six pixels of background (one of them predicted as segment 1), objects of 4 and 2 pixels.
# Segments have 6, 4 and 2 pixels. IoU of object 1: 1/9, 3/5, 0; of object 2: 0, 0, 1.
TABLE = np.array([[[5, 1, 0], [1, 3, 0], [0, 0, 2]]])


def test_hand_computed_example():
    np.testing.assert_allclose(mean_iou(TABLE), [(3 / 5 + 1) / 2])
    np.testing.assert_allclose(mean_best_overlap(TABLE), [(3 / 5 + 1) / 2])


def test_background_counts_when_asked_for():
    expected = [(5 / 7 + 3 / 5 + 1) / 3]
    np.testing.assert_allclose(mean_iou(TABLE, background=()), expected)
    np.testing.assert_allclose(mean_best_overlap(TABLE, background=()), expected)


def test_several_background_labels_are_not_scored():
    np.testing.assert_allclose(mean_iou(TABLE, background=(0, 1, 99)), [1])


def test_segment_shared_by_two_objects_is_matched_once():
    """Both objects lie in segment 0: mBO scores both, the matching only one of them."""
    table = np.array([[[0, 8], [4, 0], [4, 0]]])
    np.testing.assert_allclose(mean_best_overlap(table), [1 / 2])
    np.testing.assert_allclose(mean_iou(table), [1 / 4])


def test_object_without_a_segment_left_scores_zero():
    table = np.array([[[0], [4], [4]]])
    np.testing.assert_allclose(mean_iou(table), [1 / 4])


def test_matching_beats_the_greedy_choice():
    """Greedy gives object 1 its best segment (IoU 5/9) and leaves object 2 with nothing."""
    table = np.array([[[0, 0], [5, 3], [4, 0]]])  # IoU [[5/12, 3/8], [4/9, 0]]
    np.testing.assert_allclose(mean_iou(table), [(3 / 8 + 4 / 9) / 2])


def test_absent_objects_and_empty_segments_are_left_out():
    table = np.array([[[4, 0, 0], [0, 0, 4], [0, 0, 0]]])
    np.testing.assert_allclose(mean_iou(table), [1])
    np.testing.assert_allclose(mean_best_overlap(table), [1])


def test_image_without_objects_is_nan():
    table = np.array([[[4, 5], [0, 0]], [[4, 0], [0, 5]]])
    np.testing.assert_array_equal(mean_iou(table), [np.nan, 1])
    np.testing.assert_array_equal(mean_best_overlap(table), [np.nan, 1])


def test_scores_equal_brute_force_on_masks():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, (6, 9, 11))
    predicted = np.where(rng.uniform(size=true.shape) < 0.4, rng.integers(0, 5, true.shape), true)
    table = contingency_table(true, predicted, num_true=4, num_predicted=5)
    for image, (t, p) in enumerate(zip(true, predicted, strict=True)):
        iou = np.array(
            [[(a & b).sum() / (a | b).sum() for b in (p == s for s in range(5))]
             for a in (t == o for o in range(1, 4))]
        )  # fmt: skip
        matched = max(iou[range(3), list(order)].mean() for order in permutations(range(5), 3))
        assert mean_iou(table)[image] == pytest.approx(matched, abs=1e-12)
        assert mean_best_overlap(table)[image] == pytest.approx(iou.max(1).mean(), abs=1e-12)


def test_table_without_batch_axis_is_an_error():
    with pytest.raises(ValueError, match=r"table: got shape \(3, 3\)"):
        mean_iou(TABLE[0])
