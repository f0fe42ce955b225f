"""The contingency table: how many pixels carry each pair of true and predicted label."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer

MAX_PIXELS = 2**24
"""Counts are summed in float32, which holds every integer up to here."""


@partial(jax.jit, static_argnames=("num_true", "num_predicted"))
def contingency_table(
    true: Integer[Array, "b h w"],
    predicted: Integer[Array, "b h w"],
    *,
    num_true: int,
    num_predicted: int,
) -> Int[Array, "b t p"]:
    """Counts, per image, the pixels of every (true label, predicted label) pair, exactly.

    A label outside its range cannot raise inside a compiled function and must not drop its pixels
    from a score either, so it spoils the whole table of its image: every count becomes -1. ARI of
    such a table is -inf, and the metrics on the host raise a ValueError.

    Args:
        true: true labels [b, h, w] in [0, num_true).
        predicted: predicted labels [b, h, w] in [0, num_predicted).
        num_true: number of true labels t, the background included.
        num_predicted: number of predicted labels p.

    Returns:
        int32 counts [b, t, p]; each image's counts add up to h * w.

    Raises:
        ValueError: if the shapes differ, or an image has more than 2^24 pixels.
    """
    if true.shape != predicted.shape or true.ndim != 3:
        raise ValueError(
            f"true and predicted: got shapes {true.shape} and {predicted.shape}; both must be the "
            "same [b, h, w]. Resize the prediction to the size of the true segmentation (nearest)."
        )
    batch, height, width = true.shape
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"true: got images of {height}x{width} pixels; at most {MAX_PIXELS} can be counted "
            "exactly. Evaluate at a lower resolution."
        )
    true = true.reshape(batch, -1).astype(jnp.int32)
    predicted = predicted.reshape(batch, -1).astype(jnp.int32)
    # Zeros and ones survive every matmul precision, and the sums of them are kept in float32.
    counts = jnp.einsum(
        "bnt,bnp->btp",
        jax.nn.one_hot(true, num_true, dtype=jnp.float32),
        jax.nn.one_hot(predicted, num_predicted, dtype=jnp.float32),
        preferred_element_type=jnp.float32,
    ).astype(jnp.int32)
    complete = counts.sum((1, 2), keepdims=True) == height * width
    return jnp.where(complete, counts, -1)


@partial(jax.jit, static_argnames=("num_labels", "background"))
def num_objects(
    true: Integer[Array, "b h w"], num_labels: int, background: tuple[int, ...] = (0,)
) -> Int[Array, "b"]:
    """Counts the objects that an image shows: labels that at least one pixel carries.

    Args:
        true: true labels [b, h, w] in [0, num_labels).
        num_labels: number of labels, the background included.
        background: labels that are background in this data set, whether they occur or not.
    """
    is_shown = jax.vmap(lambda labels: jnp.bincount(labels.ravel(), length=num_labels) > 0)(true)
    is_object = ~np.isin(np.arange(num_labels), background)
    return jnp.sum(is_shown & is_object[None], axis=1)
