"""The data sets, found by name: a file here, or a module from elsewhere by its dotted path.

`DatasetModule` is what each of them offers.
"""

import pkgutil
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from ml_collections import ConfigDict

from objdisc_jax import registry
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.examples import Example
from objdisc_jax.errors import ConfigError


@runtime_checkable
class DatasetModule(Protocol):
    """What the module of a data set offers."""

    def default_config(self) -> ConfigDict:
        """Returns every key with its default and a comment, on top of those of `data.config`."""
        ...

    def declare(self, config: ConfigDict) -> DatasetDeclaration:
        """Returns the data set that a configuration describes."""
        ...

    def write_example(self, path: Path, num_images: int = 24, **changes: Any) -> Example:
        """Writes a small one, as `default_config()` with that path and changes describes it.

        `objdisc_jax.data.examples` has what is needed for that.
        """
        ...


def names() -> list[str]:
    """Returns the names of the data sets that come along, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> DatasetModule:
    """Returns the module of a data set; a `ConfigError` lists those there are."""
    found = registry.module(name, package=__name__, what="data set", key="data.name", known=names())
    for needed in ("default_config", "declare"):
        if not hasattr(found, needed):
            raise ConfigError(f"data.name: the module {name} has no {needed}(), so is no data set.")
    return cast(DatasetModule, found)
