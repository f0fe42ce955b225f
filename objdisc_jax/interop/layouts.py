"""Where a parameter lies in the other framework: rules, read in both directions.

A rule is data: the path of a JAX leaf, the key of a PyTorch tensor, and the layout change between
them. `mapping.py` applies the rules.
"""

from typing import NamedTuple


class Layout(NamedTuple):
    """How the axes of a JAX array become those of a PyTorch tensor.

    Attributes:
        axes: axis i of the tensor is axis `axes[i]` of the array; None leaves all as they are.
        flipped: axes of the tensor that run backwards.
    """

    axes: tuple[int, ...] | None = None
    flipped: tuple[int, ...] = ()

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The tensor's shape for an array's; None if the number of axes is not the layout's."""
        if self.axes is None:
            return shape
        if len(self.axes) != len(shape):
            return None
        return tuple(shape[axis] for axis in self.axes)


SAME = Layout()
DENSE = Layout((1, 0))
"""[in, out] to [out, in]; a GRU's gates are stacked along `out` in the order r, z, n in both."""
CONV = Layout((3, 2, 0, 1))
"""HWIO to OIHW."""
GRID = Layout((0, 3, 1, 2))
"""NHWC to NCHW."""
CONV_TRANSPOSE = Layout((2, 3, 0, 1), flipped=(2, 3))
"""HWIO of the equivalent correlation to IOHW: its kernel is turned by half a turn."""


class Rule(NamedTuple):
    """One parameter's place in both frameworks.

    Attributes:
        path: names from the JAX model down to the leaf, joined by dots.
        key: the tensor's key in the `state_dict`.
        layout: what the JAX array goes through to become the tensor.
    """

    path: str
    key: str
    layout: Layout


def weight_and_bias(path: str, key: str, layout: Layout) -> list[Rule]:
    """The two parameters of a linear layer or a convolution."""
    return [
        Rule(f"{path}.kernel", f"{key}.weight", layout),
        Rule(f"{path}.bias", f"{key}.bias", SAME),
    ]


def scale_and_bias(path: str, key: str) -> list[Rule]:
    """The two parameters of a LayerNorm or GroupNorm."""
    return [
        Rule(f"{path}.scale", f"{key}.weight", SAME),
        Rule(f"{path}.bias", f"{key}.bias", SAME),
    ]


def gru(path: str, key: str) -> list[Rule]:
    """The four parameters of a GRU cell; its two biases stay apart."""
    return [
        rule
        for side, name in (("ih", "input"), ("hh", "hidden"))
        for rule in (
            Rule(f"{path}.{name}.kernel", f"{key}.weight_{side}", DENSE),
            Rule(f"{path}.{name}.bias", f"{key}.bias_{side}", SAME),
        )
    ]


def mlp(path: str, key: str, num_layers: int, first: int = 0) -> list[Rule]:
    """Linear layers of a `torch.nn.Sequential`, which counts the activations between them too.

    Args:
        path: the JAX MLP.
        key: the `torch.nn.Sequential`.
        num_layers: number of linear layers.
        first: position of the first of them.
    """
    return [
        rule
        for i in range(num_layers)
        for rule in weight_and_bias(f"{path}.layers.{i}", f"{key}.{first + 2 * i}", DENSE)
    ]
