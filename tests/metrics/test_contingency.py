import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objdisc_jax.metrics import contingency_table, mean_iou, num_objects
from tests import typechecker


def random_labels(num, shape=(3, 20, 24), seed=0):
    return np.random.default_rng(seed).integers(0, num, shape, np.uint8)


def test_table_counts_as_numpy_does():
    true, predicted = random_labels(5), random_labels(7, seed=1)
    table = contingency_table(true, predicted, num_true=5, num_predicted=7)
    expected = np.zeros((3, 5, 7), np.int32)
    np.add.at(expected, (np.arange(3)[:, None, None], true, predicted), 1)
    assert table.dtype == jnp.int32
    np.testing.assert_array_equal(table, expected)


def test_table_is_exact_for_large_images():
    true = np.zeros((1, 2048, 2049), np.uint8)
    true[0, 0, 0] = 1
    table = contingency_table(true, np.zeros_like(true), num_true=2, num_predicted=1)
    np.testing.assert_array_equal(table, [[[2048 * 2049 - 1], [1]]])


def test_table_is_the_same_with_and_without_jit():
    arguments = jnp.asarray(random_labels(4)), jnp.asarray(random_labels(4, seed=1))
    jitted = contingency_table(*arguments, num_true=4, num_predicted=4)
    with jax.disable_jit():
        plain = contingency_table(*arguments, num_true=4, num_predicted=4)
    np.testing.assert_array_equal(jitted, plain)


@pytest.mark.parametrize("wrong", [-1, 5, 255])
@pytest.mark.parametrize("side", ["true", "predicted"])
def test_label_out_of_range_spoils_its_image_only(wrong, side):
    labels = {name: random_labels(5).astype(np.int32) for name in ("true", "predicted")}
    labels[side][1, 3, 4] = wrong
    table = contingency_table(**labels, num_true=5, num_predicted=5)
    np.testing.assert_array_equal(table[1], -1)
    np.testing.assert_array_equal(table[::2].sum((1, 2)), 20 * 24)
    with pytest.raises(ValueError, match=r"images \[1\].*outside the 5 true or 5 predicted"):
        mean_iou(table)


@typechecker.off()
def test_different_shapes_are_an_error():
    with pytest.raises(ValueError, match=r"true and predicted: got shapes.*Resize"):
        contingency_table(
            random_labels(2), random_labels(2, (3, 20, 20)), num_true=2, num_predicted=2
        )


def test_too_many_pixels_are_an_error():
    labels = jax.ShapeDtypeStruct((1, 4097, 4096), jnp.uint8)
    with pytest.raises(ValueError, match="4097x4096"):
        jax.eval_shape(
            lambda true, predicted: contingency_table(true, predicted, num_true=2, num_predicted=2),
            labels,
            labels,
        )


def test_number_of_objects_counts_labels_that_are_shown_and_no_background():
    true = jnp.asarray([[[0, 1, 1], [5, 2, 0]], [[0, 0, 0], [2, 2, 2]], [[0, 0, 0], [0, 0, 0]]])
    np.testing.assert_array_equal(num_objects(true, 6), [3, 1, 0])
    np.testing.assert_array_equal(num_objects(true, 6, (0, 2)), [2, 0, 0])
