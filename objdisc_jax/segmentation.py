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

from objdisc_jax.errors import UserError

MODES = ("none", "low_confidence", "largest_segment", "both", "contrast")
REGIONS = ("hull_area", "hull_diameter")
MAX_SLOTS = 255


def segment(
    masks: ArrayLike,
    *,
    contrast: ArrayLike | None = None,
    background: int | None = None,
    mode: str = "none",
    region: str = "hull_area",
    threshold: float = 0.5,
    min_contrast: float = 0.1,
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
            threshold competes, so the two steps may agree on it;
        `contrast`: a pixel with less than `min_contrast` becomes background, for models whose slots
            all paint the background, whoever claims it.

    Args:
        masks: soft masks [b, k, h, w] that sum to 1 over k (attention masks do as well).
        contrast: how firmly pixels [b, h, w] are painted in a colour of one slot alone, see
            `objdisc_jax.nn.contrast`, for the mode of that name.
        background: index of the mask that is the model's own background, if it has one. It becomes
            label 0 and what follows is not used.
        mode: how background is found.
        region: what "furthest" compares: "hull_area" or "hull_diameter".
        threshold: in [0, 1], for `low_confidence` and `both`.
        min_contrast: in [0, 1], for `contrast`.

    Returns:
        uint8 labels [b, h, w]: 0 is background, i + 1 is slot i.

    Raises:
        ValueError: on an unknown mode or region, or an argument out of range.
        UserError: the mode is `contrast`, and there is none.
    """
    masks = np.asarray(masks, np.float32)
    _check(masks, background, mode, region, threshold, min_contrast)
    labels = masks.argmax(1).astype(np.uint8) + np.uint8(1)
    if background is None:
        contrast = None if contrast is None else np.asarray(contrast)
        nobodys = unclaimed(
            masks, contrast, mode=mode, threshold=threshold, min_contrast=min_contrast
        )
        labels[nobodys] = 0
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
    min_contrast: float = 0.1,
) -> UInt8[np.ndarray, "H W"]:
    """Assigns every pixel of an image as `segment` does, after enlarging its masks smoothly.

    There is no contrast: models with masks to be enlarged paint no images.

    Args:
        masks: soft masks [k, h, w] of the image.
        size: rows H and columns W of the image. Masks are interpolated bilinearly, one at a time.
        background: as for `segment`, and so are the others.
        mode: how background is found.
        region: what "furthest" compares.
        threshold: in [0, 1].
        min_contrast: in [0, 1].
    """
    masks = np.asarray(masks, np.float32)
    _check(masks[None], background, mode, region, threshold, min_contrast)
    rows, columns = size
    best, labels = np.full(size, -np.inf, np.float32), np.zeros(size, np.uint8)
    for label, mask in enumerate(masks, 1):
        image = Image.fromarray(mask).resize((columns, rows), Image.Resampling.BILINEAR)
        enlarged = np.asarray(image)
        larger = enlarged > best
        np.copyto(best, enlarged, where=larger)
        labels[larger] = label
    if background is None:
        nobodys = unclaimed(
            best[None, None], None, mode=mode, threshold=threshold, min_contrast=min_contrast
        )
        labels[nobodys[0]] = 0
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


def unclaimed(
    masks: Any,
    contrast: Any | None,
    *,
    mode: str,
    threshold: float,
    min_contrast: float,
    **_: object,
) -> Any:
    """Pixels `[b, h, w]` of low confidence or contrast, whichever the mode asks for, or neither.

    NumPy arrays give a NumPy array, JAX's one of JAX.

    Args:
        masks: `[b, k, h, w]`; confidence is low where all are below the threshold.
        contrast: `[b, h, w]`; None where slots paint nothing.
        mode: how background is found.
        threshold: of confidence.
        min_contrast: the lowest that isn't low.

    Raises:
        UserError: the mode is `contrast`, and there is none.
    """
    if mode != "contrast":
        return (masks.max(1) < threshold) & (mode in ("low_confidence", "both"))
    if contrast is None:
        raise UserError(
            "background.mode: got 'contrast', which compares what slots paint, but the slots of "
            f"this model paint no image. Use {', '.join(MODES[:-2])} or {MODES[-2]}."
        )
    return contrast < min_contrast


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
    masks: np.ndarray,
    background: int | None,
    mode: str,
    region: str,
    threshold: float,
    min_contrast: float,
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
    if not 0 <= min_contrast <= 1:
        raise ValueError(
            f"min_contrast: got {min_contrast}; allowed is 0 to 1, from one colour to black on "
            "white. 0.1 is usual."
        )
