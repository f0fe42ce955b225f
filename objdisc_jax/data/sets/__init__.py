"""The data sets, one module each, found by name: a new file here is a new data set.

Each module offers

- `default_config() -> ConfigDict`: every key with its default and a comment, on top of
  `objdisc_jax.data.config.shared_config`;
- `declare(config) -> DatasetDeclaration`: the data set that such a configuration describes.
"""

import importlib
import pkgutil
from typing import Protocol, cast

import ml_collections

from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError
from objdisc_jax.names import closest


class DatasetModule(Protocol):
    """What a module in this package offers."""

    def default_config(self) -> ml_collections.ConfigDict:
        """Returns every key with its default."""
        ...

    def declare(self, config: ml_collections.ConfigDict) -> DatasetDeclaration:
        """Returns the data set that a configuration describes."""
        ...


def names() -> list[str]:
    """Returns the names of all data sets, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> DatasetModule:
    """Returns the module of a data set; a `DataError` lists the alternatives if there is none."""
    known = names()
    if name not in known:
        raise DataError(
            f"There is no data set '{name}'{closest(name, known)}. "
            f"Set config.data.name to one of: {', '.join(known)}."
        )
    return cast(DatasetModule, importlib.import_module(f"{__name__}.{name}"))
