"""Experiments as `--config` names them: a Python file whose `get_config` returns a ConfigDict."""

import importlib.util
import inspect
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from objdisc_jax.errors import ConfigError, UserError

MODULE = "config_config"
"""The name of the module that is made of the file."""


def load(argument: str) -> ConfigDict:
    """Loads an experiment, and locks it.

    Args:
        argument: the file, or `FILE:ARGUMENT` where its `get_config` takes one.

    Raises:
        UserError: there is no such file, it is no experiment, or it raises an error; that names
            the line.
    """
    name, colon, text = argument.partition(":")
    file = Path(name)
    _refuse_other_files(file)
    try:
        spec = importlib.util.spec_from_file_location(MODULE, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        get_config = getattr(module, "get_config", None)
        if not callable(get_config):
            raise ConfigError(
                f"--config: {file} defines no function get_config, which returns the experiment. "
                "configs/demo.py is an example."
            )
        arguments = [text] if colon else []
        _refuse_other_arguments(argument, inspect.signature(get_config), arguments)
        config = get_config(*arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        said = unknown_key(error) or f"{type(error).__name__}: {error}"
        raise ConfigError(f"--config: {_place(error, file)}{said}") from error
    if not isinstance(config, ConfigDict) or not {"model", "data"} <= {*config.keys()}:
        kind = "one without `model` and `data`" if isinstance(config, ConfigDict) else repr(config)
        raise ConfigError(
            f"--config: get_config of {file} must return a ConfigDict that "
            f"objdisc_jax.config.experiment has made, but returned {kind[:80]}."
        )
    config.lock()
    return config


def unknown_key(error: BaseException) -> str | None:
    """What is said of a ConfigDict's error about a key that it lacks; None of another error."""
    text = str(error).replace("\\", "")
    key = re.search(r"""['"](\w+)['"]""", text)
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    if not isinstance(error, AttributeError | KeyError) or not key:
        return None
    if "ml_collections" not in raised_in:
        return None
    meant = re.search(r"""Did you mean "(\w+)" instead""", text)
    return (
        f"there is no key '{key[1]}'"
        + (f" (did you mean '{meant[1]}'?)" if meant else "")
        + ". The keys are those of the model's Settings (objdisc_jax/models/NAME/settings.py), "
        "of the data set's default_config() and of objdisc_jax/config/defaults.py."
    )


def _refuse_other_files(file: Path) -> None:
    # Unlike pathlib's, these raise nothing, of names that are too long for example.
    if os.path.isfile(file) and file.suffix == ".py":
        return
    if os.path.isdir(file):
        found = "is a folder"
    elif os.path.exists(file):
        found = "is no Python file (*.py)"
    else:
        found = "does not exist"
        if os.path.isfile(file.with_suffix(".py")):
            found += f"; there is {file.with_suffix('.py')}"
    raise ConfigError(
        f"--config: {str(file)!r} {found}. It names an experiment, a Python file such as "
        "configs/demo.py; those of this project are in configs/. A run's own config (config.json) "
        "is used by --workdir RUN, in objdisc eval."
    )


def _refuse_other_arguments(named: str, signature: inspect.Signature, arguments: list[str]) -> None:
    try:
        signature.bind(*arguments)
    except TypeError:
        wanted = "leave out what follows the colon" if arguments else "name it: --config FILE.py:IT"
        raise ConfigError(
            f"--config: {named!r} names {'an' if arguments else 'no'} argument of get_config, but "
            f"that is get_config{signature}; {wanted}."
        ) from None


def _place(error: BaseException, file: Path) -> str:
    """Where in a config file an error was raised, and the line of code."""
    lines = [*_lines(error, file)]
    if not lines:
        return f"{file}: "
    number, code = lines[-1]
    return f"{file}, line {number}" + (f" ({code})" if code else "") + ": "


def _lines(error: BaseException, file: Path) -> Iterator[tuple[int | None, str | None]]:
    name = os.path.abspath(file)  # as the import system has it
    for frame in traceback.extract_tb(error.__traceback__):
        if os.path.abspath(frame.filename) == name:
            yield frame.lineno, frame.line
    if isinstance(error, SyntaxError) and os.path.abspath(error.filename or "") == name:
        yield error.lineno, (error.text or "").strip()
