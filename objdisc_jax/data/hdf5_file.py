"""Opens HDF5 files to read, with or without locks, and tells apart why one cannot be read.

HDF5 locks what it opens. A file that another process writes is refused by that; a file system that
has no locks hinders nobody.
"""

import contextlib
import errno
import pathlib
from collections.abc import Iterator

import h5py

from objdisc_jax import files
from objdisc_jax.data.errors import DataError

DAMAGED: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError)
"""What h5py raises, and with it everything else, on files that are not as they should be."""
try:  # inflates more than twice as fast as HDF5's own library
    from isal import isal_zlib  # pyright: ignore[reportMissingImports]

    DAMAGED += (isal_zlib.error,)  # pyright: ignore[reportAssignmentType]
except ImportError:
    isal_zlib = None

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SIGNATURE_OFFSETS = (0, *(512 << i for i in range(12)))
"""Where HDF5 looks for it: other content may come first."""


class Unreadable(Exception):
    """Why a file cannot be read, in whole sentences.

    Attributes:
        is_unsound: whether that lies in what it holds, so that another file is needed; if not, the
            sentences say what to do.
    """

    def __init__(self, sentences: str, *, is_unsound: bool = False):
        super().__init__(sentences)
        self.is_unsound = is_unsound


def open_to_read(path: pathlib.Path) -> h5py.File:
    """Opens a file.

    Raises:
        Unreadable: it may not be read, another process writes it, the system cannot read it, it is
            damaged, or it is no HDF5 file.
    """
    with explained(path):
        try:
            return h5py.File(path, "r")
        except OSError as error:
            if not _is_of_locks(error):
                raise
            if error.errno == errno.EAGAIN and files.has_locks(path.parent):
                raise Unreadable(
                    "Another process has locked it, most likely to write it. Wait until that ends, "
                    "or end it. If there is none, HDF5_USE_FILE_LOCKING=FALSE in the environment "
                    "reads the file without a lock."
                ) from error
        return h5py.File(path, "r", locking=False)


@contextlib.contextmanager
def explained(path: pathlib.Path) -> Iterator[None]:
    """Turns what h5py raises about a file into an `Unreadable`; lets a `DataError` through."""
    try:
        yield
    except DataError:
        raise
    except PermissionError as error:
        raise Unreadable(
            "You have no permission to read it. Ask its owner for that (chmod a+r FILE), or name "
            "another file."
        ) from error
    except DAMAGED as error:
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, OSError) and _is_of_locks(error):
            raise Unreadable(
                f"It cannot be locked ({error}), and HDF5_USE_FILE_LOCKING in the environment asks "
                "for locks. Unset it."
            ) from error
        if "already open for" in str(error):
            raise Unreadable(
                f"It is marked as open for writing ({error}). Wait until the process that writes "
                f"it ends; if that has died, remove the mark with h5clear -s {path}"
            ) from error
        if number:
            raise Unreadable(
                f"The system cannot read it ({error}). See to its disk or network file system, or "
                "name another file."
            ) from error
        if (start := _foreign_start(path)) is not None:
            begins = f"it begins with {start!r}" if start else "it is empty"
            raise Unreadable(f"It is no HDF5 file: {begins}.", is_unsound=True) from error
        raise Unreadable(
            f"HDF5 cannot read it ({error}): it is truncated or otherwise damaged.", is_unsound=True
        ) from error


def _is_of_locks(error: OSError) -> bool:
    """Whether a file could not be locked, or is open already in this process without a lock."""
    return "unable to lock file" in str(error) or "file locking flag" in str(error)


def _foreign_start(path: pathlib.Path) -> bytes | None:
    """The first bytes of a file that is no HDF5 file; None of one that is, or cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(24)
            for offset in _SIGNATURE_OFFSETS:
                file.seek(offset)
                if file.read(len(_SIGNATURE)) == _SIGNATURE:
                    return None
    except OSError:
        return None
    return start
