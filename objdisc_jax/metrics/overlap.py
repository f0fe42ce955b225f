"""Overlap of predicted and true masks, on the host in float64: mIoU and mean best overlap.

Both score every true object that is present in an image against all predicted segments, whichever
of them the model may mean as background: a segment's pixels outside the object count against it,
those on the background included. They differ in whether two objects may share a segment.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment


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
    return np.array([_matched_iou(iou) for iou in _object_ious(table, background)])


def mean_best_overlap(
    table: ArrayLike, background: tuple[int, ...] = (0,)
) -> Float[np.ndarray, "b"]:
    """Mean over true objects of the largest IoU with any predicted segment (mBO), unmatched.

    Args:
        table: contingency table [b, t, p] of `contingency_table`.
        background: true labels that are not scored; `()` scores label 0 too.

    Returns:
        float64 [b] in [0, 1]; NaN for an image without a true object.

    Raises:
        ValueError: if the table has a wrong shape or was spoilt by a label out of range.
    """
    ious = _object_ious(table, background)
    return np.array([iou.max(axis=1).mean() if len(iou) else np.nan for iou in ious])


def _matched_iou(iou: Float[np.ndarray, "t p"]) -> float:
    if len(iou) == 0:
        return np.nan
    return iou[linear_sum_assignment(iou, maximize=True)].sum() / len(iou)


def _object_ious(table: ArrayLike, background: tuple[int, ...]) -> list[Float[np.ndarray, "t p"]]:
    """IoU of each true object present with every predicted segment, one matrix an image."""
    counts = _checked(table).astype(np.float64)
    sizes = counts.sum(2, keepdims=True)
    union = sizes + counts.sum(1, keepdims=True) - counts
    iou = counts / np.maximum(union, 1)  # an absent object against an empty segment: 0 / 0
    foreground = ~np.isin(np.arange(counts.shape[1]), background)
    scored = (sizes[:, :, 0] > 0) & foreground
    return [image_iou[rows] for image_iou, rows in zip(iou, scored, strict=True)]


def _checked(table: ArrayLike) -> Int[np.ndarray, "b t p"]:
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
    return counts
