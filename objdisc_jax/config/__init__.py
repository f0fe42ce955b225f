"""Experiments: composing a config, checking it, keeping it with a run; imports no JAX."""

from objdisc_jax.config.defaults import MUTABLE, check, group_config
from objdisc_jax.config.experiment import (
    check_resumable,
    differences,
    experiment,
    from_dict,
    load,
    model_block,
    save,
    to_dict,
)

__all__ = [
    "MUTABLE",
    "check",
    "check_resumable",
    "differences",
    "experiment",
    "from_dict",
    "group_config",
    "load",
    "model_block",
    "save",
    "to_dict",
]
