"""Reads image files: colours, and palette images whose indices are labels."""

import contextlib
import dataclasses
import functools
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, Integer, UInt8
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile

from objdisc_jax.data import metadata
from objdisc_jax.data.errors import BadImageError

SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".avif", ".avifs"),
    *(".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".tga", ".psd", ".pcx", ".dds", ".sgi"),
    ".qoi",
)
"""Of files that are taken for images, in upper or lower case."""

NAMES = f"(?is:.+({'|'.join(map(re.escape, SUFFIXES))}))"
"""A regular expression for the names of such files."""

_MOST_IN_MEMORY = 1 << 28
"""Bytes of a file; Pillow itself reads of a larger one, a stack of images say, what it needs."""
# Below its limit of pixels Pillow warns with a line of its own code.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How images are read."""

    matte: tuple[int, int, int] = (0, 0, 0)  # red, green and blue under what is transparent
    # Images of more pixels are bad images; None: of more than 2 * PIL.Image.MAX_IMAGE_PIXELS. This
    # is raised to what is asked for, for all of the process.
    max_pixels: int | None = None


DEFAULT_OPTIONS = ReadOptions()
"""On black, up to Pillow's limit."""


def read_rgb(file: Path, options: ReadOptions = DEFAULT_OPTIONS) -> Image.Image:
    """Reads an image of any kind as RGB, upright, and composited on `matte` where transparent.

    Samples of 9 to 16 bits lose their lower ones. Whole numbers of 32 bits are taken as they are if
    none is above 255, as 16 bits if none is above 65535; floats are in [0, 1] or [0, 255].

    Raises:
        BadImageError: it is no such image, damaged, or too large.
    """
    with _opened(file, options.max_pixels) as (opened, orientation):
        samples = _samples(opened)
        opened.load()
        return _upright_rgb(opened, samples, orientation, options, file)


def to_rgb(image: Image.Image, options: ReadOptions = DEFAULT_OPTIONS) -> Image.Image:
    """Makes of an image in memory what `read_rgb` makes of a file.

    Raises:
        BadImageError: it cannot be decoded, or its samples have no known range.
    """
    name = Path(getattr(image, "filename", "") or "given")
    try:
        samples = _samples(image)
        image = image.copy()  # it is loaded, and a TIFF turned, before it tells its orientation
        return _upright_rgb(image, samples, _orientation(image), options, name)
    except BadImageError:
        raise
    except Exception as error:  # decoders raise anything
        raise BadImageError(f"The image {name} cannot be read ({error!r}).") from error


def read_labels(file: Path) -> Image.Image:
    """Reads a segmentation kept as a palette image, whose palette indices are the labels.

    Anything else is a `BadImageError`.
    """
    with _opened(file) as (opened, _):
        opened.load()
        if opened.mode != "P":
            raise BadImageError(
                f"The mask {file} is an image of mode {opened.mode}, but must have mode P: its "
                "labels are the indices of a palette. Some program has replaced them by the "
                "palette's colours. Restore it."
            )
        return opened


def stored_size(file: Path) -> tuple[int, int]:
    """Returns rows and columns of an image as it is stored, upright or not.

    Raises:
        BadImageError: it is no image, or its beginning is damaged.
    """
    with _opened(file) as (opened, _):
        return opened.height, opened.width


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
def _opened(file: Path, max_pixels: int | None = None) -> Iterator[tuple[Image.Image, int]]:
    """Opens an image; yields it and its orientation.

    Whatever is raised in the block, by a decoder say, becomes a `BadImageError`.
    """
    content = _beginning(file)
    if max_pixels and Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max(max_pixels, Image.MAX_IMAGE_PIXELS)
    try:
        source, orientation = file, None
        if len(content) <= _MOST_IN_MEMORY:
            content, orientation = metadata.split(content)
            source = io.BytesIO(content)
        with Image.open(source) as opened:
            pixels = opened.width * opened.height
            if max_pixels and pixels > max_pixels:
                raise BadImageError(_too_large(file, f"{pixels} pixels, {max_pixels} allowed"))
            yield opened, _orientation(opened) if orientation is None else orientation
    except BadImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(_too_large(file, str(error).split(", could be")[0])) from error
    except MemoryError as error:
        raise BadImageError(f"The image {file} needs more memory than there is.") from error
    except Exception as error:  # decoders raise anything
        if isinstance(error, UnidentifiedImageError) and metadata.is_tiff(content):
            raise BadImageError(
                f"The image {file} cannot be read: its samples are of a kind that Pillow does not "
                "know, floats of 64 bits for example. Save it with 8 or 16 bits, or as PNG."
            ) from error
        reason = str(error) if isinstance(error, OSError | ValueError | SyntaxError) else ""
        if isinstance(error, UnidentifiedImageError):
            reason = "of no kind that Pillow knows"
        raise BadImageError(
            f"The image {file} cannot be read ({reason or repr(error)}): it may be truncated, "
            "damaged, or no image. Restore it, or convert it, to PNG say."
        ) from error


def _beginning(file: Path) -> bytes:
    """All of a file, or one byte more than are held in memory."""
    try:
        with file.open("rb") as stream:
            return stream.read(_MOST_IN_MEMORY + 1)
    except FileNotFoundError:
        raise BadImageError(f"There is no file {file}. Restore it.") from None
    except OSError as error:
        raise BadImageError(
            f"The image {file} cannot be read: {error.strerror or error}. See to its permissions "
            "and to the disk."
        ) from error


def _too_large(file: Path, how: str) -> str:
    return (
        f"The image {file} is too large ({how}). Make it smaller, or raise the limit: predict has "
        "--max-pixels N, the data set image_folder --config.data.max_pixels=N. Some 20 bytes of "
        "memory per pixel are needed."
    )


def _orientation(image: Image.Image) -> int:
    return metadata.orientation(*(image.info.get(name) or b"" for name in ("exif", "xmp")))


def _upright_rgb(
    image: Image.Image, samples: "_Samples", orientation: int, options: ReadOptions, file: Path
) -> Image.Image:
    rgb = _composited(_in_8_bits(image, samples, file), options.matte, file)
    turn = _TURNS.get(orientation)
    return rgb if turn is None else rgb.transpose(turn)


class _Samples(NamedTuple):
    """What an image file states of its samples."""

    bits: int | None = None
    is_inverted: bool = False  # 0 is white, and Pillow has not seen to it


def _samples(image: Image.Image) -> _Samples:
    """What is known before an image is loaded; less of one that has been, or is of no file."""
    mode = image.mode
    tile = image.tile[0].args if isinstance(image, ImageFile.ImageFile) and image.tile else None
    if image.format == "PNG" and isinstance(tile, str):
        found = re.search(r";(\d+)", tile)  # Pillow's raw mode, as in "L;4" and "RGB;16B"
        return _Samples(int(found[1]) if found else 8)
    if isinstance(image, TiffImageFile):
        bits = None if mode == "I" else max(image.tag_v2.get(258, (1,)))
        is_deep = mode == "F" or mode.startswith("I;16")
        return _Samples(bits, is_inverted=is_deep and image.tag_v2.get(262) == 0)
    if isinstance(image, PpmImageFile):
        largest = tile[-1] if isinstance(tile, tuple) else 255
        return _Samples(16 if mode == "I" or largest > 255 else 8)
    return _Samples(16 if mode.startswith("I;16") else None)


def _in_8_bits(image: Image.Image, samples: _Samples, file: Path) -> Image.Image:
    """Returns an image with samples, and a transparent colour if it has one, of 8 bits."""
    bits = samples.bits
    transparent = image.info.get("transparency")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        convert = _from_floats if image.mode == "F" else functools.partial(_from_integers, bits)
        image = Image.fromarray(convert(values, file))
        if samples.is_inverted:
            image = ImageOps.invert(image)
        if transparent is not None:
            image.putalpha(Image.fromarray(255 * (values != transparent).astype(np.uint8)))
    elif bits and image.mode in ("L", "RGB") and transparent is not None:
        key = np.array(transparent)
        key = key >> 8 if bits == 16 else key * 255 // (2**bits - 1)
        image.info["transparency"] = key.item() if key.ndim == 0 else tuple(key.tolist())
    if bits == 16 and image.mode in ("RGB", "RGBA", "LA"):  # the lower 8 are gone
        colors = np.asarray(image)[..., : 1 if image.mode == "LA" else 3]
        _tell_if_dark(file, float(colors.max()), 255)
    return image


def _from_integers(
    bits: int | None, values: Integer[np.ndarray, "h w"], file: Path
) -> UInt8[np.ndarray, "h w"]:
    """Samples of so many bits as 8; of None, of as many as the largest needs, 8 or 16."""
    lowest, highest = int(values.min()), int(values.max())
    largest = (1 << (bits or 16)) - 1
    if lowest < 0 or highest > largest:
        raise BadImageError(
            f"The image {file} has whole numbers from {lowest} to {highest} for samples, but those "
            f"from 0 to {largest} are read. Scale them to that."
        )
    bits = bits or (8 if highest < 1 << 8 else 16)
    _tell_if_dark(file, highest, (1 << bits) - 1)
    return (values >> (bits - 8)).astype(np.uint8)


def _from_floats(values: Float[np.ndarray, "h w"], file: Path) -> UInt8[np.ndarray, "h w"]:
    lowest, highest = float(values.min()), float(values.max())
    # Rounding may have carried samples a little beyond.
    largest = next((top for top in (1, 255) if -0.001 * top <= lowest <= highest <= 1.001 * top), 0)
    if not largest:
        raise BadImageError(
            f"The image {file} has floats from {lowest:g} to {highest:g} for samples, but those in "
            "[0, 1] or [0, 255] are read, and no NaN. Scale them to one of these."
        )
    _tell_if_dark(file, highest, largest)
    return np.round(values.clip(0, largest) * (255 / largest)).astype(np.uint8)


def _tell_if_dark(file: Path, highest: float, largest: float) -> None:
    if highest < largest / 8:
        _tell_once(
            f"The image {file} is dark: its samples reach {highest:g} of {largest:g}. If they are "
            "meant to be of fewer bits (10 or 12 in 16, say), scale them to all of the range."
        )


@functools.lru_cache(maxsize=1024)
def _tell_once(text: str) -> None:
    """Warns, but not anew where an image is read again."""
    logging.warning("%s", text)


def _composited(image: Image.Image, matte: tuple[int, int, int], file: Path) -> Image.Image:
    """Returns an image of 8 bits as RGB."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    if not alpha.getbbox():
        _tell_once(f"The image {file} is transparent all over: only the colour below it is seen.")
    ground = Image.new("RGB", image.size, matte)
    ground.paste(image, mask=alpha)
    return ground
