"""RGB images: conversion to uint8, enlargement, segmentations drawn over them, PNG files.

Files are written whole or not at all: a reader or a killed run never leaves half an image.
"""

import io
import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy.typing import ArrayLike
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from objdisc_jax.files import write_atomically
from objdisc_jax.visualize.palette import check_labels, colorize, palette

PIXELS_PER_OUTLINE = 200
"""Outlines are one pixel wide, and one more for each so many pixels of the image's shorter side."""


def to_uint8(image: ArrayLike, name: str) -> UInt8[np.ndarray, "*b h w 3"]:
    """RGB images as uint8.

    Args:
        image: [*b, h, w, 3], uint8 as it is, or floating point in [0, 1] (clipped).
        name: what the error calls it.

    Raises:
        ValueError: if it is no RGB image, or of another type.
    """
    image = np.asarray(image)
    if image.ndim < 3 or image.shape[-1] != 3:
        raise ValueError(
            f"{name}: got shape {image.shape}; expected RGB images [..., h, w, 3]. "
            "Move the channels last, and repeat a grey channel three times."
        )
    if image.dtype == np.uint8:
        return image
    if np.issubdtype(image.dtype, np.integer) or image.dtype == bool:
        raise ValueError(
            f"{name}: got {image.dtype}; RGB images are uint8 in 0..255 or floats in [0, 1]. "
            "Convert them first."
        )
    return np.round(255 * np.clip(image.astype(np.float32), 0, 1)).astype(np.uint8)


def enlarge(
    image: UInt8[np.ndarray, "*b h w 3"], height: int, width: int
) -> UInt8[np.ndarray, "*b height width 3"]:
    """Resizes by nearest neighbour: pixels become blocks, nothing is invented between them."""
    rows = np.arange(height) * image.shape[-3] // height
    columns = np.arange(width) * image.shape[-2] // width
    return image[..., rows[:, None], columns, :]


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
    reach = 1 + min(labels.shape[-2:]) // PIXELS_PER_OUTLINE
    window = (1,) * (labels.ndim - 2) + (2 * reach + 1,) * 2
    outline = minimum_filter(labels, window) != maximum_filter(labels, window)
    opacity = np.where(outline, 1.0, alpha) * (labels > 0)
    blended = pixels + opacity[..., None] * (colorize(labels).astype(np.float64) - pixels)
    return np.round(blended).astype(np.uint8)


def save_png(path: str | os.PathLike[str], image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes or replaces a file with an RGB image; folders that are missing are made.

    Raises:
        ValueError: if the image is not uint8 [h, w, 3].
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"image: got {image.dtype} {image.shape}; an image is uint8 [h, w, 3]. "
            "Compose several with objdisc_jax.visualize.panel, paint labels with colorize."
        )
    _write(Path(path), Image.fromarray(image))


def save_labels(path: str | os.PathLike[str], labels: UInt8[np.ndarray, "h w"]) -> None:
    """Writes a label map as an indexed PNG: its values are the labels, viewers show the palette.

    `np.asarray(PIL.Image.open(path))` gives the labels back.

    Raises:
        ValueError: if the labels are not uint8 [h, w].
    """
    if labels.dtype != np.uint8 or labels.ndim != 2:
        raise ValueError(
            f"labels: got {labels.dtype} {labels.shape}; a label map is uint8 [h, w]. "
            "Write one file per image, and convert labels of up to 255 objects to uint8."
        )
    image = Image.fromarray(labels)
    image.putpalette(palette(256).tobytes())
    _write(Path(path), image)


def _write(path: Path, image: Image.Image) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
