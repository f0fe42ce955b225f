"""The adjusted Rand index (Hubert & Arabie, 1985) and its foreground version, on the device."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

EXACT_PIXELS = 2**16
"""n (n - 1) ordered pairs of n pixels fit into 32 unsigned bits up to here."""


@jax.jit
def adjusted_rand_index(table: Int[Array, "b t p"]) -> Float[Array, "b"]:
    """Agreement of two partitions of an image's pixels, corrected for chance.

    Written with the four kinds of pixel pairs (together in both partitions, split or merged by the
    prediction, apart in both) instead of the textbook's expected index:

        ARI = 2 (together * apart - split * merged)
              / ((together + split) (split + apart) + (together + merged) (merged + apart))

    No term of the denominator is negative and the denominator is at least twice each product
    above it, so nothing cancels and float32 is within 1e-6 of the exact value for any partition.
    Pairs are counted exactly, as integers, for images of up to 65,536 pixels: their scores don't
    depend on the order of summation, hence not on batch size or device layout. Larger images count
    pairs in float32 (relative error of a count about 1e-6, which adds about as much to the score).

    Args:
        table: contingency table [b, t, p] of `contingency_table`.

    Returns:
        float32 [b], at most 1, about 0 for a random prediction. 1 where both partitions agree
        entirely: a single cluster on both sides, a single pixel; NaN where the table is empty;
        -inf where it is spoilt by a label out of range.
    """
    num_pixels = table.sum((1, 2))
    exact = [count.astype(jnp.float32) for count in _ordered_pairs(table, jnp.uint32)]
    rounded = _ordered_pairs(table, jnp.float32)
    together, split, merged, apart = (
        jnp.where(num_pixels <= EXACT_PIXELS, few, many)
        for few, many in zip(exact, rounded, strict=True)
    )
    agreement = 2 * (together * apart - split * merged)
    scale = (together + split) * (split + apart) + (together + merged) * (merged + apart)
    score = jnp.where(scale > 0, agreement / jnp.where(scale > 0, scale, 1), 1)
    score = jnp.where(num_pixels == 0, jnp.nan, score)
    return jnp.where((table < 0).any((1, 2)), -jnp.inf, score)


@partial(jax.jit, static_argnames="background")
def fg_adjusted_rand_index(
    table: Int[Array, "b t p"], background: tuple[int, ...] = (0,)
) -> Float[Array, "b"]:
    """FG-ARI: the adjusted Rand index over the pixels of true objects.

    Args:
        table: contingency table [b, t, p] of `contingency_table`.
        background: true labels that are background in this data set, whether they occur or not.

    Returns:
        float32 [b] as `adjusted_rand_index`; NaN for an image without a foreground pixel.
    """
    foreground = ~np.isin(np.arange(table.shape[1]), background)
    return adjusted_rand_index(table[:, foreground])


def _ordered_pairs(table: Int[Array, "b t p"], dtype: DTypeLike) -> tuple[Array, ...]:
    """Counts ordered pairs of pixels that are together, split, merged and apart, each [b].

    All four are sums of products of non-negative counts; unsigned intermediates may wrap round,
    the products don't.
    """
    both = table.astype(dtype)
    true = both.sum(2, keepdims=True)
    predicted = both.sum(1, keepdims=True)
    total = true.sum(1, keepdims=True)
    return (
        (both * (both - 1)).sum((1, 2)),
        (both * (true - both)).sum((1, 2)),
        (both * (predicted - both)).sum((1, 2)),
        (both * (total - true - predicted + both)).sum((1, 2)),
    )
