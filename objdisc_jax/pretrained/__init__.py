"""Trained models that come along: a folder each, in the form of a repository of the Hub.

    model.safetensors  the parameters, by their names in the model, and their training step
    config.json        the experiment that they were trained with
    frozen.json        where the model's frozen parts come from, if it has any
    scores.json        what was measured, on what, with which commit
    README.md          the model card
    samples            images to try it on, if there are any

`objdisc convert to-pretrained` makes such a folder of a run. Wherever a run directory
can be named, one of these can be, by its name here, its path, or its repository on the Hub.
"""

import os
from pathlib import Path

from objdisc_jax import hub, run_files
from objdisc_jax.errors import UserError
from objdisc_jax.names import closest

WEIGHTS = "model.safetensors"
CONFIG = run_files.CONFIG
SCORES = "scores.json"
CARD = "README.md"
SAMPLES = "samples"
FROZEN = run_files.FROZEN
_HERE = Path(__file__).parent


def names() -> list[str]:
    """Names of the models that come along."""
    return sorted(file.parent.name for file in _HERE.glob(f"*/{WEIGHTS}"))


def find(source: str) -> Path:
    """The folder of a trained model; a repository's is downloaded into the Hub's cache.

    Args:
        source: a name of `names`, a folder, or OWNER/NAME on the Hugging Face Hub.

    Raises:
        UserError: there is no such model; lists those that come along.
    """
    folder = Path(source).expanduser()
    if (folder / WEIGHTS).is_file():
        return folder
    if source in names():
        return _HERE / source
    reason = f"there is no {folder / WEIGHTS}"
    if (folder / CONFIG).is_file():
        reason += f" ({folder} seems to be a run directory: name it with --workdir)"
    if not folder.exists() and hub.is_repository(source):
        try:
            hub.download(source, CONFIG)
            found = hub.download(source, WEIGHTS).parent
        except hub.HubError as error:
            reason += f", and {error}"
        else:
            try:
                hub.download(source, FROZEN)
            except hub.HubError:
                pass  # a model without frozen parts
            return found
    raise UserError(
        f"There is no trained model {source!r}{closest(source, names())}: {reason}. Name a run "
        f"directory, one of those that come along ({', '.join(names())}), a folder that `objdisc "
        "convert to-pretrained` made, or a repository on the Hugging Face Hub."
    )


def locate(source: str | os.PathLike[str]) -> Path:
    """The folder of a trained model: any that exists, a run directory say, or what `find` finds.

    Raises:
        UserError: there is no such model.
    """
    folder = Path(source).expanduser()
    if (folder / CONFIG).is_file() or (folder.is_dir() and os.fspath(source) not in names()):
        return folder
    return find(os.fspath(source))


def is_pretrained(folder: Path) -> bool:
    """Whether a folder is a pretrained model's, and so no place to write to."""
    return (folder / WEIGHTS).is_file()
