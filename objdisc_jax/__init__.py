"""Unsupervised object discovery in JAX/Flax.

    import objdisc_jax as od

    od.load("runs/demo").segment("photo.jpg").show()

What is public is imported when it is first used, so that this module alone imports nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from objdisc_jax.api import Segmentation, Trained, load
    from objdisc_jax.config import experiment
    from objdisc_jax.data.datasets import names as list_datasets
    from objdisc_jax.models import names as list_models
    from objdisc_jax.pretrained import names as list_pretrained
    from objdisc_jax.training.evaluate import evaluate
    from objdisc_jax.training.loop import train

__version__ = "0.1.0"
__all__ = [
    "Segmentation",
    "Trained",
    "evaluate",
    "experiment",
    "list_datasets",
    "list_models",
    "list_pretrained",
    "load",
    "train",
]

_PUBLIC = {
    "Segmentation": ("api", "Segmentation"),
    "Trained": ("api", "Trained"),
    "evaluate": ("training.evaluate", "evaluate"),
    "experiment": ("config", "experiment"),
    "list_datasets": ("data.datasets", "names"),
    "list_models": ("models", "names"),
    "list_pretrained": ("pretrained", "names"),
    "load": ("api", "load"),
    "train": ("training.loop", "train"),
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
