"""Gated recurrent unit in PyTorch's parametrisation."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import orthogonal, xavier_uniform
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def _orthogonal_per_gate(key, shape, dtype=jnp.float32):
    """Orthogonal `[3d, d]` (columns orthonormal), as PyTorch draws it, then transposed."""
    return orthogonal()(key, (shape[1], shape[0]), dtype).T


class GRUCell(nnx.Module):
    """GRU (Cho et al. 2014) as `torch.nn.GRUCell` computes it.

    r = σ(W_ir u + b_ir + W_hr h + b_hr), z likewise,
    n = tanh(W_in u + b_in + r ⊙ (W_hn h + b_hn)), h' = (1 − z) ⊙ n + z ⊙ h.

    The three gates are stacked in the order r, z, n; input and hidden side keep a bias each (the
    hidden one acts inside the reset gate), which `nnx.GRUCell` has no place for.

    Args:
        in_features: size of the input u.
        hidden_features: size d of the state h.
        dtype: compute type of the two matrix products; gates and state stay float32.
        rngs: source of the initial values (Xavier for the input side, orthogonal for the hidden
            side, zero biases).
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        gates = 3 * hidden_features
        self.input = nnx.Linear(
            in_features, gates, kernel_init=xavier_uniform(), dtype=dtype, rngs=rngs
        )
        self.hidden = nnx.Linear(
            hidden_features, gates, kernel_init=_orthogonal_per_gate, dtype=dtype, rngs=rngs
        )

    def __call__(
        self, inputs: Float[Array, "*b c"], state: Float[Array, "*b d"]
    ) -> Float[Array, "*b d"]:
        """Returns the next state, float32."""
        state = state.astype(jnp.float32)
        in_r, in_z, in_n = jnp.split(self.input(inputs).astype(jnp.float32), 3, axis=-1)
        hid_r, hid_z, hid_n = jnp.split(self.hidden(state).astype(jnp.float32), 3, axis=-1)
        reset = jax.nn.sigmoid(in_r + hid_r)
        update = jax.nn.sigmoid(in_z + hid_z)
        candidate = jnp.tanh(in_n + reset * hid_n)
        return (1.0 - update) * candidate + update * state
