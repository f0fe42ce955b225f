"""What was found out about files, kept in the user's cache folder so that it is found out once.

The folder is `$XDG_CACHE_HOME/objdisc_jax`, by default `~/.cache/objdisc_jax`. It can be deleted
at any time.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from absl import logging

from objdisc_jax.files import replacing

Arrays = Mapping[str, np.ndarray]

VERSION = 2
"""Bumped whenever what is stored is computed in another way."""


def folder() -> Path:
    """Returns the cache folder, which need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "objdisc_jax"


def cached(
    key: tuple[object, ...], compute: Callable[[], Arrays], is_current: Callable[[Arrays], bool]
) -> Arrays:
    """Returns arrays from the cache, computing and storing them if need be.

    Args:
        key: what the arrays are and of which path and options; its parts have a stable `repr`.
        compute: makes the arrays.
        is_current: whether stored arrays still describe the files, usually by time and size.
    """
    name = f"{hashlib.sha256(repr((VERSION, *key)).encode()).hexdigest()[:32]}.npz"
    try:
        with np.load(io.BytesIO((folder() / name).read_bytes())) as stored:
            arrays = dict(stored)
        if is_current(arrays):
            return arrays
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # none yet, or one that is damaged or of another version
    arrays = compute()
    try:
        with replacing(folder() / name) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        logging.warning("The cache cannot be written (%s); going on without.", error)
    return arrays


def cached_while(
    key: tuple[object, ...], stamp: np.ndarray, compute: Callable[[], np.ndarray]
) -> np.ndarray:
    """Returns an array from the cache as long as a stamp of what it depends on stays the same."""
    return cached(
        key,
        lambda: {"stamp": stamp, "values": compute()},
        lambda arrays: np.array_equal(arrays["stamp"], stamp),
    )["values"]


def cached_for_file(
    key: tuple[object, ...], path: Path, compute: Callable[[], np.ndarray]
) -> np.ndarray:
    """Returns an array computed from one file, as long as its time and size stay the same."""
    status = path.stat()
    stamp = np.array([status.st_size, status.st_mtime_ns])
    return cached_while((*key, str(path)), stamp, compute)
