"""The one rule for looking for files below a folder, for data sets and for prediction."""

import os
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple


class Walk(NamedTuple):
    """What lies below a folder; paths are relative to it, encoded as the file system does."""

    files: list[bytes]  # paths of the files that were looked for, sorted
    times: dict[bytes, int]  # when the folder (`b""`) and those in it last changed, in nanoseconds
    # How many files and folders were left out, by what they are: "hidden", "unreadable
    # folders", "of another kind".
    left_out: Counter[str]


def walk(
    root: Path, pattern: str, *, exclude: Collection[Path] = (), skip_unreadable: bool = False
) -> Walk:
    """Finds the files below a folder whose names match a regular expression.

    Hidden files and folders are left out. Links are followed, to each folder once.

    Args:
        root: the folder.
        pattern: of a file's whole name.
        exclude: folders that are not searched; they need not exist.
        skip_unreadable: whether folders that cannot be read are left out.

    Raises:
        OSError: a folder cannot be read.
    """
    matches = re.compile(os.fsencode(pattern)).fullmatch
    found = Walk([], {}, Counter())
    seen = {_identity(os.stat(folder)) for folder in exclude if folder.exists()}
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        path = os.path.join(os.fsencode(root), folder)
        try:
            status = os.stat(path)  # before the look
            if _identity(status) in seen:
                continue
            seen.add(_identity(status))
            with os.scandir(path) as listed:
                entries = list(listed)
        except OSError:
            if not skip_unreadable:
                raise
            found.left_out["unreadable folders"] += 1
            continue
        found.times[folder] = status.st_mtime_ns
        for entry in entries:
            name = os.path.join(folder, entry.name)
            if entry.name.startswith(b"."):
                found.left_out["hidden"] += 1
            elif os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                waiting.append(name)
            elif matches(entry.name):
                found.files.append(name)
            else:
                found.left_out["of another kind"] += 1
    found.files.sort()
    return found


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
