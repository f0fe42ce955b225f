"""Hashed noise: uniform, independent of how it is drawn, and a function of its seed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from objdisc_jax.nn import hash_prng


def test_bits_are_balanced_and_do_not_follow_seed_or_position():
    seeds = hash_prng.seeds(jax.random.key(0), 8)
    neighbours = jnp.stack([seeds[0] + jnp.uint32(1), seeds[0] ^ jnp.uint32(2)])
    words = np.asarray(hash_prng.random_bits(jnp.concatenate([seeds, neighbours]), (4096,)))
    bits = np.unpackbits(words.view(np.uint8)).reshape(10, -1).astype(np.float64)
    # Each mean and correlation of n fair bits has a standard deviation of about 1/(2√n), 1/√n.
    assert np.abs(bits.mean(1) - 0.5).max() < 5 * 0.5 / np.sqrt(bits.shape[1])
    off_diagonal = np.corrcoef(bits)[~np.eye(10, dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(bits.shape[1])
    for lag in (1, 2, 64):
        for row in words.astype(np.float64):
            assert abs(np.corrcoef(row[lag:], row[:-lag])[0, 1]) < 5 / np.sqrt(row.size)


def test_gumbel_draws_have_their_distribution():
    draws = hash_prng.gumbel(hash_prng.seeds(jax.random.key(1), 2), (100, 500))
    assert draws.shape == (2, 100, 500)
    assert np.isfinite(draws).all()
    assert stats.kstest(np.ravel(draws), stats.gumbel_r.cdf).pvalue > 0.01


def test_a_part_is_drawn_as_in_the_whole():
    seed = hash_prng.seeds(jax.random.key(2), 3)
    whole = hash_prng.gumbel(seed, (6, 5))
    np.testing.assert_array_equal(hash_prng.gumbel(seed, (2, 5), first=20), whole[:, 4:])
    np.testing.assert_array_equal(hash_prng.gumbel(seed[1:2], (6, 5)), whole[1:2])


def test_dropout_drops_its_share_and_keeps_the_mean():
    seed = hash_prng.seeds(jax.random.key(3))
    x = jnp.ones((200, 500))
    y = np.asarray(hash_prng.dropout(x, 0.1, seed))
    assert set(np.unique(y)) == {0.0, np.float32(1.0 / 0.9)}
    assert (y == 0).mean() == pytest.approx(0.1, abs=0.005)
    np.testing.assert_array_equal(hash_prng.dropout(x, 0.1, None), x)
    np.testing.assert_array_equal(hash_prng.dropout(x, 0.0, seed), x)
