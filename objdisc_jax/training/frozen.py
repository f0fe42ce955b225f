"""Frozen parts of a model: parameters that come from a file and are not trained."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from objdisc_jax import hub, run_files
from objdisc_jax.data.declaration import Field
from objdisc_jax.data.features import refuse_others
from objdisc_jax.errors import ConfigError, UserError
from objdisc_jax.files import write_atomically
from objdisc_jax.models import base
from objdisc_jax.training.weights import MisfitError, fitted

HUB_FILE = "model.safetensors"


class Frozen(NamedTuple):
    """The frozen parts of a model."""

    params: base.Params  # their parameters, by the part's name
    # Where each part comes from (`source`) and what was found there (`sha256`).
    sources: dict[str, dict[str, str]]


NONE = Frozen({}, {})


def load(model: base.Model, like: base.Params, *, loss: bool) -> Frozen:
    """Reads the frozen parts of a model from the files that it names.

    Args:
        model: the model, whose own parameters are not looked at.
        like: the parts' shapes.
        loss: whether the loss will be computed; without, `model.loss_only` parts are not read, but
            zeros.

    Raises:
        ConfigError: a file is missing, cannot be read, or holds other parameters.
    """
    params, sources = {}, {}
    for part, source in model.frozen.items():
        if part in model.loss_only and not loss:
            params[part] = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like[part])
            continue
        file = _find(part, source, _setting(model, source))
        try:
            found = model.load_frozen(part, file)
        except UserError:
            raise
        except Exception as error:  # safetensors, NumPy and the model each have errors of their own
            raise ConfigError(
                f"model: the frozen part {part!r} cannot be read from {file} ({error}). Name a "
                "sound file, or copy it anew."
            ) from error
        try:
            params[part] = fitted(found, like[part])
        except MisfitError as error:
            raise ConfigError(
                f"model: {file} does not fit the frozen part {part!r}:\n{error}\n"
                "Name the file of a part of this size and kind, or change the model's settings."
            ) from error
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        sources[part] = {"source": source, "sha256": digest}
    return Frozen(params, sources)


def record(parts: Frozen, workdir: Path) -> None:
    """Writes into a run directory where its model's frozen parts come from."""
    if parts.sources:
        write_atomically(workdir / run_files.FROZEN, json.dumps(parts.sources, indent=2) + "\n")


def check(parts: Frozen, workdir: Path) -> None:
    """Checks that frozen parts are those that a run was trained with, wherever they lie now."""
    file = workdir / run_files.FROZEN
    if not parts.sources:
        return
    if not file.is_file():
        raise UserError(
            f"workdir: the run in {workdir} does not tell which frozen parts it was trained with: "
            f"{file} is missing. Restore it, or train in another --workdir."
        )
    recorded = json.loads(file.read_text())
    for part, now in parts.sources.items():
        then = recorded.get(part, {})
        if then.get("sha256") != now["sha256"]:
            raise UserError(
                f"model: the frozen part {part!r} from {now['source']} is not the one that the run "
                f"in {workdir} was trained with, {then.get('source', 'none')}: its SHA-256 is "
                f"{now['sha256']}, that of the run {then.get('sha256')}. Restore that file, or "
                "train in another --workdir."
            )


def check_computed(
    parts: Frozen, model: base.Model, fields: Mapping[str, Field], path: Any
) -> None:
    """Checks that stored fields were computed with a model's own settings and frozen parts.

    Args:
        parts: the model's.
        model: names the fields that it reads.
        fields: what there is of every example of a data set, by name.
        path: of the file that has the computed ones.

    Raises:
        DataError: they were computed with others; says which.
    """
    for name in model.fields:
        stored = fields[name].computed_with
        if stored is not None:
            refuse_others(path, stored, computed_with(model, parts))


def computed_with(model: base.Model, parts: Frozen) -> dict[str, Any]:
    """What the fields of `model.encode_frozen` depend on beside the images, JSON."""
    files = {
        f"SHA-256 of {part}": found["sha256"]
        for part, found in parts.sources.items()
        if part not in model.loss_only
    }
    return {**model.encoding, "resolution": list(model.resolution), **files}


def _setting(model: base.Model, source: str) -> str:
    """The setting that names a source, or that does where nothing else is said."""
    names = [name for name, value in vars(model.settings).items() if value == source]
    return names[0] if names else "weights"


def _find(part: str, source: str, setting: str) -> Path:
    """The file of a source: a path, a folder, or REPOSITORY or REPOSITORY/FILE on the Hub."""
    file = Path(source).expanduser()
    if file.is_file():
        return file
    if (file / HUB_FILE).is_file():
        return file / HUB_FILE
    reason, (owner, _, rest) = "there is no such file", source.partition("/")
    repository, _, name = rest.partition("/")
    if file.is_dir():
        reason = (
            f"that folder has no {HUB_FILE} (objdisc convert to-pretrained makes a folder with one "
            "of a run)"
        )
    elif hub.is_repository(f"{owner}/{repository}"):
        try:
            return hub.download(f"{owner}/{repository}", name or HUB_FILE)
        except hub.HubError as error:
            reason += f", and {error}"
    raise ConfigError(
        f"model: the frozen part {part!r} comes from {source}, but {reason}. Restore the file, or "
        f"name where it lies (of a repository, {HUB_FILE}): --config.model.{setting}=FOLDER/FILE"
        f"{', --backbone FOLDER/FILE for predict' if setting == 'weights' else ''}."
    )
