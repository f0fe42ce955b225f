"""The models in PyTorch, and the way of weights between the two frameworks.

    from objdisc_jax import interop

    model = interop.create(config["model"])  # the model block of a run's config.json

A model is one file here with the name of its file in `objdisc_jax/models/`: a `TorchModel` and the
rules that place its parameters. Nothing here imports JAX, and the models need PyTorch alone.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, cast

from objdisc_jax.errors import UserError
from objdisc_jax.interop.base import TorchModel
from objdisc_jax.names import closest


def names() -> list[str]:
    """Names of the models that have a PyTorch counterpart: the files here that hold one."""
    return sorted(name for name in _files() if _classes(name))


def get(name: str) -> type[TorchModel]:
    """The class of a model.

    Raises:
        UserError: there is no such model; lists those there are.
    """
    if name not in _files() or not (found := _classes(name)):
        raise UserError(
            f"model.name: there is no PyTorch counterpart of {name!r}{closest(name, names())}. "
            f"There are {', '.join(names())}."
        )
    return found[0]


def create(block: Mapping[str, Any]) -> TorchModel:
    """Builds a model with fresh parameters.

    Args:
        block: the model block of a run's config: `name` and the arguments of the class.

    Raises:
        UserError: there is no such model.
    """
    settings = dict(block)
    return cast(Callable[..., TorchModel], get(settings.pop("name")))(**settings)


def _files() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]


def _classes(file: str) -> list[type[TorchModel]]:
    module = importlib.import_module(f"{__name__}.{file}")
    return [
        member
        for member in vars(module).values()
        if isinstance(member, type)
        and issubclass(member, TorchModel)
        and member is not TorchModel
        and member.__module__ == module.__name__
    ]
