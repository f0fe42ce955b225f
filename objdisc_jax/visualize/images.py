"""Preparing images for display: conversion to uint8, and enlargement of small ones."""

import numpy as np
from jaxtyping import UInt8
from numpy.typing import ArrayLike


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
