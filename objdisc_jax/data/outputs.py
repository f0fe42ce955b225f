"""Outputs of long jobs: not overwritten unasked, and continued after an interruption."""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from objdisc_jax import files
from objdisc_jax.data.errors import DataError

MANIFEST = "manifest.json"
"""The file in a folder of parts that says what they are made of."""


def check_free(output: pathlib.Path, overwrite: bool) -> None:
    """Raises a `DataError` if something has the output's name and may not be overwritten."""
    if output.exists() and not overwrite:
        raise DataError(
            f"The output {output} exists already and was left as it is. Replace it with "
            "--overwrite, or write elsewhere with --output."
        )


@contextlib.contextmanager
def explained(output: pathlib.Path) -> Iterator[None]:
    """Turns an `OSError` into a `DataError`, which says that the output could not be written."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The output {output} could not be written: {error.strerror or error}. Free some "
            "space, see to the permissions, or write elsewhere with --output."
        ) from error


@contextlib.contextmanager
def restartable(
    output: pathlib.Path, identity: Mapping[str, Any], *, parts: str, overwrite: bool
) -> Iterator[pathlib.Path]:
    """Yields the folder in which the finished parts of an output are kept, `.NAME.parts` beside it.

    It holds what an interrupted block of the same identity has finished, and is removed when the
    block ends, unless an error leaves parts in it. Nobody else writes the output meanwhile.

    Args:
        output: a file or a folder.
        identity: what the output is made of, and how; JSON, kept in the manifest.
        parts: pattern of the names of finished parts, below the folder.
        overwrite: whether parts of anything else may be removed.

    Raises:
        DataError: another process writes the output, there are parts of another one, or the folder
            cannot be written. Where parts are kept, a `DataError` of the block says so, too.
    """
    folder = output.with_name(f".{output.name}.parts")
    with explained(output), _locked(output):
        _open(folder, json.dumps(identity, indent=1), parts, overwrite)
        try:
            with explained(output):
                yield folder
        except BaseException as error:
            if not any(folder.glob(parts)):
                files.remove(folder)
            elif isinstance(error, DataError):
                raise DataError(
                    f"{error} What is done is kept in {folder}: the same command goes on there, as "
                    "long as the input stays the same."
                ) from None
            raise
        files.remove(folder)


@contextlib.contextmanager
def _locked(output: pathlib.Path) -> Iterator[None]:
    try:
        with files.locked(output.with_name(f".{output.name}.lock"), remove_after=True):
            yield
    except files.InUse as error:
        raise DataError(
            f"Another command is writing {output} ({error}). Wait for it, or end it."
        ) from None


def _open(folder: pathlib.Path, manifest: str, parts: str, overwrite: bool) -> None:
    """Makes the folder, unless it has parts with the same manifest."""
    file = folder / MANIFEST
    found = file.read_text() if file.exists() else ""
    if found == manifest:
        return
    if found and not overwrite and any(folder.glob(parts)):
        raise DataError(
            f"The folder {folder} holds what an interrupted command has done, but of another "
            f"input or of other arguments:\n{found}\nRepeat that command to finish it, or drop "
            "what it has done with --overwrite."
        )
    files.remove(folder)
    files.write_atomically(file, manifest)
