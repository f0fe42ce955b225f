"""RGB images: conversion to uint8, enlargement, segmentations drawn over them, PNG files.

Files are written whole or not at all: a reader or a killed run never leaves half an image.
"""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from numpy.typing import ArrayLike

from objdisc_jax.files import write_atomically
from objdisc_jax.visualize import png
from objdisc_jax.visualize.palette import check_labels, palette

PIXELS_PER_OUTLINE = 200
"""Outlines are one pixel wide, and one more for each so many pixels of the image's shorter side."""
_BLOCK = 1 << 16
"""Pixels that are blended at a time, so that what is needed for it stays in the cache."""


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
    image: ArrayLike,
    segmentation: ArrayLike,
    alpha: float = 0.45,
    colors: UInt8[np.ndarray, "n 3"] | None = None,
) -> UInt8[np.ndarray, "*b h w 3"]:
    """Tints every segment in its colour and outlines it; background stays as it is.

    Args:
        image: RGB [*b, h, w, 3], uint8 or float in [0, 1]; any leading axes, or none.
        segmentation: labels [*b, h, w], 0 for background.
        alpha: strength of the tint in [0, 1]. The outline, drawn inside the segment, is opaque.
        colors: of labels, RGB, the background's first; those of objects repeat. By default the
            `palette`.

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
    lowest, highest = (_windowed(f, labels, reach) for f in (np.minimum, np.maximum))
    blended = np.empty(pixels.shape, np.uint8)
    _blend(
        pixels.reshape(-1, 3),
        labels.reshape(-1),
        (lowest != highest).reshape(-1),
        alpha,
        palette() if colors is None else colors,
        out=blended.reshape(-1, 3),
    )
    return blended


def _windowed(extremum: np.ufunc, labels: np.ndarray, reach: int) -> np.ndarray:
    """The minimum or maximum of each pixel's window, which reaches so far to all four sides."""
    margins = [(0, 0)] * (labels.ndim - 2) + [(reach, reach)] * 2
    found = np.pad(labels, margins, mode="edge")
    # Pairs of windows make windows of up to twice the size.
    size = 1
    while size <= 2 * reach:
        step = min(size, 2 * reach + 1 - size)
        found = extremum(found[..., step:, :], found[..., :-step, :])
        found = extremum(found[..., step:], found[..., :-step])
        size += step
    return found


def _blend(
    pixels: UInt8[np.ndarray, "n 3"],
    labels: Integer[np.ndarray, " n"],
    outline: Bool[np.ndarray, " n"],
    alpha: float,
    colors: UInt8[np.ndarray, "c 3"],
    out: UInt8[np.ndarray, "n 3"],
) -> None:
    """Tints and outlines pixels by a table, which has the blend of every value with every color."""
    values = np.arange(256)
    opacity = np.array([alpha, 1.0])[:, None, None]
    table = colors[:, None, :, None].astype(np.float64)
    table = np.round(values + opacity * (table - values))  # [color, is outline, channel, value]
    table[0] = values
    table = np.ascontiguousarray(table.astype(np.uint8).transpose(2, 0, 1, 3)).reshape(3, -1)
    # Where in the table a label begins. Colors repeat, but not that of the background.
    begins = np.arange(int(labels.max(initial=0)) + 1)
    begins[1:] = (begins[1:] - 1) % (len(colors) - 1) + 1
    begins *= 2 * len(values)
    for start in range(0, len(labels), _BLOCK):
        block = slice(start, start + _BLOCK)
        row = begins[labels[block]] + len(values) * outline[block]
        for channel in range(3):
            out[block, channel] = table[channel][row + pixels[block, channel]]


def encode_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Returns an RGB image as a PNG file's content.

    Raises:
        ValueError: if the image is not uint8 [h, w, 3].
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"image: got {image.dtype} {image.shape}; an image is uint8 [h, w, 3]. "
            "Compose several with objdisc_jax.visualize.panel, paint labels with colorize."
        )
    return png.encode(image)


def save_png(path: str | os.PathLike[str], image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes or replaces a file with what `encode_png` returns; missing folders are made."""
    write_atomically(Path(path), encode_png(image))


def encode_labels(labels: UInt8[np.ndarray, "h w"]) -> bytes:
    """Returns a label map as an indexed PNG: its values are the labels, viewers show the palette.

    `np.asarray(PIL.Image.open(file))` gives the labels back.

    Raises:
        ValueError: if the labels are not uint8 [h, w].
    """
    if labels.dtype != np.uint8 or labels.ndim != 2:
        raise ValueError(
            f"labels: got {labels.dtype} {labels.shape}; a label map is uint8 [h, w]. "
            "Write one file per image, and convert labels of up to 255 objects to uint8."
        )
    return png.encode(labels, palette(256))


def save_labels(path: str | os.PathLike[str], labels: UInt8[np.ndarray, "h w"]) -> None:
    """Writes or replaces a file with what `encode_labels` returns; missing folders are made."""
    write_atomically(Path(path), encode_labels(labels))
