"""The models, found by name: a folder here, or a module from elsewhere by its dotted path.

A model is a `Settings` (objdisc_jax/settings.py), which imports neither JAX nor torch, and a
`Model` (objdisc_jax/models/base.py). A folder has them in `settings.py` and `model.py`; a single
file may hold both. Nothing here imports JAX before a
model itself is asked for.
"""

import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from objdisc_jax import registry
from objdisc_jax.errors import ConfigError
from objdisc_jax.names import closest
from objdisc_jax.settings import Settings

if TYPE_CHECKING:
    from flax import nnx

    from objdisc_jax.models.base import Model


def names() -> list[str]:
    """Names of the models that come along: the folders here."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def get(name: str) -> ModuleType:
    """The package or module of a model.

    Raises:
        ConfigError: there is no such model; lists those there are.
    """
    return registry.module(name, package=__name__, what="model", key="model.name", known=names())


def settings_class(name: str) -> type[Settings]:
    """The settings of a model.

    Raises:
        ConfigError: there is no such model, or it has no settings.
    """
    return _class(name, "settings", Settings)


def model_class(name: str) -> "type[Model]":
    """The class of a model.

    Raises:
        ConfigError: there is no such model.
    """
    from objdisc_jax.models.base import Model

    return _class(name, "model", Model)


def settings_of(block: Any) -> Settings:
    """The settings that a config's `model` block, a ConfigDict or a mapping, states.

    Raises:
        ConfigError: there is no such model, or a setting is unknown or not allowed.
    """
    values = dict(block)
    return settings_class(values.pop("name")).from_dict(values)


def changed_settings(block: Any, changes: Mapping[str, Any]) -> Settings:
    """The settings of a trained model with some of them changed, parameters keeping their shapes.

    Args:
        block: the `model` block of its config.
        changes: settings by name; with `resolution` go those that it takes along.

    Raises:
        ConfigError: the model has no such setting, or one is not allowed.
    """
    for name in changes:
        if name not in block:
            raise ConfigError(
                f"The model {block['name']!r} has no setting {name!r}{closest(name, list(block))}. "
                "Leave it out."
            )
    changed = settings_of({**dict(block), **changes})
    trained = settings_of({**dict(block), **changes, "resolution": block["resolution"]})
    return changed if changed == trained else trained.resized(changed.resolution)


def create(block: Any, *, rngs: "nnx.Rngs") -> "Model":
    """Builds the model of a config's `model` block, with initial parameters from `rngs`.

    Raises:
        ConfigError: as `settings_of`.
    """
    return model_class(block["name"])(settings_of(block), rngs=rngs)


def _class(name: str, part: str, base: type[registry.Kind]) -> type[registry.Kind]:
    module = registry.submodule(get(name), part)
    found = registry.class_in(module, base)
    if found is None:
        raise ConfigError(
            f"model.name: {module.__name__} has no subclass of {base.__module__}.{base.__name__}, "
            "so it is no model. Define one there, or correct the name."
        )
    return found
