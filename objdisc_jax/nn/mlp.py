"""Linear layers and multi-layer perceptrons."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from objdisc_jax.nn.initializers import Init, initializers


def elu(x: Array) -> Array:
    """ELU, or CELU with α = 1; the exact exponential near zero of JAX takes a CPU twice as long."""
    return jnp.maximum(x, 0.0) + (jnp.exp(jnp.minimum(x, 0.0)) - 1.0)


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "elu": elu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.01),
    "relu": jax.nn.relu,
}


def activation_function(name: str) -> Callable[[Array], Array]:
    """Returns the activation function called `name`.

    Raises:
        ValueError: the name is not known; lists those that are.
    """
    if name not in _ACTIVATIONS:
        raise ValueError(f"model.activation: got {name!r}; allowed are {sorted(_ACTIVATIONS)}.")
    return _ACTIVATIONS[name]


def dot_general_on_rows(x: Array, kernel: Array, dimension_numbers: Any, **settings: Any) -> Array:
    """`lax.dot_general` as `nnx.Linear` calls it, on vectors in rows, whatever axes they lie in.

    With more axes XLA transposes the vectors before it computes the gradient by the kernel, and is
    slow at both on a CPU.
    """
    del dimension_numbers  # the last axis with the kernel's first
    rows = rearrange(x, "... c -> (...) c")
    out = lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), **settings)
    return out.reshape(*x.shape[:-1], kernel.shape[1])


def linear(
    in_features: int,
    out_features: int,
    *,
    init: Init = "fan_in",
    gain: float = 1.0,
    use_bias: bool = True,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """A linear layer with one of the initialisations of the published models.

    Args:
        in_features: size of the last axis of the input.
        out_features: size of the last axis of the output.
        init: one of those of `objdisc_jax.nn.initializers.initializers`.
        gain: factor of the initial weights, for `xavier`.
        use_bias: whether there is a bias.
        dtype: compute type; parameters are float32.
        rngs: source of the initial values.
    """
    kernel_init, bias_init = initializers(init, in_features, gain)
    return nnx.Linear(
        in_features,
        out_features,
        use_bias=use_bias,
        dot_general=dot_general_on_rows,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dtype=dtype,
        rngs=rngs,
    )


class MLP(nnx.Module):
    """Linear layers with an activation between them and none after the last.

    Args:
        features: layer sizes, input first: `(64, 128, 64)` is two layers.
        activation: name of the activation.
        init: of every layer; but `kaiming` is for the first alone, and the others get `xavier`, as
            in the published slot attention module.
        dtype: compute type.
        rngs: source of the initial values.
    """

    def __init__(
        self,
        features: Sequence[int],
        *,
        activation: str = "relu",
        init: Init = "fan_in",
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        activation_function(activation)  # refuses an unknown name now
        self.activation = activation
        self.layers = nnx.List(
            linear(
                n_in,
                n_out,
                init="xavier" if init == "kaiming" and i > 0 else init,
                dtype=dtype,
                rngs=rngs,
            )
            for i, (n_in, n_out) in enumerate(pairwise(features))
        )

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b d"]:
        """Applies the layers to the last axis."""
        act = activation_function(self.activation)
        for layer in self.layers[:-1]:
            x = act(layer(x))
        return self.layers[-1](x)
