"""The one rule for looking for files below a folder, for data sets and for prediction."""

import os
import re
from collections import Counter, deque
from pathlib import Path
from typing import NamedTuple

from objdisc_jax.data import marks

_HIDDEN = re.compile(
    rb"\..*|__MACOSX|@eaDir|#recycle|\$RECYCLE\.BIN|System Volume Information|lost\+found",
    re.DOTALL,
)
"""Names of files and folders that a person would not count: systems keep them."""
UNREADABLE = -1
"""In place of the time when a folder last changed, if it cannot be read."""


class Walk(NamedTuple):
    """What lies below a folder; paths are relative to it, encoded as the file system does."""

    files: list[bytes]  # paths of the files that were looked for, sorted
    # When the folder (`b""`) and those in it last changed, in nanoseconds, or `UNREADABLE`.
    times: dict[bytes, int]
    # How many files and folders were left out, by what they are: "hidden", "results of predict",
    # "of another kind".
    left_out: Counter[str]

    @property
    def unreadable(self) -> list[str]:
        """The folders that cannot be read."""
        return sorted(os.fsdecode(f) for f, time in self.times.items() if time == UNREADABLE)

    def describe_left_out(self) -> str:
        """Says what was left out, or nothing, as in "2 hidden, 1 of another kind"."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.left_out.items()))


def walk(root: Path, pattern: str, *, skip_unreadable: bool = False) -> Walk:
    """Finds the files below a folder whose names match a regular expression.

    Hidden files and folders are left out, and so are results that `predict` wrote. Links are
    followed, to each folder once: it is found by its own path, if that is below the root.

    Args:
        root: the folder.
        pattern: of a file's whole name.
        skip_unreadable: whether folders below the root that cannot be read are left out.

    Raises:
        OSError: a folder cannot be read.
    """
    matches = re.compile(os.fsencode(pattern)).fullmatch
    found = Walk([], {}, Counter())
    seen: set[tuple[int, int]] = set()
    folders, links = [b""], deque[bytes]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        path = os.path.join(os.fsencode(root), folder)
        try:
            status = os.stat(path)  # before the look
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError:
            if not (skip_unreadable and folder):
                raise
            found.times[folder] = UNREADABLE
            continue
        found.times[folder] = status.st_mtime_ns
        for entry in entries:
            name = os.path.join(folder, entry.name)
            kind = _kind(entry)
            if _HIDDEN.fullmatch(entry.name):
                found.left_out["hidden"] += 1
            elif kind == "folder":
                (links if entry.is_symlink() else folders).append(name)
            elif kind != "file" or not matches(entry.name):
                found.left_out["of another kind"] += 1
            elif marks.is_result(os.fsdecode(entry.path)):
                found.left_out["results of predict"] += 1
            else:
                found.files.append(name)
    found.files.sort()
    return found


def _kind(entry: os.DirEntry[bytes]) -> str:
    """Returns "folder", "file" or "device" (or pipe): what a link leads to, "file" if nowhere."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file() or not os.path.exists(entry.path):
            return "file"
    except OSError:  # it will be told of when it is read
        return "file"
    return "device"
