"""The data sets, found by name: a file here, or a module from elsewhere by its dotted path.

Each module offers

- `default_config() -> ConfigDict`: every key with its default and a comment, on top of
  `objdisc_jax.data.config.shared_config`;
- `declare(config) -> DatasetDeclaration`: the data set that such a configuration describes;
- `write_example(path, num_images=24, **changes) -> Example`: writes a small one, for tests.
  `objdisc_jax.data.examples` has what is needed for that.
"""

import pkgutil
from pathlib import Path
from typing import Any, Protocol, cast

import ml_collections

from objdisc_jax import registry
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.examples import Example


class DatasetModule(Protocol):
    """What the module of a data set offers."""

    def default_config(self) -> ml_collections.ConfigDict:
        """Returns every key with its default."""
        ...

    def declare(self, config: ml_collections.ConfigDict) -> DatasetDeclaration:
        """Returns the data set that a configuration describes."""
        ...

    def write_example(self, path: Path, num_images: int = 24, **changes: Any) -> Example:
        """Writes a small data set, as `default_config()` with that path and changes describes."""
        ...


def names() -> list[str]:
    """Returns the names of the data sets that come along, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> DatasetModule:
    """Returns the module of a data set.

    Raises:
        ConfigError: there is no such data set; lists those there are.
    """
    found = registry.module(name, package=__name__, what="data set", key="data.name", known=names())
    return cast(DatasetModule, found)
