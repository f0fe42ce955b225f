"""How the files that `predict` writes are known: they say so themselves, wherever they lie.

A PNG file has a mark among its texts, an NPZ file at its end. It holds a digest of the file's
length and of the checksums that these formats keep at its end, so that a file which another program
has changed, and saved with the mark, is known as that.
"""

import hashlib
import struct
import zlib
from pathlib import Path

SUFFIXES = {
    "labels": "_labels.png",
    "overlay": "_overlay.png",
    "panel": "_panel.png",
    "npz": ".npz",
}
"""What follows an image's name in the names of its results."""

_IMAGES = tuple(suffix for suffix in SUFFIXES.values() if suffix.endswith(".png"))
_PNG = b"\x89PNG\r\n\x1a\n"
_HEAD = 33  # bytes of a PNG file before its second chunk, which the mark is
_TAIL = 4096  # bytes at the end; they have the checksums of an image's, and of arrays'


def marked(content: bytes) -> bytes:
    """Returns the content of a PNG file, or of an NPZ file, with the mark."""
    if content.startswith(_PNG):
        head, rest = content[:_HEAD], content[_HEAD:]
        return head + _chunk(_mark(len(content), head, rest[-_TAIL:])) + rest
    mark = _mark(len(content), b"", content[:-2][-_TAIL:])
    return content[:-2] + _comment(mark)


def is_result(file: str | Path) -> bool:
    """Whether an image has the name and the mark of a result; if it cannot be read, it has not."""
    return str(file).endswith(_IMAGES) and is_marked(Path(file))


def is_marked(file: Path) -> bool:
    """Whether a file has the mark, and is as it was marked; if it cannot be read, it has not."""
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            head = stream.read(_HEAD)
            if head.startswith(_PNG):
                chunk = stream.read(_CHUNK)
                stream.seek(max(_HEAD + _CHUNK, size - _TAIL))
                return chunk == _chunk(_mark(size - _CHUNK, head, stream.read()))
            end = size - 2 - _MARK
            stream.seek(max(0, end - _TAIL))
            tail, comment = stream.read(min(end, _TAIL)), stream.read()
            return comment == _comment(_mark(end + 2, b"", tail))
    except (OSError, ValueError):  # ValueError: it is shorter than a mark
        return False


def _mark(length: int, head: bytes, tail: bytes) -> bytes:
    digest = hashlib.blake2b(b"%d " % length + head + tail, digest_size=16)
    return b"objdisc_jax.predict " + digest.hexdigest().encode()


def _chunk(mark: bytes) -> bytes:
    """A text chunk of a PNG file."""
    content = b"tEXtSoftware\0" + mark
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


def _comment(mark: bytes) -> bytes:
    """The last bytes of a ZIP archive, which an NPZ file is."""
    return struct.pack("<H", len(mark)) + mark


_MARK = len(_mark(0, b"", b""))
_CHUNK = len(_chunk(bytes(_MARK)))
