import numpy as np
import pytest

from objdisc_jax.metrics import mse, mse_sum
from tests import typechecker


def test_both_conventions_equal_numpy():
    rng = np.random.default_rng(0)
    recon, image = rng.uniform(size=(2, 4, 35, 30, 3)).astype(np.float32)
    squared = (recon.astype(np.float64) - image) ** 2
    np.testing.assert_allclose(mse(recon, image), squared.mean((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(mse_sum(recon, image), squared.sum((1, 2, 3)), rtol=1e-6)


def test_reconstruction_is_not_clipped():
    np.testing.assert_allclose(mse(np.full((1, 2, 2, 3), 3.0), np.ones((1, 2, 2, 3))), [4])


@pytest.mark.parametrize("metric", [mse, mse_sum])
@typechecker.off()
def test_different_shapes_are_an_error(metric):
    with pytest.raises(ValueError, match=r"recon and image: got shapes"):
        metric(np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4, 1)))
