"""A segmentation drawn over its image."""

import numpy as np
from jaxtyping import UInt8
from numpy.typing import ArrayLike
from scipy.ndimage import maximum_filter, minimum_filter

from objdisc_jax.visualize.images import to_uint8
from objdisc_jax.visualize.palette import check_labels, colorize

PIXELS_PER_OUTLINE = 200
"""Outlines are one pixel wide, and one more for each so many pixels of the image's shorter side."""


def overlay(
    image: ArrayLike, segmentation: ArrayLike, alpha: float = 0.45
) -> UInt8[np.ndarray, "*b h w 3"]:
    """Tints every segment in its colour and outlines it; background stays as it is.

    Args:
        image: RGB [*b, h, w, 3], uint8 or float in [0, 1]; any leading axes, or none.
        segmentation: labels [*b, h, w], 0 for background.
        alpha: strength of the tint in [0, 1]. The outline, drawn inside the segment, is opaque.

    Returns:
        uint8 RGB of the image's size.

    Raises:
        ValueError: if the sizes differ, or alpha or a label is out of range.
    """
    pixels = to_uint8(image, "image")
    labels = check_labels(segmentation, "segmentation")
    if labels.shape != pixels.shape[:-1]:
        raise ValueError(
            f"segmentation: got shape {labels.shape} for an image of {pixels.shape}; both need the "
            "same height and width. Resize the segmentation (nearest) to the image."
        )
    if not 0 <= alpha <= 1:
        raise ValueError(
            f"alpha: got {alpha}; allowed is 0 (outline only) to 1 (opaque). Around 0.5 is usual."
        )
    colors = colorize(labels)
    opacity = np.where(_outline(labels), 1.0, alpha) * (labels > 0)
    blended = pixels + opacity[..., None] * (colors.astype(np.float64) - pixels)
    return np.round(blended).astype(np.uint8)


def _outline(labels: np.ndarray) -> np.ndarray:
    """Pixels near which another label begins."""
    reach = 1 + min(labels.shape[-2:]) // PIXELS_PER_OUTLINE
    window = (1,) * (labels.ndim - 2) + (2 * reach + 1,) * 2
    return minimum_filter(labels, window) != maximum_filter(labels, window)
