"""Pictures of what a model found: overlays, tiles, exports, attention, boxes. NumPy in and out."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from objdisc_jax import visualize
from objdisc_jax.api import Segmentation
from objdisc_jax.data.errors import BadImageError
from objdisc_jax.data.images import read_rgb, stored_size
from objdisc_jax.errors import UserError
from objdisc_jax.visualize.palette import palette

MAX_SIDE = 1024
"""Larger images are scaled down to it: what is shown and exported."""
MAX_TILES = 24
"""Slots that are shown of an image, those with the most pixels."""
_TILE = 240
"""Longer side of a slot's small picture."""


def read_image(file: Path, max_pixels: int) -> Image.Image:
    """Reads an image file that a visitor sent, scaled down to `MAX_SIDE`.

    Raises:
        UserError: it is no image, damaged, or has too many pixels; says nothing of where it lies.
    """
    try:
        rows, columns = stored_size(file)
        if rows * columns > max_pixels:
            raise UserError(
                f"{file.name} has {columns} x {rows} pixels, but at most {max_pixels:,} are taken "
                "here. Make it smaller."
            )
        image = read_rgb(file)
    except BadImageError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):  # Pillow counts no further
            raise UserError(
                f"{file.name} has far more than the {max_pixels:,} pixels that are taken here. "
                "Make it smaller."
            ) from error
        raise UserError(str(error).replace(str(file), file.name)) from error
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return image


def tiled_slots(result: Segmentation) -> list[int]:
    """The slots that have pixels, at most `MAX_TILES`, in their order."""
    sizes = np.bincount(result.segmentation.ravel(), minlength=256)[1:]
    largest = np.argsort(-sizes, kind="stable")[:MAX_TILES]
    return sorted(int(slot) for slot in largest if sizes[slot])


def color_code(slot: int) -> str:
    """A slot's color unless it has been given another: "#rrggbb"."""
    return "#" + bytes(palette(slot + 2)[slot + 1].tolist()).hex()


def parse_color(text: str) -> tuple[int, int, int]:
    """Red, green and blue of what a color picker says: "#rrggbb", "#rgb" or "rgb(r, g, b)".

    Raises:
        UserError: it is none of these.
    """
    code = text.strip().removeprefix("#")
    if re.fullmatch(r"[0-9a-fA-F]{3}", code):
        code = "".join(2 * digit for digit in code)
    if re.fullmatch(r"[0-9a-fA-F]{6}", code[:6]) and len(code) in (6, 8):
        red, green, blue = bytes.fromhex(code[:6])
        return red, green, blue
    numbers = re.findall(r"\d+(?:\.\d+)?", text)
    if text.strip().startswith("rgb") and len(numbers) >= 3:
        red, green, blue = (min(255, round(float(number))) for number in numbers[:3])
        return red, green, blue
    raise UserError(f"A color is #rrggbb or rgb(r, g, b), but {text!r} came. Choose one.")


def painted(
    result: Segmentation, alpha: float, shown: Sequence[int], colors: Mapping[int, str]
) -> UInt8[np.ndarray, "H W 3"]:
    """The image with the segments of some slots tinted and outlined.

    Args:
        result: of the image.
        alpha: strength of the tint.
        shown: the slots.
        colors: of slots that have another than the palette's, as `parse_color` reads them.
    """
    table = palette(256).copy()
    for slot, color in colors.items():
        table[slot + 1] = parse_color(color)
    kept = np.zeros(256, np.uint8)
    for slot in shown:
        kept[slot + 1] = slot + 1
    return visualize.overlay(result.image, kept[result.segmentation], alpha, table)


def tile(result: Segmentation, slot: int) -> Image.Image:
    """A small picture of a slot's pixels, all others transparent."""
    cut = result.cutout(slot)
    cut.thumbnail((_TILE, _TILE), Image.Resampling.BOX)
    return cut


def export(result: Segmentation, slot: int, folder: Path, stem: str) -> Path:
    """Writes a slot's pixels as a PNG of the image's size, transparent elsewhere.

    Args:
        result: of the image.
        slot: which.
        folder: where it is written.
        stem: begins the file's name.
    """
    name = re.sub(r"[^\w-]+", "_", stem)[:60] or "image"
    file = folder / f"{name}_slot_{slot + 1}.png"
    result.cutout(slot).save(file, compress_level=1)
    return file


def outlined(
    image: UInt8[np.ndarray, "H W 3"], boxes: Iterable[Iterable[float]]
) -> UInt8[np.ndarray, "H W 3"]:
    """An image with boxes, in its pixels: top, bottom, left, right."""
    drawn = Image.fromarray(image)
    draw = ImageDraw.Draw(drawn)
    width = 1 + min(drawn.size) // visualize.PIXELS_PER_OUTLINE
    for top, bottom, left, right in boxes:
        if bottom >= top and right >= left:
            draw.rectangle((left, top, right, bottom), outline=(0, 220, 0), width=width)
    return np.asarray(drawn)


def attention_strip(attn: Float[np.ndarray, "k h w"]) -> UInt8[np.ndarray, "H W 3"]:
    """An iteration's attention: each grid cell in the mean color of the slots that share it."""
    colors = palette(len(attn) + 1)[1:].astype(np.float32)
    mixed = np.einsum("khw,kc->hwc", attn.astype(np.float32), colors)
    return enlarged(np.clip(mixed / 255, 0, 1))


def enlarged(image: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """A model's image, in [0, 1], with pixels large enough to be seen: whole blocks."""
    factor = max(1, 256 // max(image.shape[:2]))
    pixels = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def exchanged(
    slots: tuple[Float[np.ndarray, "k d"], Float[np.ndarray, "l d"]],
    moved: tuple[Sequence[int], Sequence[int]],
) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "n d"]]:
    """The slots of two images after some have moved to the other.

    As many in exchange for as many take each other's places, the first that of the first.
    """
    kept = [np.delete(s, list(gone), axis=0) for s, gone in zip(slots, moved, strict=True)]
    gone = [s[list(m)] for s, m in zip(slots, moved, strict=True)]
    if len(moved[0]) == len(moved[1]):
        first, second = slots[0].copy(), slots[1].copy()
        first[list(moved[0])], second[list(moved[1])] = gone[1], gone[0]
        return first, second
    return np.concatenate([kept[0], gone[1]]), np.concatenate([kept[1], gone[0]])
