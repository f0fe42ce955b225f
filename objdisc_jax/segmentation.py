"""From soft masks to integer segmentations, with a choice of what counts as background.

Host code on NumPy arrays that knows nothing of models: visualization, evaluation and prediction
all turn masks into labels here. Labels mean the same in every mode: 0 is background, i + 1 is
slot i, so a slot keeps its label (and its colour) whichever mode is chosen.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import ArrayLike
from PIL import Image
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

MODES = ("none", "low_confidence", "largest_segment", "both")
REGIONS = ("hull_area", "hull_diameter")
MAX_SLOTS = 255


def segment(
    masks: ArrayLike,
    *,
    background: int | None = None,
    mode: str = "none",
    region: str = "hull_area",
    threshold: float = 0.5,
) -> UInt8[np.ndarray, "b h w"]:
    """Assigns every pixel to a slot or to the background.

    A pixel belongs to the slot with the largest mask (the first of equals), and then
        `none`: that is all; label 0 does not occur;
        `low_confidence`: a pixel where every mask is below `threshold` becomes background, for
            models that smear the background over all slots;
        `largest_segment`: the one slot that extends furthest becomes background, for models that
            give the background a slot of its own. Extent is that of the convex hull of the slot's
            pixels: its area, or its diameter (`region="hull_diameter"`);
        `both`: the threshold first, then the furthest region too; background found by the
            threshold competes, so the two steps may agree on it.

    Args:
        masks: soft masks [b, k, h, w] that sum to 1 over k (attention masks do as well).
        background: index of the mask that is the model's own background, if it has one. It becomes
            label 0 and `mode`, `region` and `threshold` are not used.
        mode: how background is found.
        region: what "furthest" compares: "hull_area" or "hull_diameter".
        threshold: in [0, 1], for `low_confidence` and `both`.

    Returns:
        uint8 labels [b, h, w]: 0 is background, i + 1 is slot i.

    Raises:
        ValueError: on an unknown mode or region, or an argument out of range.
    """
    masks = np.asarray(masks, np.float32)
    _check(masks, background, mode, region, threshold)
    labels = masks.argmax(1).astype(np.uint8) + np.uint8(1)
    if background is None:
        labels[low_confidence(masks, mode=mode, threshold=threshold)] = 0
    for image_labels in labels:
        _clear_background(image_labels, background, mode, region)
    return labels


def segment_enlarged(
    masks: ArrayLike,
    size: tuple[int, int],
    *,
    background: int | None = None,
    mode: str = "none",
    region: str = "hull_area",
    threshold: float = 0.5,
) -> UInt8[np.ndarray, "H W"]:
    """Assigns every pixel of an image as `segment` does, after enlarging its masks smoothly.

    Args:
        masks: soft masks [k, h, w] of the image.
        size: rows H and columns W of the image. Masks are interpolated bilinearly, one at a time.
        background: as for `segment`, and so are the others.
        mode: how background is found.
        region: what "furthest" compares.
        threshold: in [0, 1].
    """
    masks = np.asarray(masks, np.float32)
    _check(masks[None], background, mode, region, threshold)
    rows, columns = size
    best, labels = np.full(size, -np.inf, np.float32), np.zeros(size, np.uint8)
    for label, mask in enumerate(masks, 1):
        image = Image.fromarray(mask).resize((columns, rows), Image.Resampling.BILINEAR)
        enlarged = np.asarray(image)
        larger = enlarged > best
        np.copyto(best, enlarged, where=larger)
        labels[larger] = label
    if background is None:
        labels[low_confidence(best[None, None], mode=mode, threshold=threshold)[0]] = 0
    _clear_background(labels, background, mode, region)
    return labels


def _clear_background(
    labels: UInt8[np.ndarray, "h w"], background: int | None, mode: str, region: str
) -> None:
    """Sets a model's own background, or the region that extends furthest, to 0, where asked for."""
    if background is not None:
        labels[labels == background + 1] = 0
    elif mode in ("largest_segment", "both"):
        extent = _hull_area if region == "hull_area" else _hull_diameter
        labels[labels == _furthest(labels, extent)] = 0


def low_confidence(masks: Any, *, mode: str, threshold: float, **_: object) -> Any:
    """Pixels `[b, h, w]` where all masks `[b, k, h, w]` are below the threshold.

    None in modes that do not ask for them. NumPy arrays give a NumPy array, JAX's one of JAX.
    """
    return (masks.max(1) < threshold) & (mode in ("low_confidence", "both"))


def _furthest(
    labels: UInt8[np.ndarray, "h w"], extent: Callable[[Float[np.ndarray, "n 2"]], float]
) -> int:
    """The label whose region has the largest extent; the lowest of equals."""
    present = np.unique(labels)
    extents = [extent(_hull(labels == label)) for label in present]
    return int(present[np.argmax(extents)])


def _hull(region: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "n 2"]:
    """Corners (row, column) of the convex hull of a region's pixels, in order.

    Pixels are unit squares, not points: a single pixel or a straight line of them has a hull like
    any other region. Only the ends of a row can be corners of the hull.
    """
    rows = np.flatnonzero(region.any(1))
    left = region[rows].argmax(1)
    right = region.shape[1] - region[rows, ::-1].argmax(1)
    corners = [(rows + down, side) for down in (0, 1) for side in (left, right)]
    points = np.concatenate([np.stack(corner, -1) for corner in corners]).astype(np.float64)
    return points[ConvexHull(points).vertices]


def _hull_area(corners: Float[np.ndarray, "n 2"]) -> float:
    y, x = corners.T
    return 0.5 * abs(np.dot(y, np.roll(x, -1)) - np.dot(x, np.roll(y, -1)))


def _hull_diameter(corners: Float[np.ndarray, "n 2"]) -> float:
    return pdist(corners).max()


def _check(
    masks: np.ndarray, background: int | None, mode: str, region: str, threshold: float
) -> None:
    if masks.ndim != 4 or not 1 <= masks.shape[1] <= MAX_SLOTS:
        raise ValueError(
            f"masks: got shape {masks.shape}; expected [b, k, h, w] with 1 to {MAX_SLOTS} slots k "
            "(labels are uint8 and 0 is background). Add the missing axis or use fewer slots."
        )
    if background is not None and not 0 <= background < masks.shape[1]:
        raise ValueError(
            f"background: got {background}; allowed is the index of one of the {masks.shape[1]} "
            "masks, or None for a model without a background mask."
        )
    if mode not in MODES:
        raise ValueError(f"mode: got {mode!r}; allowed are {', '.join(MODES)}. Choose one of them.")
    if region not in REGIONS:
        raise ValueError(
            f"region: got {region!r}; allowed are {', '.join(REGIONS)}. Choose one of them."
        )
    if not 0 <= threshold <= 1:
        raise ValueError(
            f"threshold: got {threshold}; allowed is 0 to 1, the range of a mask. 0.5 is usual."
        )
