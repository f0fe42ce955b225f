"""Writing files whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from absl import logging


def write_atomically(file: Path, content: bytes | str) -> None:
    """Writes a file beside its place and moves it there in one step; missing folders are made.

    A reader or a killed program never finds half a file under its name.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def warn_on_oserror(what: str) -> Iterator[None]:
    """Goes on where a full or unwritable disk keeps something from being written, and says so.

    Args:
        what: is being written, for example "the curves".
    """
    try:
        yield
    except OSError as error:
        logging.warning("%s could not be written: %s.", what.capitalize(), error)
