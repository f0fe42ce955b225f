"""The models in PyTorch, and the way of weights between the two frameworks.

    from objdisc_jax import interop

    model = interop.create(config["model"])  # the model block of a run's config.json

A model's module here has the name of its folder in `objdisc_jax/models/`; that of a model from
elsewhere is a module `torch_model` in its package, or its own file. It has a `TorchModel` and the
rules that place its parameters. Models need none. Nothing here imports JAX, and the modules need
PyTorch alone.
"""

import importlib.util
from collections.abc import Mapping
from typing import Any

from objdisc_jax import models, registry
from objdisc_jax.errors import UserError
from objdisc_jax.interop.base import TorchModel


def has(name: str) -> bool:
    """Whether a model has a PyTorch module."""
    return _find(name) is not None


def get(name: str) -> type[TorchModel]:
    """The class of a model.

    Raises:
        ConfigError: there is no such model.
        UserError: it has no PyTorch module; lists the models that do.
    """
    if (found := _find(name)) is None:
        raise UserError(
            f"model.name: the model {name!r} has no PyTorch module; of ours, "
            f"{', '.join(filter(has, models.names()))} have. Its weights stay with its run."
        )
    return found


def create(block: Mapping[str, Any]) -> TorchModel:
    """Builds a model with fresh parameters.

    Args:
        block: the model block of a run's config: `name` and the fields of the model's settings.

    Raises:
        UserError: as `get`, or a setting is not allowed.
    """
    return get(block["name"])(models.settings_of(block))


def _find(name: str) -> type[TorchModel] | None:
    if name in models.names():
        path = f"{__name__}.{name}"
        if importlib.util.find_spec(path) is None:
            return None
        module = importlib.import_module(path)
    else:
        module = registry.submodule(models.get(name), "torch_model")
    return registry.class_in(module, TorchModel)
