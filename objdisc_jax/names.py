"""Names: the full ones of nested values, and suggestions for mistyped ones."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def closest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x' or 'y'?)` for the nearest known names, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings by their full names: `{"a": {"b": 1}}` gives `{"a.b": 1}`."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def unflatten(
    like: Mapping[Any, Any], value: Callable[[str, Any], Any], prefix: str = ""
) -> dict[Any, Any]:
    """Mappings nested as `like`, with `value(full name, value there)` in place of every value."""
    return {
        name: unflatten(child, value, f"{prefix}{name}.")
        if isinstance(child, Mapping)
        else value(f"{prefix}{name}", child)
        for name, child in like.items()
    }
