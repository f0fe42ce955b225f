"""A convolutional LSTM cell."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import repeat
from flax import nnx
from jax.nn.initializers import zeros
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from objdisc_jax.nn.conv import conv


class LSTMState(NamedTuple):
    """Hidden state h and cell state c, both float32."""

    h: Float[Array, "b h w d"]
    c: Float[Array, "b h w d"]


class ConvLSTMCell(nnx.Module):
    """LSTM (Hochreiter & Schmidhuber 1997) on a grid, with 1x1 kernels (Shi et al. 2015).

    One convolution over [input, h] gives the gates, stacked in the order i, f, o, g:
    c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g), h' = σ(o) ⊙ tanh(c'). The first state is learned.

    Args:
        in_features: channels of the input.
        hidden_features: channels d of the state.
        grid: its rows and columns.
        dtype: compute type of the convolution; gates and states stay float32.
        rngs: source of the initial values (PyTorch's default; the first state is zero).
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        grid: tuple[int, int],
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        shape = (1, *grid, hidden_features)
        self.h_0 = nnx.Param(zeros(rngs.params(), shape, jnp.float32))
        self.c_0 = nnx.Param(zeros(rngs.params(), shape, jnp.float32))
        gates = 4 * hidden_features
        self.conv = conv(in_features + hidden_features, gates, 1, dtype=dtype, rngs=rngs)

    def initial_state(self, batch_size: int) -> LSTMState:
        """The learned first state."""
        h, c = (repeat(x[...], "1 h w d -> b h w d", b=batch_size) for x in (self.h_0, self.c_0))
        return LSTMState(h, c)

    def __call__(self, inputs: Float[Array, "b h w c"], state: LSTMState) -> LSTMState:
        """Returns the next state."""
        gates = self.conv(jnp.concatenate([inputs, state.h], axis=-1))
        i, f, o, g = jnp.split(gates.astype(jnp.float32), 4, axis=-1)
        c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return LSTMState(jax.nn.sigmoid(o) * jnp.tanh(c), c)
