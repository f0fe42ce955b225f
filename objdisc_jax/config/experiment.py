"""Composing the config of an experiment, and keeping it with a run.

A config has the training keys (`defaults.py`), a `model` block made of the model's settings, and a
`data` block, whose defaults stand in the data set's file.
"""

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_dict

from objdisc_jax import models, run_files
from objdisc_jax.config import defaults
from objdisc_jax.data import datasets
from objdisc_jax.errors import ConfigError
from objdisc_jax.files import write_atomically
from objdisc_jax.names import flatten
from objdisc_jax.settings import Settings


def experiment(*, model: str, data: str) -> ConfigDict:
    """The default config of a model on a data set; an experiment states what differs.

    It has what the model's paper prescribes for training (`Settings.recommended`).

    Args:
        model: a model's name: a folder in `objdisc_jax/models`, or a module's dotted path.
        data: a data set's name: a file in `objdisc_jax/data/datasets`, or a module's dotted path.

    Raises:
        ConfigError: there is no such model or data set.
    """
    config = defaults.default_config()
    settings = models.settings_class(model)
    config.model = model_block(model, settings())
    config.data = datasets.get(data).default_config()
    config.data.name = data
    for key, value in settings.recommended.items():
        *path, last = key.split(".")
        block = config
        for name in path:
            block = block[name]
        block[last] = defaults.group_config(**value) if path[-1:] == ["groups"] else value
    if "resolution" in config.data:  # a set whose reader resizes, to the size that the model takes
        config.data.resolution = config.model.get_ref("resolution")
    config.lock()
    for key in defaults.OPEN:
        config.optimizer[key].unlock()
    return config


def model_block(name: str, settings: Settings) -> ConfigDict:
    """A model's name and its settings; those that are None can be set to their other type."""
    block = ConfigDict({"name": name})
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is None:
            (kind,) = (one for one in typing.get_args(hints[field.name]) if one is not type(None))
            value = config_dict.placeholder(typing.get_origin(kind) or kind)
        block[field.name] = value
    return block


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """A config as JSON holds it: tuples are lists, nothing is a reference."""
    return json.loads(config.to_json())


def from_dict(values: dict[str, Any]) -> ConfigDict:
    """The config that `to_dict` was given; keys it lacks get today's defaults.

    Raises:
        ConfigError: it names a model or data set that doesn't exist, or has an unknown key.
    """
    config = experiment(model=values["model"]["name"], data=values["data"]["name"])
    try:
        for key in defaults.OPEN:
            config.optimizer[key] = ConfigDict(values["optimizer"][key])
        config.update(values)
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"The saved config is of another version of objdisc_jax ({error}). Use that version, "
            "or train anew in another --workdir."
        ) from error
    return config


def save(config: ConfigDict, workdir: Path) -> None:
    """Writes the config into a run directory."""
    write_atomically(workdir / run_files.CONFIG, json.dumps(to_dict(config), indent=2) + "\n")


def load(workdir: Path) -> ConfigDict:
    """Reads the config of a run.

    Raises:
        ConfigError: the directory holds no run, or its config cannot be read.
    """
    file = workdir / run_files.CONFIG
    if not file.is_file():
        raise ConfigError(
            f"workdir: {workdir} holds no run ({file.name} is missing). Name the directory of a "
            "run, or train one: objdisc train --config configs/demo.py"
        )
    try:
        return from_dict(json.loads(file.read_text()))
    except (json.JSONDecodeError, KeyError) as error:
        raise ConfigError(
            f"{file} is not a config that this project wrote ({error}). Restore it from a backup, "
            "or start a new run in another directory."
        ) from error


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Keys at which two configs (as `to_dict` gives them) differ, as `{"a.b": "1 -> 2"}`."""
    old, new = flatten(old), flatten(new)
    return {
        key: f"{old.get(key)!r} -> {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }


def check_resumable(saved: ConfigDict, config: ConfigDict, workdir: Path) -> None:
    """Refuses to continue a run with a config that would make it another run.

    Raises:
        ConfigError: keys differ that must not; lists them.
    """
    changed = {
        key: change
        for key, change in differences(to_dict(saved), to_dict(config)).items()
        if not any(key == free or key.startswith(f"{free}.") for free in defaults.MUTABLE)
    }
    if changed:
        listing = "\n".join(f"  {key}: {change}" for key, change in changed.items())
        raise ConfigError(
            f"workdir: {workdir} holds a run of another config. These keys differ (saved -> now):\n"
            f"{listing}\nOnly {', '.join(defaults.MUTABLE)} may change when a run is continued. "
            "Take the saved values, or name another directory with --workdir."
        )
