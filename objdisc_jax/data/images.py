"""Reads image files: colours, and palette images whose indices are labels."""

import contextlib
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from objdisc_jax.data.errors import BadImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Of files that are taken for images."""

NAMES = f"(?i:.+({'|'.join(map(re.escape, SUFFIXES))}))"
"""A regular expression for the names of such files."""


def read_rgb(file: Path) -> Image.Image:
    """Reads an image of any kind as RGB, upright; alpha is dropped. Others: `BadImageError`."""
    with _explained(file), Image.open(file) as opened:
        upright = ImageOps.exif_transpose(opened)
        if upright.mode.startswith("I"):  # 16 bits per pixel, which convert("RGB") would clip
            upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
        return upright.convert("RGB")


def read_labels(file: Path) -> Image.Image:
    """Reads a segmentation kept as a palette image, whose palette indices are the labels.

    Anything else is a `BadImageError`.
    """
    with _explained(file), Image.open(file) as opened:
        opened.load()
        if opened.mode != "P":
            raise BadImageError(
                f"The mask {file} is an image of mode {opened.mode}, but must have mode P: its "
                "labels are the indices of a palette. Some program has replaced them by the "
                "palette's colours. Restore it."
            )
        return opened


def centred_box(size: tuple[int, int], aspect: float) -> tuple[int, int, int, int]:
    """Returns the largest box in the middle of an image: left, top, right, bottom.

    The size of the image is columns and rows, the aspect columns per row of the box.
    """
    columns, rows = size
    width = min(columns, max(1, round(rows * aspect)))
    height = min(rows, max(1, round(columns / aspect)))
    left, top = (columns - width) // 2, (rows - height) // 2
    return left, top, left + width, top + height


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Turns what Pillow says of a file into a `BadImageError`."""
    try:
        yield
    except BadImageError:
        raise
    except FileNotFoundError:
        raise BadImageError(f"There is no file {file}. Restore it.") from None
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise BadImageError(
            f"The image {file} cannot be read ({error}): it may be truncated, damaged, or no "
            "image. Restore it."
        ) from error
