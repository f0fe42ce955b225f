"""Unsupervised object discovery in JAX/Flax.

    import objdisc_jax as od

    od.load("runs/demo").segment("photo.jpg").show()

What is public is imported when it is first used, so that this module alone imports next to nothing.
"""

import importlib
import importlib.metadata
import os
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


def _convolve_with_eigen() -> None:
    """Has XLA convolve with Eigen on CPUs, unless XLA_FLAGS says otherwise.

    By itself it takes YNNPACK, whose convolutions run on one thread where maps are small, take up
    to three times as long, and lose digits in sums over many pixels. XLA reads its flags when it is
    first used, and ends the program at one that it does not know: only versions known to have this
    one are asked.
    """
    flag, flags = "--xla_cpu_experimental_ynn_fusion_type", os.environ.get("XLA_FLAGS", "")
    if flag not in flags and importlib.metadata.version("jaxlib").startswith(("0.10.", "0.11.")):
        os.environ["XLA_FLAGS"] = f"{flags} {flag}=-individual_convolution".strip()


_convolve_with_eigen()


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
