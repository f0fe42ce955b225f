"""What image files say beside their pixels: how they are turned is found, all else is left out.

Decoders refuse sound images, or raise anything, for a resolution that is text or a profile that is
long. They are not shown any of it.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator

UPRIGHT = 1
"""The orientation of an image that is not turned; the others are numbered up to 8, as in EXIF."""

# TIFF's tags without which pixels cannot be told: their number, size, layout, coding and colours.
_TIFF_PIXELS = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324),
    *(325, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
}
_ORIENTATION, _XMP = 274, 700
_INTEGERS = {3: "H", 4: "L", 8: "h", 9: "l"}  # TIFF's types of them
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8}
_AVIF_EXIF = re.compile(rb"(infe[\2\3].{7}(?:..)?)Exif", re.DOTALL)  # an item's entry, its kind
_PNG_EXIF = re.compile(rb"Raw profile type (exif|APP1)")
_LONGEST_TEXT = 1 << 24
"""Bytes of a PNG file's compressed text that are looked at."""


def split(content: bytes) -> tuple[bytes, int | None]:
    """Returns an image file without what is no pixels, and its orientation.

    That is 1 to 8, or None if the file is of a kind that is left as it is. Nothing is raised: a
    damaged file is left to the decoder.
    """
    for start, parse in _PARSERS.items():
        if content.startswith(start):
            return parse(content)
    if content[4:8] == b"ftyp":  # AVIF: boxes of its own say how it is turned, whatever EXIF says
        return _AVIF_EXIF.sub(rb"\1none", content), None
    return content, None


def orientation(exif: bytes, xmp: bytes | str = b"") -> int:
    """Returns the orientation that EXIF states or, if it does not mention any, XMP.

    What is none, such as 0, text or a fraction, is `UPRIGHT`.
    """
    block = re.sub(rb"^(Exif\0\0)+", b"", exif)
    for _, tag, value in _tiff_tags(block):
        if tag == _ORIENTATION:
            return value if isinstance(value, int) and 1 <= value <= 8 else UPRIGHT
    text = xmp.encode(errors="replace") if isinstance(xmp, str) else xmp
    stated = re.search(rb"""tiff:Orientation(?:=["']|>)([1-8])["'<]""", text)
    return int(stated[1]) if stated else UPRIGHT


def is_tiff(content: bytes) -> bool:
    """Whether a file is a TIFF that tells of pixels."""
    return any(tag in _TIFF_PIXELS for _, tag, _ in _tiff_tags(content))


def _jpeg(content: bytes) -> tuple[bytes, int]:
    kept, exif, xmp, at = [content[:2]], b"", b"", 2
    while (at := content.find(b"\xff", at)) >= 0:
        marker = content[at + 1 : at + 2]
        if marker in (b"\xd9", b"\xda"):  # the end, or compressed pixels
            kept.append(content[at:])
            break
        if marker == b"\xff":  # padding
            at += 1
            continue
        if marker in (b"\x00", b"\x01") or b"\xd0" <= marker <= b"\xd8":  # without a segment
            at += 2
            continue
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4])
        segment = content[at + 4 : end]
        if segment.startswith(b"Exif\0\0"):
            exif = exif or segment
        elif segment.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = xmp or segment
        elif not (b"\xe0" <= marker <= b"\xef" or marker == b"\xfe") or segment.startswith(
            (b"JFIF", b"Adobe")  # of applications' segments, these state the colour space
        ):
            kept.append(content[at:end])
        at = end
    return b"".join(kept), orientation(exif, xmp)


def _png(content: bytes) -> tuple[bytes, int]:
    kept, exif, xmp, at = [content[:8]], b"", b"", 8
    while at < len(content):
        length, kind = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8]
        data = slice(at + 8, at + 8 + length)
        end = at + 12 + length
        if kind == b"eXIf":
            exif = content[data]
        elif kind in _PNG_TEXTS:
            keyword, _, rest = content[data].partition(b"\0")
            if _PNG_EXIF.fullmatch(keyword):
                exif = exif or _from_hex(_PNG_TEXTS[kind](rest))
            elif keyword == b"XML:com.adobe.xmp":
                xmp = _PNG_TEXTS[kind](rest)
        elif kind[:1].isupper() or kind == b"tRNS":  # the others say nothing of pixels
            kept.append(content[at:end])
        at = len(content) if kind == b"IEND" else end
    return b"".join(kept), orientation(exif, xmp)


def _inflated(compressed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(compressed, _LONGEST_TEXT)
    except zlib.error:
        return b""


def _international(text: bytes) -> bytes:
    *_, rest = text[2:].split(b"\0", 2)  # language, keyword in it
    return _inflated(rest) if text[:1] == b"\1" else rest


_PNG_TEXTS: dict[bytes, Callable[[bytes], bytes]] = {
    b"tEXt": lambda text: text,
    b"zTXt": lambda text: _inflated(text[1:]),
    b"iTXt": _international,
}


def _from_hex(text: bytes) -> bytes:
    """What ImageMagick writes: a line break, a name, a number of bytes, and lines of digits."""
    digits = b"".join(text.split()[2:])
    found = re.match(rb"(?:[0-9a-fA-F]{2})*", digits)
    return bytes.fromhex(found[0].decode()) if found else b""


def _tiff(content: bytes) -> tuple[bytes, int]:
    """Takes tags out of the first directory, so that nothing else of the file moves."""
    tags = list(_tiff_tags(content))
    xmp = next((value for _, tag, value in tags if tag == _XMP and isinstance(value, bytes)), b"")
    turned = [value for _, tag, value in tags if tag == _ORIENTATION]
    found = next((v if isinstance(v, int) and 1 <= v <= 8 else UPRIGHT for v in turned), None)
    kept = [content[entry] for entry, tag, _ in tags if tag in _TIFF_PIXELS]
    if not kept:
        return content, UPRIGHT
    order, is_big, at = _tiff_header(content)
    number, link = (order + "Q", 8) if is_big else (order + "H", 4)
    directory = struct.pack(number, len(kept)) + b"".join(kept) + bytes(link)
    plain = content[:at] + directory + content[at + len(directory) :]
    return plain, found or orientation(b"", xmp)


def _tiff_header(content: bytes) -> tuple[str, bool, int]:
    """The byte order, whether it is a BigTIFF, and where the first directory is."""
    order = {b"II": "<", b"MM": ">"}[content[:2]]
    is_big = 43 in content[2:4]
    (at,) = struct.unpack_from(order + ("8xQ" if is_big else "4xL"), content)
    return order, is_big, at


def _tiff_tags(content: bytes) -> Iterator[tuple[slice, int, int | bytes | None]]:
    """Yields, of the first directory, where an entry is, its tag, and its value.

    That is a whole number, the bytes of anything else, or None if it has no bytes or they are not
    there. A directory that is cut off ends early.
    """
    try:
        order, is_big, at = _tiff_header(content)
        number, entry, room = ("Q", "HHQ8s", 8) if is_big else ("H", "HHL4s", 4)
        (count,) = struct.unpack_from(order + number, content, at)
        at += struct.calcsize(order + number)
        length = struct.calcsize(order + entry)
        for start in range(at, at + count * length, length):
            tag, kind, amount, inside = struct.unpack_from(order + entry, content, start)
            size = amount * _SIZES.get(kind, 0)
            if size > room:
                offset = int.from_bytes(inside, "little" if order == "<" else "big")
                inside = content[offset : offset + size]
            value = inside[:size] if 0 < size <= len(inside) else None
            if value and amount == 1 and kind in _INTEGERS:
                (value,) = struct.unpack(order + _INTEGERS[kind], value)
            yield slice(start, start + length), tag, value
    except (struct.error, OverflowError, KeyError):
        return


_PARSERS: dict[bytes, Callable[[bytes], tuple[bytes, int]]] = {
    b"\xff\xd8": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"II\0*", b"MM*\0"), _tiff),
}
