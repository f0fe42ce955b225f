"""Agreement of predicted and true segmentations, by how many pixels carry each pair of labels.

On the device: the contingency table, the number of objects, the adjusted Rand index (Hubert &
Arabie, 1985) and its foreground version. On the host, in float64: mIoU and mean best overlap. Both
score every true object that is present in an image against all predicted segments, whichever of
them the model may mean as background: a segment's pixels outside the object count against it, those
on the background included. They differ in whether two objects may share a segment.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Integer
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

MAX_PIXELS = 2**24
"""Counts are summed in float32, which holds every integer up to here."""

EXACT_PIXELS = 2**16
"""n (n - 1) ordered pairs of n pixels fit into 32 unsigned bits up to here."""


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


def mean_iou(table: ArrayLike, background: tuple[int, ...] = (0,)) -> Float[np.ndarray, "b"]:
    """Mean intersection over union under the best one-to-one matching (Hungarian).

    The matching maximises the summed IoU between the true objects and all predicted segments. The
    mean is over the true objects present in the image; one left without a segment, because there
    are fewer segments than objects, scores 0. Background takes no part in matching or mean unless
    `background=()` declares that there is none, which makes label 0 an object like the others.

    Args:
        table: contingency table [b, t, p] of `contingency_table`.
        background: true labels that are not scored.

    Returns:
        float64 [b] in [0, 1]; NaN for an image without a true object.

    Raises:
        ValueError: if the table has a wrong shape or was spoilt by a label out of range.
    """
    ious = _object_ious(table, background)
    sums = [iou[linear_sum_assignment(iou, maximize=True)].sum() for iou in ious]
    return np.array(
        [s / len(iou) if len(iou) else np.nan for s, iou in zip(sums, ious, strict=True)]
    )


def mean_best_overlap(
    table: ArrayLike, background: tuple[int, ...] = (0,)
) -> Float[np.ndarray, "b"]:
    """Mean over true objects of the largest IoU with any predicted segment (mBO), unmatched.

    Arguments, range, NaN and errors are those of `mean_iou`.
    """
    ious = _object_ious(table, background)
    return np.array([iou.max(axis=1).mean() if len(iou) else np.nan for iou in ious])


def localization(
    table: ArrayLike, background: tuple[int, ...] = (0,)
) -> tuple[Float[np.ndarray, "b"], Float[np.ndarray, "b"]]:
    """CorLoc and recovery: whether some object, and how many, have an IoU above 0.5 with a segment.

    Arguments, range, NaN and errors are those of `mean_iou`.

    Returns:
        1.0 where some true object is found, else 0.0; and the share of true objects found.
    """
    found = [iou.max(axis=1) > 0.5 for iou in _object_ious(table, background)]
    return (
        np.array([float(f.any()) if len(f) else np.nan for f in found]),
        np.array([f.mean() if len(f) else np.nan for f in found]),
    )


def _object_ious(table: ArrayLike, background: tuple[int, ...]) -> list[Float[np.ndarray, "t p"]]:
    """IoU of each true object present with every predicted segment, one matrix an image."""
    counts = np.asarray(table)
    if counts.ndim != 3:
        raise ValueError(
            f"table: got shape {counts.shape}; expected [b, t, p]. "
            "Make it with contingency_table from label maps [b, h, w]."
        )
    spoilt = np.flatnonzero((counts < 0).any((1, 2)))
    if spoilt.size:
        raise ValueError(
            f"table: images {spoilt[:8].tolist()} of the batch have labels outside the "
            f"{counts.shape[1]} true or {counts.shape[2]} predicted ones that were announced. "
            "Raise num_true or num_predicted, or correct the labels."
        )
    counts = counts.astype(np.float64)
    sizes = counts.sum(2, keepdims=True)
    union = sizes + counts.sum(1, keepdims=True) - counts
    iou = counts / np.maximum(union, 1)  # an absent object against an empty segment: 0 / 0
    foreground = ~np.isin(np.arange(counts.shape[1]), background)
    scored = (sizes[:, :, 0] > 0) & foreground
    return [image_iou[rows] for image_iou, rows in zip(iou, scored, strict=True)]
