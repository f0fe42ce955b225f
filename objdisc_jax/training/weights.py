"""Parameters in safetensors files: arrays by their names, as in "encoder.layers.0.kernel"."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from objdisc_jax.files import write_atomically
from objdisc_jax.models import base
from objdisc_jax.names import flatten, unflatten

_MOST_PROBLEMS = 12  # that are listed of a file
_STEP = "step"


class MisfitError(Exception):
    """A file cannot be read, or does not hold the parameters asked for; lists what is wrong."""


def write(file: Path, params: base.Params, step: int) -> None:
    """Writes parameters and the training step that they are of.

    Raises:
        OSError: the file cannot be written.
    """
    arrays = {name: np.asarray(value) for name, value in flatten(jax.device_get(params)).items()}
    write_atomically(file, save(arrays, {_STEP: str(step)}))


def read(file: Path, like: base.Params) -> tuple[base.Params, int]:
    """Reads what `write` wrote.

    Args:
        file: the file.
        like: names, shapes and types of the parameters.

    Returns:
        The parameters, nested and of the types of `like`, and the training step.

    Raises:
        MisfitError: the file cannot be read, or holds other parameters.
    """
    try:
        with safe_open(file, "np") as content:
            found = {name: content.get_tensor(name) for name in content.keys()}
            step = (content.metadata() or {}).get(_STEP, "")
    except (OSError, SafetensorError) as error:
        raise MisfitError(f"  it cannot be read ({error})") from error
    if not step.isdecimal():
        raise MisfitError("  it does not tell the training step of its parameters")
    return fitted(found, like), int(step)


def fitted(found: Mapping[str, Any], like: base.Params) -> base.Params:
    """Arrays by name, nested and of the types of `like`; every one is accounted for.

    Raises:
        MisfitError: names or shapes are others.
    """
    wanted = flatten(like)
    problems = [f"  {name}: is missing" for name in sorted(wanted.keys() - found.keys())]
    problems += [f"  {name}: is no parameter" for name in sorted(found.keys() - wanted.keys())]
    problems += [
        f"  {name}: has shape {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & found.keys())
        if tuple(found[name].shape) != tuple(wanted[name].shape)
    ]
    if len(problems) > _MOST_PROBLEMS:
        problems[_MOST_PROBLEMS:] = [f"  and {len(problems) - _MOST_PROBLEMS} more"]
    if problems:
        raise MisfitError("\n".join(problems))
    return unflatten(like, lambda name, shape: jnp.asarray(found[name], shape.dtype))
