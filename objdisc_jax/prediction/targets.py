"""Where the results of images go, and what has to stay there."""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from objdisc_jax.data import marks
from objdisc_jax.data.inputs import File, Skipped
from objdisc_jax.errors import UserError

_NAMED = 3
"""So many files an error names; it counts the others."""


def target(output: Path, file: File, what: str) -> Path:
    """Returns where a result of an image is written; `what` is a name in `prediction.OUTPUTS`."""
    return output / f"{file.name}{marks.SUFFIXES[what]}"


def is_taken(path: Path) -> bool:
    """Whether there is something that `predict` did not write."""
    return os.path.lexists(path) and not marks.is_marked(path)


def fitting(
    files: Sequence[File | Skipped], output: Path, outputs: Collection[str]
) -> Iterator[File | Skipped]:
    """Yields files; those whose results would have too long names are skipped."""
    longest = _longest_name(output)
    for file in files:
        if isinstance(file, File):
            names = {marks.SUFFIXES[what]: target(output, file, what).name for what in outputs}
            suffix = max(names, key=len)
            if len(os.fsencode(names[suffix])) > longest:
                file = Skipped(
                    file,
                    f"its name leaves no room for {suffix}: names have {longest} bytes at most. "
                    "Rename it, or name other results with --save.",
                )
        yield file


def check(
    files: Sequence[File | Skipped],
    inputs: Sequence[File | Skipped],
    output: Path,
    outputs: Collection[str],
    *,
    overwrite: bool,
) -> None:
    """Refuses to write results where something is that `predict` did not write.

    Args:
        files: whose results are written.
        inputs: all of the call.
        output: the folder.
        outputs: which results.
        overwrite: whether it is replaced, unless it is itself an input.

    Raises:
        UserError: there is something; the first of them are named.
    """
    paths = (target(output, f, what) for f in files if isinstance(f, File) for what in outputs)
    taken = sorted(path for path in paths if is_taken(path))
    if overwrite and taken:
        own = {_identity(file.path) for file in inputs if isinstance(file, File)}
        taken = [path for path in taken if path.exists() and _identity(path) in own]
    if taken:
        others = f" and {len(taken) - _NAMED} more" if len(taken) > _NAMED else ""
        why = (
            "it is to be segmented itself. Leave it out of --input, or name another folder."
            if overwrite
            else "predict did not write it. Move it, name another folder, or say --overwrite."
        )
        raise UserError(
            f"--output: {', '.join(map(str, taken[:_NAMED]))}{others} cannot be replaced: {why}"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _longest_name(output: Path) -> int:
    """How many bytes names have at most in a folder, which need not exist."""
    for folder in (output, *output.absolute().parents):
        try:
            return os.pathconf(folder, "PC_NAME_MAX")
        except OSError:
            continue
    return 255
