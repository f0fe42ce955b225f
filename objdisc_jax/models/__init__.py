"""The models, found by the name of their file."""

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

from flax import nnx

from objdisc_jax.errors import ConfigError
from objdisc_jax.models.base import Model
from objdisc_jax.names import closest


def names() -> list[str]:
    """Names of all models: the files of this package that hold one."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base")


def get(name: str) -> ModuleType:
    """The module of a model, which holds its class and its `default_config()`.

    Raises:
        ConfigError: there is no such model; lists those there are.
    """
    if name not in names():
        raise ConfigError(
            f"model.name: there is no model {name!r}{closest(name, names())}. "
            f"Models: {', '.join(names())}."
        )
    return importlib.import_module(f"{__name__}.{name}")


def model_class(name: str) -> type[Model]:
    """The class of a model.

    Raises:
        ConfigError: there is no such model.
    """
    module = get(name)
    (found,) = (
        member
        for member in vars(module).values()
        if isinstance(member, type)
        and issubclass(member, Model)
        and member.__module__ == module.__name__
    )
    return found


def create(name: str, settings: dict[str, Any], *, rngs: nnx.Rngs) -> Model:
    """Builds a model from its block of the config.

    Args:
        name: name of the model.
        settings: the block's other keys, the arguments of the model's class.
        rngs: source of the initial parameters.

    Raises:
        ValueError: settings that the model refuses.
        ConfigError: there is no such model.
    """
    return cast(Callable[..., Model], model_class(name))(**settings, rngs=rngs)
