"""PNG files, written whole or not at all: a reader or a killed run never leaves half an image."""

import io
import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from objdisc_jax.files import write_atomically
from objdisc_jax.visualize.palette import palette


def save_png(path: str | os.PathLike[str], image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes an RGB image; folders that are missing are made.

    Args:
        path: file to write or replace.
        image: uint8 RGB [h, w, 3].

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

    Args:
        path: file to write or replace.
        labels: uint8 labels [h, w].

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
