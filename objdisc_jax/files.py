"""Files and folders that are written whole or not at all, and locks against other processes."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from absl import logging


class InUse(Exception):
    """Another process holds a lock; the text says which, as in "process 12 on host"."""


@contextlib.contextmanager
def replacing(path: Path, *, partial: Path | None = None, durable: bool = False) -> Iterator[Path]:
    """Yields where to make a file or a folder, which takes its place when the block ends.

    A reader, or a program that was killed, never finds half of it under its name. An error removes
    what has been made and leaves what was there.

    Args:
        path: of a file, or of a folder that does not exist or is empty; missing folders above it
            are made.
        partial: where to make it, on the same file system; by default hidden beside it, under a
            short name that no other process uses. What an earlier process left there is removed.
        durable: whether the content of a file must be on the disk before it takes its name.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    if partial is None:
        digest = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
        partial = path.with_name(f".{digest}.{os.getpid()}.partial")
    remove(partial)
    try:
        yield partial
        if durable:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        remove(partial)


def write_atomically(file: Path, content: bytes | str) -> None:
    """Writes a file as `replacing` does."""
    with replacing(file) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def remove(path: Path) -> None:
    """Removes a file or a folder, as far as it exists and can be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def locked(lock_file: Path, *, remove_after: bool = False) -> Iterator[None]:
    """Holds the lock of a file; the system releases it when the process ends, however it does.

    Where the file system has no locks there is a warning instead.

    Args:
        lock_file: made if it doesn't exist, with the folders above it; says who holds the lock.
        remove_after: whether to remove the file at the end.

    Raises:
        InUse: another process, or another call, holds the lock.
        OSError: the file cannot be opened.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InUse(file.read().strip() or "another process") from error
        except OSError as error:  # some network file systems have no locks
            logging.warning(
                "%s cannot be locked (%s): see to it that nobody else writes there.",
                lock_file,
                error.strerror,
            )
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield
        finally:
            if remove_after:
                remove(lock_file)


def has_locks(folder: Path) -> bool:
    """Whether files in a folder can be locked, as far as a try tells; nothing is left behind."""
    with contextlib.ExitStack() as stack:
        try:
            probe = stack.enter_context(tempfile.TemporaryFile(dir=folder)).fileno()
        except OSError:  # nothing can be written there
            probe = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, probe)
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


@contextlib.contextmanager
def warn_on_oserror(what: str) -> Iterator[None]:
    """Turns an `OSError`, of a full or unwritable disk say, into a warning.

    Args:
        what: is being written, for example "the curves".
    """
    try:
        yield
    except OSError as error:
        logging.warning("%s could not be written: %s.", what.capitalize(), error)
