"""Parameters from one framework to the other: the engine that reads a model's rules."""

import collections
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from objdisc_jax.errors import UserError
from objdisc_jax.interop.base import TorchModel
from objdisc_jax.interop.layouts import Layout, Names
from objdisc_jax.names import flatten, unflatten

BUFFER_TOLERANCE = 1e-4
_WRAPPERS = re.compile(r"(?:(?:module|_orig_mod|model)\.)*")


class MappingError(UserError):
    """Parameters and model do not fit; the message lists every problem."""

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(f"  {problem}" for problem in problems))


class Own(NamedTuple):
    """What a weight file holds of a model, and what else."""

    state: dict[str, Tensor]  # by the model's keys
    left_out: list[str]  # the file's other keys


def from_layout(state: Mapping[str, Tensor], model: TorchModel) -> dict[str, Tensor]:
    """A file's tensors under the model's own keys, where a project's layout is recognised.

    It is the one that most of the keys are of, wrappers' names aside; if more are the model's own,
    all stay.
    """
    found = {
        name: [_renamed(_bare(key), table) for key in state]
        for name, table in model.layouts.items()
    }
    known = model.state_dict().keys()
    fitting = {name: sum(new in known for new, _ in keys) for name, keys in found.items()}
    best = max(fitting, key=lambda name: fitting[name], default=None)
    already = sum(_bare(key) in known for key in state)
    if best is None or fitting[best] <= already:
        return dict(state)
    return {
        new if new in known else key: _with_axes(tensor, -axes if new in known else 0)
        for (key, tensor), (new, axes) in zip(state.items(), found[best], strict=True)
    }


def to_layout(state: Mapping[str, Tensor], model: TorchModel, layout: str) -> dict[str, Tensor]:
    """The model's tensors under the keys of a project that publishes weights.

    Raises:
        UserError: the model has no such layout.
    """
    if layout not in model.layouts:
        allowed = ", ".join(model.layouts) or "none: it has but one"
        raise UserError(f"--layout: got {layout!r}; of this model there are {allowed}.")
    back = [(ours, theirs, sum(axes)) for theirs, ours, *axes in model.layouts[layout]]
    renamed = {key: _renamed(key, back) for key in state}
    return {new: _with_axes(state[key], axes) for key, (new, axes) in renamed.items()}


def _with_axes(tensor: Tensor, count: int) -> Tensor:
    """A tensor with so many more axes in front, of one; fewer if negative."""
    return tensor.flatten(0, -count) if count < 0 else tensor[(None,) * count]


def _bare(key: str) -> str:
    """A key without the names of wrappers before it."""
    wrappers = _WRAPPERS.match(key)
    return key[wrappers.end() :] if wrappers else key


def _renamed(key: str, table: Names) -> tuple[str, int]:
    """A key with its longest beginning that a table has replaced, and how many axes that adds.

    Whole names only.
    """
    for old, new, *axes in sorted(table, key=lambda entry: -len(entry[0])):
        if key == old or key.startswith(f"{old}."):
            return new + key[len(old) :], sum(axes)
    return key, 0


def own(state: Mapping[str, Tensor], model: TorchModel) -> Own:
    """Picks a model's tensors out of a file, in which they may lie deeper.

    A training program that wraps its model puts the wrapper's name in front of every key: `module.`
    (several devices), `_orig_mod.` (compiled), `model.` (Lightning), or several of these. Of such
    beginnings the one is taken that most of the model's keys have.

    Args:
        state: the file's tensors by key.
        model: the PyTorch model.

    Raises:
        MappingError: the file holds the model several times, and not the same.
    """
    keys = list(model.state_dict())
    chains = {_WRAPPERS.match(key)[0] for key in state}  # pyright: ignore[reportOptionalSubscript]
    prefixes = {""}
    for chain in chains:
        parts = chain.split(".")[:-1]
        prefixes |= {"".join(f"{part}." for part in parts[:n]) for n in range(1, len(parts) + 1)}
    found = {
        prefix: {key: state[prefix + key] for key in keys if prefix + key in state}
        for prefix in sorted(prefixes, key=len)
    }
    prefix = max(found, key=lambda prefix: len(found[prefix]))  # the shortest of several
    chosen = found[prefix]
    for other, tensors in found.items():
        is_twin = other != prefix and tensors.keys() == chosen.keys() and chosen
        if is_twin and not all(torch.equal(tensors[key], chosen[key]) for key in chosen):
            raise MappingError(
                [
                    f"the file holds this model twice, with different weights: as {start + key!r} "
                    "and so on"
                    for start in (prefix, other)
                    for key in list(chosen)[:1]
                ]
            )
    return Own(chosen, sorted(state.keys() - {prefix + key for key in chosen}))


def deeper(state: Mapping[str, Tensor], model: TorchModel) -> str | None:
    """What stands before most of a model's keys in a file where `own` finds none, if anything."""
    keys = set(model.state_dict())
    ends = ((key, dot.end()) for key in state for dot in re.finditer(r"\.", key))
    found = collections.Counter(key[:end] for key, end in ends if key[end:] in keys)
    return found.most_common(1)[0][0] if found else None


def to_torch(params: Mapping[str, Any], model: TorchModel) -> dict[str, Tensor]:
    """The model's `state_dict` with the parameters of its JAX counterpart.

    Buffers are those that the model has computed.

    Args:
        params: the JAX parameters, nested dictionaries of arrays.
        model: the PyTorch model; it is not changed.

    Raises:
        MappingError: a parameter has no rule or no counterpart, or another shape.
    """
    leaves = flatten(params)
    state = dict(model.state_dict())
    parameters = {key: tensor for key, tensor in state.items() if key not in _buffers(model)}
    if problems := _misfits(model, leaves, parameters):
        raise MappingError(problems)
    for rule in model.rules():
        array = array_to_torch(np.asarray(leaves[rule.path]), rule.layout)
        state[rule.key] = torch.from_numpy(np.array(array, np.float32, order="C"))
    return state


def to_jax(
    state: Mapping[str, Tensor], model: TorchModel, like: Mapping[str, Any]
) -> dict[str, Any]:
    """The JAX parameters of a `state_dict`, nested as `like` is, float32.

    Buffers may be missing; those there are must hold what the model computes.

    Args:
        state: tensors by key.
        model: the PyTorch model that they should fit.
        like: the JAX parameters, or anything that has their structure and shapes.

    Raises:
        MappingError: keys are missing or unknown, shapes differ, numbers are not finite.
    """
    leaves = flatten(like)
    buffers = _buffers(model)
    parameters = {key: tensor for key, tensor in state.items() if key not in buffers}
    problems = _misfits(model, leaves, parameters)
    for key, tensor in state.items():
        if key in buffers:
            if not _is_computed(tensor, key, buffers[key], model.annealed):
                problems.append(f"{key}: is not the constant that this model has there")
        elif not tensor.is_floating_point():
            problems.append(f"{key}: holds {tensor.dtype}, not floating-point numbers")
        elif not tensor.isfinite().all():
            problems.append(f"{key}: holds numbers that are not finite")
    if problems:
        raise MappingError(problems)
    arrays = {
        rule.path: np.array(array_to_jax(state[rule.key].float().numpy(), rule.layout), order="C")
        for rule in model.rules()
    }
    return unflatten(like, lambda path, _: arrays[path])


def array_to_torch(array: np.ndarray, layout: Layout) -> np.ndarray:
    """A JAX array in PyTorch's layout."""
    array = array if layout.axes is None else array.transpose(layout.axes)
    return np.flip(array, layout.flipped)


def array_to_jax(array: np.ndarray, layout: Layout) -> np.ndarray:
    """The inverse of `array_to_torch`."""
    array = np.flip(array, layout.flipped)
    return array if layout.axes is None else array.transpose(np.argsort(layout.axes))


def _misfits(
    model: TorchModel, leaves: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> list[str]:
    """What is wrong between JAX leaves and PyTorch parameters according to the rules."""
    rules = model.rules()
    paths, keys = {rule.path for rule in rules}, {rule.key for rule in rules}
    problems = [f"{key}: is missing" for key in sorted(keys - tensors.keys())]
    problems += [f"{key}: is not a key of this model" for key in sorted(tensors.keys() - keys)]
    problems += [f"{path}: has no rule (JAX)" for path in sorted(leaves.keys() - paths)]
    problems += [f"{path}: is missing (JAX)" for path in sorted(paths - leaves.keys())]
    for rule in rules:
        if rule.path in leaves and rule.key in tensors:
            here = rule.layout.torch_shape(tuple(leaves[rule.path].shape))
            there = tuple(tensors[rule.key].shape)
            if here != there:
                problems.append(f"{rule.key}: has shape {list(there)}, not {list(here or ())}")
    return problems


def _buffers(model: TorchModel) -> dict[str, Tensor]:
    return dict(model.named_buffers())


def _is_computed(found: Tensor, key: str, own: Tensor, annealed: tuple[str, ...]) -> bool:
    if key.rpartition(".")[2] in annealed:
        return True
    if found.shape != own.shape:
        return False
    rounding = torch.finfo(found.dtype).eps if found.is_floating_point() else 0.0
    tolerance = max(BUFFER_TOLERANCE, rounding)
    return torch.allclose(found.float(), own.float(), rtol=0, atol=tolerance)
