"""Things found by name: a module of one of our packages, or any other by its dotted path."""

import importlib
import importlib.util
from types import ModuleType
from typing import TypeVar

from objdisc_jax.errors import ConfigError
from objdisc_jax.names import closest

Kind = TypeVar("Kind")


def module(name: str, *, package: str, what: str, key: str, known: list[str]) -> ModuleType:
    """The module of a thing.

    Args:
        name: a module of `package`, or one from elsewhere by its dotted path.
        package: where ours are, such as `objdisc_jax.models`.
        what: is looked for, as an error calls it: "model".
        key: the config's key that names it.
        known: the names of ours.

    Raises:
        ConfigError: there is no such module; lists those there are.
    """
    path = f"{package}.{name}" if name in known else name
    if path.split(".")[0].isidentifier() and _exists(path):
        return importlib.import_module(path)
    raise ConfigError(
        f"{key}: there is no {what} {name!r}{closest(name, known)}. Ours are {', '.join(known)}. "
        "One from elsewhere is named by the path of its module, such as my_package.my_module, "
        "which Python must find: install the package, or add its folder to PYTHONPATH."
    )


def submodule(parent: ModuleType, name: str) -> ModuleType:
    """A module of a package, or the module itself where all is in one file."""
    path = f"{parent.__name__}.{name}"
    return (
        importlib.import_module(path) if hasattr(parent, "__path__") and _exists(path) else parent
    )


def class_in(module: ModuleType, base: type[Kind]) -> type[Kind] | None:
    """The class that a module offers: the one subclass of `base` which it defines.

    Where it defines none, an imported one counts. Of classes that build on each other it is the
    last; None where there is none.

    Raises:
        ConfigError: there are several.
    """
    found = {
        member
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, base) and member is not base
    }
    own = {member for member in found if member.__module__ == module.__name__} or found
    last = [one for one in own if not any(one in other.__mro__[1:] for other in own)]
    if len(last) > 1:
        raise ConfigError(
            f"{module.__name__} defines several subclasses of {base.__name__}: "
            f"{', '.join(sorted(one.__name__ for one in last))}. Put each into a module of its own."
        )
    return last[0] if last else None


def _exists(path: str) -> bool:
    try:
        return importlib.util.find_spec(path) is not None
    except ModuleNotFoundError:  # of a package above it
        return False
