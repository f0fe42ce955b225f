"""Reads TFRecord files and the `tf.train.Example`s in them, without TensorFlow.

A file, plain or gzip, is a sequence of

    uint64 length, uint32 masked CRC of those 8 bytes, data, uint32 masked CRC of the data

(little-endian; the CRC is CRC-32C, of the Castagnoli polynomial). It has neither header nor index:
records are read from the front, and a cut shows only as a short read.
"""

import contextlib
import io
import itertools
import math
import os
import pathlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

from objdisc_jax.data.errors import DataError

try:  # inflates four times as fast
    from zlib_ng import zlib_ng as zlib  # pyright: ignore[reportMissingImports]
except ImportError:
    import zlib

try:
    import google_crc32c  # pyright: ignore[reportMissingImports]
except ImportError:
    google_crc32c = None
if google_crc32c is not None and google_crc32c.implementation != "c":
    google_crc32c = None

CHECKS_DATA = google_crc32c is not None
"""Whether the CRC of every record's data is verified, not just that of its length."""

Feature = np.ndarray | list[bytes]

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_GZIP_MAGIC = b"\x1f\x8b"
# Protocol buffers are smaller.
_TOO_LONG = 1 << 31
# The file is read, and inflated, in pieces of at most this many bytes.
_READ_BYTES = 1 << 18
_INFLATED_BYTES = 1 << 20


def read_records(path: str | os.PathLike[str], start: int = 0) -> Iterator[bytes]:
    """Yields the data of a file's records one after another.

    The CRC of every length is verified, that of the data if the package `google-crc32c` is
    installed: in Python it would take a second for a record of a few megabytes.

    Args:
        path: a TFRecord file, plain or gzip (of any number of members).
        start: number of the first record to yield; the data of those before is not verified.

    Raises:
        DataError: there is no such file, it is truncated or damaged, or no TFRecord file.
    """
    path = pathlib.Path(path).expanduser().absolute()
    with _opened(path) as file:
        stream = _Stream(_inflated(file)) if file.peek(2)[:2] == _GZIP_MAGIC else file
        offset = 0
        for number in itertools.count():
            with _located(path, number, offset):
                header = stream.read(_HEADER.size)
                if not header:
                    return
                if len(header) < _HEADER.size:
                    raise EOFError("the file ends within its length")
                length, length_crc = _HEADER.unpack(header)
                if length_crc != masked(_crc32c(header[:8])) or length >= _TOO_LONG:
                    raise EOFError("the CRC of its length is wrong")
                data = stream.read(length)
                footer = stream.read(_FOOTER.size)
                if len(data) < length or len(footer) < _FOOTER.size:
                    raise EOFError(f"the file ends within its {length} bytes of data")
                if number >= start and google_crc32c:
                    if footer != _FOOTER.pack(masked(_crc32c(data))):
                        raise EOFError("the CRC of its data is wrong")
            if number >= start:
                yield data
            offset += _HEADER.size + length + _FOOTER.size


def count_records(path: str | os.PathLike[str]) -> int:
    """Returns how many records a file has; of a plain one only the lengths are read.

    Raises:
        DataError: as `read_records`.
    """
    path = pathlib.Path(path).expanduser().absolute()
    with _opened(path) as file:
        if file.peek(2)[:2] == _GZIP_MAGIC:
            return sum(1 for _ in read_records(path))
        size = os.fstat(file.fileno()).st_size
        number = offset = 0
        while offset != size:
            with _located(path, number, offset):
                file.seek(offset)
                header = file.read(_HEADER.size)
                if len(header) < _HEADER.size:
                    raise EOFError("the file ends within its length")
                length = _HEADER.unpack(header)[0]
                offset += _HEADER.size + length + _FOOTER.size
                if length >= _TOO_LONG or offset > size:
                    raise EOFError(f"the file ends within its {length} bytes of data")
            number += 1
    return number


def _opened(path: pathlib.Path) -> io.BufferedReader:
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(
            f"The input {path} cannot be read: {error.strerror or error}. Name a TFRecord file."
        ) from None


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    """Yields the content of a gzip file of any number of members, in pieces.

    (Unlike the gzip module: in pieces that are large enough for threads to work meanwhile.)
    """
    inflater = zlib.decompressobj(wbits=31)
    while data := file.read(_READ_BYTES):
        while data:
            if inflater.eof:
                inflater = zlib.decompressobj(wbits=31)
            yield inflater.decompress(data, _INFLATED_BYTES)
            data = inflater.unconsumed_tail or inflater.unused_data
    if not inflater.eof:
        raise EOFError("the compressed data is cut off")


class _Stream:
    """Reads as many bytes as wanted from pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]):
        self._pieces = pieces
        self._piece = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Returns the next bytes; fewer only at the end."""
        taken = [self._piece[:size]]
        missing = size - len(taken[0])
        self._piece = self._piece[size:]
        while missing:
            piece = next(self._pieces, None)
            if piece is None:
                break
            taken.append(memoryview(piece)[:missing])
            self._piece = memoryview(piece)[missing:]
            missing -= len(taken[-1])
        return b"".join(taken)


@contextlib.contextmanager
def _located(path: pathlib.Path, number: int, offset: int) -> Iterator[None]:
    """Turns what goes wrong while a record is read into a `DataError` that says where."""
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:  # pyright: ignore[reportGeneralTypeIssues]
        raise DataError(
            f"The file {path} is damaged, or no TFRecord file: record {number}, at byte {offset} "
            f"of the uncompressed data, cannot be read: {error}. The download may be incomplete: "
            "compare the size with the published one, and fetch the file again."
        ) from None


def masked(crc: int) -> int:
    """Returns a CRC as TFRecord files store it."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


_TABLE = list(range(256))
for _ in range(8):
    _TABLE = [crc >> 1 ^ 0x82F63B78 * (crc & 1) for crc in _TABLE]


def crc32c(data: bytes) -> int:
    """Returns the CRC-32C of data, a few megabytes per second."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


_crc32c: Callable[[bytes], int] = google_crc32c.value if google_crc32c else crc32c


def parse_example(data: bytes) -> dict[str, Feature]:
    """Returns the features of a serialized `tf.train.Example` by their keys.

    For each a one-dimensional float32 or int64 array, or a list of byte strings. A list of one-byte
    strings comes as a uint8 array: so the published object data sets store pixels. Data that is no
    such example is a `DataError`, here and in the functions below.
    """
    return {key: feature_values(feature) for key, feature in split_example(data).items()}


def split_example(data: bytes) -> dict[str, memoryview]:
    """Returns the serialized features of a serialized `tf.train.Example` by their keys."""
    view = memoryview(data)
    found = {}
    with _explained():
        for features in _items(data, 0, len(data)):
            for entry in _items(data, *features):
                key = value = slice(0)
                for number, start, stop in _fields(data, *entry):
                    if number == 1:
                        key = slice(start, stop)
                    elif number == 2:
                        value = slice(start, stop)
                found[data[key].decode()] = view[value]
    return found


def feature_values(feature: memoryview) -> Feature:
    """Returns what one of the features of `split_example` holds, as `parse_example` does."""
    simple = stack_values([feature])
    if simple is not None:
        return simple[0]
    with _explained():
        fields = _fields(feature, 0, len(feature))
        if not fields:
            return []
        if len(fields) > 1:
            raise ValueError("a feature of several lists")
        ((kind, start, stop),) = fields
        items = [feature[slice(*span)] for span in _items(feature, start, stop)]
        if kind == 1:
            return [bytes(item) for item in items]
        # A packed list is one item with all values; of an unpacked one each value is an item.
        if kind == 2:
            return np.frombuffer(b"".join(items), "<f4").astype(np.float32)
        if kind == 3:
            return _integers(b"".join(items))
        raise ValueError(f"a list of the unknown kind {kind}")


def stack_values(features: Sequence[memoryview]) -> np.ndarray | None:
    """Returns the values of one key's features in several examples, in one step.

    uint8 [n, size] for lists of one-byte strings and float32 [n, size] for packed floats, if the
    lists are equally long; None for everything else: see `feature_values`.
    """
    first, length = features[0], len(features[0])
    with _explained():
        fields = _fields(first, 0, length)
        if len(fields) == 1 and fields[0][0] == 2:
            fields = [(2, *span) for span in _items(first, fields[0][1], length)]
    if len(fields) != 1 or any(len(feature) != length for feature in features):
        return None
    kind, start, _ = fields[0]
    data = first if len(features) == 1 else b"".join(features)
    rows = np.frombuffer(data, np.uint8).reshape(len(features), length)
    if (rows[:, :start] != rows[0, :start]).any():
        return None
    if kind == 2 and (length - start) % 4 == 0:
        return rows[:, start:].copy().view("<f4").astype(np.float32)
    if kind == 1 and length > start and (length - start) % 3 == 0:
        return _one_byte_strings(rows[:, start:])
    return None


def _one_byte_strings(lists: np.ndarray) -> np.ndarray | None:
    """Returns the bytes of lists of one-byte strings, [n, 3 size]; None if they are no such."""
    # Each is tag 10, length 1 and the byte. Extremes over long rows are the quickest test.
    rows = lists
    if len(lists) == 1:
        rows = lists.reshape(-1, 3 * math.gcd(lists.size // 3, 1024))
    for extreme in (rows.min(0), rows.max(0)):
        if (extreme[::3] != 10).any() or (extreme[1::3] != 1).any():
            return None
    return lists[:, 2::3].copy()


def _integers(varints: bytes) -> np.ndarray:
    values, position = [], 0
    while position < len(varints):
        value, position = _varint(varints, position)
        values.append(value)
    return np.array(values, np.uint64).astype(np.int64)


def _items(data: bytes | memoryview, start: int, stop: int) -> list[tuple[int, int]]:
    """Returns where the values of field 1 of a message start and stop."""
    return [(start, stop) for number, start, stop in _fields(data, start, stop) if number == 1]


def _fields(data: bytes | memoryview, start: int, stop: int) -> list[tuple[int, int, int]]:
    """Returns the fields of a message: their numbers and where their values start and stop."""
    fields = []
    while start < stop:
        tag, start = _varint(data, start)
        wire_type = tag & 7
        if wire_type == 2:
            length, start = _varint(data, start)
            end = start + length
        elif wire_type == 0:
            end = _varint(data, start)[1]
        elif wire_type in (1, 5):
            end = start + (8 if wire_type == 1 else 4)
        else:
            raise ValueError(f"the unknown wire type {wire_type}")
        if end > stop:
            raise ValueError("a field that goes beyond its message")
        fields.append((tag >> 3, start, end))
        start = end
    return fields


def _varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """Returns the number at a position, and the position after it."""
    byte = data[position]
    if byte < 0x80:
        return byte, position + 1
    value, shift = 0, 0
    while byte >= 0x80:
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        byte = data[position]
    return (value | byte << shift) & 0xFFFFFFFFFFFFFFFF, position + 1


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turns what goes wrong while an example is parsed into a `DataError`."""
    try:
        yield
    except (ValueError, IndexError) as error:
        raise DataError(f"The data is no tf.train.Example; it has {error}.") from None
