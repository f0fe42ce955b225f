"""Writes TFRecord files of `tf.train.Example`s, as TensorFlow does."""

import gzip
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

Feature = np.ndarray | Sequence[bytes]


def write(file: Path, records: Iterable[bytes], *, compress: bool = False) -> None:
    """Writes serialized records, plain or as one gzip member."""
    content = b"".join(map(framed, records))
    file.write_bytes(gzip.compress(content) if compress else content)


def framed(data: bytes) -> bytes:
    """A record as it stands in a file."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc32c(length) + data + _masked_crc32c(data)


def example(features: Mapping[str, Feature], *, packed: bool = True) -> bytes:
    """A serialized example of uint8 (as one-byte strings), float32 and int64 arrays and strings."""
    entries = (
        _field(1, key.encode()) + _field(2, _feature(values, packed))
        for key, values in features.items()
    )
    return _field(1, b"".join(_field(1, entry) for entry in entries))


def _feature(values: Feature, packed: bool) -> bytes:
    if not isinstance(values, np.ndarray):
        return _field(1, b"".join(_field(1, value) for value in values))
    values = values.ravel()
    if values.dtype == np.uint8:
        strings = np.full((values.size, 3), (10, 1, 0), np.uint8)
        strings[:, 2] = values
        return _field(1, strings.tobytes())
    if values.dtype == np.float32:
        items = values.astype("<f4").tobytes()
        unpacked = (b"\x0d" + value.tobytes() for value in values)
        return _field(2, _field(1, items) if packed else b"".join(unpacked))
    assert values.dtype == np.int64
    varints = [_varint(int(value) % 2**64) for value in values]
    unpacked = (b"\x08" + value for value in varints)
    return _field(3, _field(1, b"".join(varints)) if packed else b"".join(unpacked))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*parts, value))


def _masked_crc32c(data: bytes) -> bytes:
    try:
        import google_crc32c
    except ImportError:
        crc = _crc32c(data)
    else:
        crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def _crc32c(data: bytes) -> int:
    """Bit by bit, straight from the definition."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
