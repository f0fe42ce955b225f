"""Writing files whole or not at all."""

import os
from pathlib import Path


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
