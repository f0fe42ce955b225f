"""Where a parameter lies in the other framework: rules, read in both directions.

A rule is data: the path of a JAX leaf, the key of a PyTorch tensor, and the layout change between
them. `rules` makes those of a model from a table of names; `mapping.py` applies them.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Layout(NamedTuple):
    """How the axes of a JAX array become those of a PyTorch tensor."""

    # Axis i of the tensor is axis `axes[i]` of the array; None leaves all as they are.
    axes: tuple[int, ...] | None = None
    flipped: tuple[int, ...] = ()  # axes of the tensor that run backwards

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The tensor's shape for an array's; None if the number of axes is not the layout's."""
        if self.axes is None:
            return shape
        if len(self.axes) != len(shape):
            return None
        return tuple(shape[axis] for axis in self.axes)


SAME = Layout()
DENSE = Layout((1, 0))
"""[in, out] to [out, in]; the gates of a recurrent cell are stacked along `out` in one order."""
CONV = Layout((3, 2, 0, 1))
"""HWIO to OIHW."""
GRID = Layout((0, 3, 1, 2))
"""NHWC to NCHW."""
CONV_TRANSPOSE = Layout((2, 3, 0, 1), flipped=(2, 3))
"""HWIO of the equivalent correlation to IOHW: its kernel is turned by half a turn."""


class Rule(NamedTuple):
    """One parameter's place in both frameworks."""

    path: str  # names from the JAX model down to the leaf, joined by dots
    key: str  # the tensor's key in the `state_dict`
    layout: Layout  # what the JAX array goes through to become the tensor


Table = Sequence[tuple[str, str]]
"""Names in PyTorch, as regular expressions, and in JAX: see `rules`."""

Names = Sequence[tuple[str, str] | tuple[str, str, int]]
"""Beginnings of keys elsewhere and of ours: see `TorchModel.layouts`."""

_LAYOUTS = {nn.Linear: DENSE, nn.Conv2d: CONV, nn.ConvTranspose2d: CONV_TRANSPOSE}
_NORMS = (nn.GroupNorm, nn.LayerNorm)
_CELL = {"weight_ih": "input.kernel", "bias_ih": "input.bias", "bias": "input.bias"}
_CELL |= {"weight_hh": "hidden.kernel", "bias_hh": "hidden.bias"}


def rules(model: nn.Module, table: Table) -> list[Rule]:
    """Where every parameter of a PyTorch model is in the JAX model.

    What a parameter is called within its module, and its layout, follow from the kind of module.

    Args:
        model: the PyTorch model.
        table: regular expressions that match the whole name of a module, or else of a parameter,
            with what it is called in the JAX model; the first that matches counts, and what none
            matches has the same name there. `{n}` stands for the module's number among the layers,
            or the norms, of its `torch.nn.Sequential`, `{kind}` for "layers" or "norms".
    """
    found = []
    for name, module in model.named_modules():
        for parameter, tensor in module.named_parameters(recurse=False):
            key = f"{name}.{parameter}".lstrip(".")
            leaf, layout = _leaf(module, parameter, tensor)
            place = _translated(name, table)
            if place is None and (whole := _translated(key, table)):
                path = whole
            else:
                place = _numbered(model, name, module, name if place is None else place)
                path = f"{place}.{leaf}".lstrip(".")
            found.append(Rule(path, key, layout))
    return found


def _leaf(module: nn.Module, parameter: str, tensor: Tensor) -> tuple[str, Layout]:
    """What a parameter is called in the JAX module, and its layout."""
    if isinstance(module, nn.RNNCellBase):
        return _CELL[parameter], DENSE if parameter.startswith("weight") else SAME
    if isinstance(module, _NORMS):
        return {"weight": "scale"}.get(parameter, parameter), SAME
    for kind, layout in _LAYOUTS.items():
        if isinstance(module, kind):
            return ("kernel", layout) if parameter == "weight" else (parameter, SAME)
    return parameter, GRID if tensor.ndim == 4 else SAME


def _translated(name: str, table: Table) -> str | None:
    for pattern, place in table:
        if match := re.fullmatch(pattern, name):
            return match.expand(place)
    return None


def _numbered(model: nn.Module, name: str, module: nn.Module, place: str) -> str:
    """Fills in `{kind}` and `{n}`."""
    parent, _, own = name.rpartition(".")
    is_norm = isinstance(module, _NORMS)
    siblings = [
        child
        for child, other in model.get_submodule(parent).named_children()
        if isinstance(other, _NORMS) == is_norm and any(True for _ in other.parameters())
    ]
    number = str(siblings.index(own)) if own in siblings else ""
    return place.replace("{kind}", "norms" if is_norm else "layers").replace("{n}", number)
