"""Panels: named rows of images, one column per example, composed into one labelled image."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from objdisc_jax.visualize.images import enlarge, to_uint8
from objdisc_jax.visualize.palette import colorize, palette

PAGE, INK = (255, 255, 255), (34, 34, 40)
MARGIN, GAP, GROUP_GAP = 10, 3, 10
FONT_SIZE = 14
MARKER = 16


class _Row(NamedTuple):
    label: str
    tiles: UInt8[np.ndarray, "b h w 3"]
    color: tuple[int, int, int] | None
    starts_group: bool


def panel(
    rows: Mapping[str, ArrayLike], min_tile: int = 100
) -> UInt8[np.ndarray, "height width 3"]:
    """Composes named rows of images, examples side by side, names on the left.

    Images smaller than `min_tile` pixels are enlarged by a whole factor, so that a 35x35 image can
    be looked at; rows of different resolution are brought to the largest.

    Args:
        rows: name -> one of
            RGB images [b, h, w, 3], uint8 or float in [0, 1];
            label maps [b, h, w], integers, painted with the palette;
            RGB images of every slot [b, k, h, w, 3], which make k rows, each marked with the colour
            of label i + 1, the one slot i has in a segmentation.
        min_tile: smallest side of a tile in the panel, in pixels.

    Returns:
        uint8 RGB [height, width, 3].

    Raises:
        ValueError: if there is no row, or a row has a wrong shape, type or number of examples.
    """
    lines = [line for name, array in rows.items() for line in _lines(name, array)]
    counts = {line.label: len(line.tiles) for line in lines}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(
            f"rows: got these numbers of examples: {counts or 'no row'}; every row needs the same, "
            "at least one. Cut all arrays to the same batch."
        )
    height, width = max((line.tiles.shape[1:3] for line in lines), key=np.prod)
    factor = max(1, -(-min_tile // min(height, width)))
    tile_height, tile_width = factor * height, factor * width
    font = ImageFont.load_default(FONT_SIZE)
    column = MARGIN + round(max(font.getlength(line.label) for line in lines)) + MARKER
    tops = _tops(lines, tile_height)
    num_examples = len(lines[0].tiles)
    size = (column + num_examples * (tile_width + GAP) - GAP + MARGIN, tops[-1] + MARGIN)

    page = Image.new("RGB", size, PAGE)
    draw = ImageDraw.Draw(page)
    for line, top in zip(lines, tops, strict=False):
        middle = top + tile_height // 2
        draw.text((column - MARKER, middle), line.label, INK, font, anchor="rm")
        if line.color is not None:
            edge = column - GAP - 1
            draw.rectangle((edge - 4, top, edge, top + tile_height - 1), line.color)
        for example, tile in enumerate(enlarge(line.tiles, tile_height, tile_width)):
            page.paste(Image.fromarray(tile), (column + example * (tile_width + GAP), top))
    return np.array(page)


def _lines(name: str, array: ArrayLike) -> Iterator[_Row]:
    """Rows of RGB tiles that a named array stands for."""
    array = np.asarray(array)
    if array.ndim == 3:
        yield _Row(name, colorize(array, name), None, True)
    elif array.ndim == 4:
        yield _Row(name, to_uint8(array, name), None, True)
    elif array.ndim == 5:
        slots = to_uint8(array, name).swapaxes(0, 1)
        colors = palette(1 + len(slots))[1:]
        for slot, (tiles, color) in enumerate(zip(slots, colors, strict=True)):
            yield _Row(f"{name} {slot + 1}", tiles, tuple(color.tolist()), slot == 0)
    else:
        raise ValueError(
            f"{name}: got shape {array.shape}; allowed are images [b, h, w, 3], label maps "
            "[b, h, w] and slots [b, k, h, w, 3]. Add the batch axis if it is missing."
        )


def _tops(lines: list[_Row], tile_height: int) -> list[int]:
    """Upper edge of every row, and the lower edge of the last."""
    tops, top = [], MARGIN - GROUP_GAP
    for line in lines:
        top += GROUP_GAP if line.starts_group else GAP
        tops.append(top)
        top += tile_height
    return [*tops, top]
