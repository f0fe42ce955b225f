"""Slot Attention: iterative attention in which slots compete for input positions."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import repeat
from flax import nnx
from jax import lax
from jax.nn.initializers import normal
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from objdisc_jax.nn.gru import GRUCell
from objdisc_jax.nn.initializers import uniform
from objdisc_jax.nn.mlp import MLP, linear
from objdisc_jax.nn.norms import layer_norm

GRADIENTS = ("implicit", "unrolled", "bo_qsa")

ATTENTION_EPSILON = 1e-8


class SlotAttentionOutput(NamedTuple):
    """Slots and how the last iteration divided the input among them.

    Attributes:
        slots: `[b, k, d]`, float32.
        attn: `[b, n, k]`, float32, sums to 1 over k (before the renormalisation over n).
    """

    slots: Float[Array, "b k d"]
    attn: Float[Array, "b n k"]


class SlotAttention(nnx.Module):
    """Slot Attention (Locatello et al. 2020, arXiv 2006.15055, algorithm 1).

    How gradients flow is one of three choices:

    * `implicit` (Chang et al. 2022, arXiv 2207.00787; what the published PyTorch code does):
      `num_iterations` rounds without gradient, then one more with it. The initialisation's μ and
      log σ receive no gradient.
    * `unrolled` (the 2020 paper): `num_iterations` rounds, all differentiated, none extra.
    * `bo_qsa` (Jia et al. 2023, arXiv 2210.08990): learned queries for every slot;
      `num_iterations` rounds, differentiated through the last one, with a straight-through
      gradient to the queries.

    Args:
        in_features: channels c of the input.
        num_slots: number of slots k; only `bo_qsa` has parameters that depend on it.
        slot_size: d.
        mlp_hidden_size: width of the residual MLP.
        num_iterations: number of rounds, see above.
        gradient: one of the three modes.
        input_mlp: pass the inputs through LayerNorm and an MLP of two layers first, as SLATE does.
        dtype: compute type of the projections; softmax, norms, the renormalisation over positions
            and the GRU state are always float32.
        rngs: source of the initial values.

    Raises:
        ValueError: `gradient` is unknown or `num_iterations` is not positive.
    """

    def __init__(
        self,
        in_features: int,
        *,
        num_slots: int,
        slot_size: int,
        mlp_hidden_size: int,
        num_iterations: int,
        gradient: str = "implicit",
        input_mlp: bool = False,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        if gradient not in GRADIENTS:
            raise ValueError(
                f"model.gradient: got {gradient!r}; allowed are {', '.join(GRADIENTS)}."
            )
        if num_iterations < 1:
            raise ValueError(f"model.num_iterations: got {num_iterations}; it must be at least 1.")
        self.num_slots = num_slots
        self.slot_size = slot_size
        self.num_iterations = num_iterations
        self.gradient = gradient
        self.dtype = dtype
        if gradient == "bo_qsa":
            queries = normal(1.0)(rngs.params(), (1, num_slots, slot_size), jnp.float32)
            self.slots_init = nnx.Param(queries)
        else:
            init = uniform(math.sqrt(3.0 / slot_size))
            self.slot_mu = nnx.Param(init(rngs.params(), (1, 1, slot_size), jnp.float32))
            self.slot_log_sigma = nnx.Param(init(rngs.params(), (1, 1, slot_size), jnp.float32))
        self.input_layer_norm = layer_norm(in_features, rngs=rngs) if input_mlp else None
        self.input_mlp = (
            MLP((in_features,) * 3, init="kaiming", dtype=dtype, rngs=rngs) if input_mlp else None
        )
        self.norm_inputs = layer_norm(in_features, rngs=rngs)
        self.norm_slots = layer_norm(slot_size, rngs=rngs)
        self.norm_mlp = layer_norm(slot_size, rngs=rngs)

        def project(n_in: int) -> nnx.Linear:
            return linear(n_in, slot_size, init="xavier", use_bias=False, dtype=dtype, rngs=rngs)

        self.project_q = project(slot_size)
        self.project_k = project(in_features)
        self.project_v = project(in_features)
        self.gru = GRUCell(slot_size, slot_size, dtype=dtype, rngs=rngs)
        self.mlp = MLP(
            (slot_size, mlp_hidden_size, slot_size), init="kaiming", dtype=dtype, rngs=rngs
        )

    def noise(self, key: Array, batch_size: int) -> Float[Array, "b k d"] | None:
        """Standard normal draws of the initial slots; None where they are learned queries."""
        if self.gradient == "bo_qsa":
            return None
        return jax.random.normal(key, (batch_size, self.num_slots, self.slot_size))

    def initial_slots(
        self, batch_size: int, noise: Float[Array, "b k d"] | None
    ) -> Float[Array, "b k d"]:
        """Slots before the first round."""
        if noise is None:
            return repeat(self.slots_init[...], "1 k d -> b k d", b=batch_size)
        return self.slot_mu[...] + jnp.exp(self.slot_log_sigma[...]) * noise

    def project_inputs(
        self, inputs: Float[Array, "b n c"]
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b n d"]]:
        """Keys and values, the same in every round."""
        if self.input_layer_norm is not None and self.input_mlp is not None:
            inputs = self.input_mlp(self.input_layer_norm(inputs))
        inputs = self.norm_inputs(inputs)
        return self.project_k(inputs), self.project_v(inputs)

    def step(
        self,
        slots: Float[Array, "b k d"],
        keys: Float[Array, "b n d"],
        values: Float[Array, "b n d"],
    ) -> SlotAttentionOutput:
        """One round: attend, average, update the slots."""
        queries = self.project_q(self.norm_slots(slots)) * self.slot_size**-0.5
        logits = jnp.einsum("bnd,bkd->bnk", keys, queries, preferred_element_type=jnp.float32)
        attn = jax.nn.softmax(logits, axis=-1)
        weights = attn + ATTENTION_EPSILON
        weights = weights / jnp.sum(weights, axis=1, keepdims=True)
        updates = jnp.einsum(
            "bnk,bnd->bkd",
            weights.astype(values.dtype),
            values,
            preferred_element_type=jnp.float32,
        )
        slots = self.gru(updates, slots)
        slots = slots + self.mlp(self.norm_mlp(slots)).astype(jnp.float32)
        return SlotAttentionOutput(slots, attn)

    def __call__(
        self, inputs: Float[Array, "b n c"], noise: Float[Array, "b k d"] | None
    ) -> SlotAttentionOutput:
        """Finds the slots of a set of input vectors.

        Args:
            inputs: `[b, n, c]`.
            noise: what `noise` drew, `[b, k, d]`; None for `bo_qsa`.
        """
        keys, values = self.project_inputs(inputs)
        slots = self.initial_slots(inputs.shape[0], noise)
        if self.gradient == "unrolled":
            free_rounds, rounds = 0, self.num_iterations
        elif self.gradient == "implicit":
            free_rounds, rounds = self.num_iterations, 1
        else:
            free_rounds, rounds = self.num_iterations - 1, 1
        if free_rounds:
            free_keys, free_values = lax.stop_gradient((keys, values))
            start = slots
            for _ in range(free_rounds):
                slots = self.step(slots, free_keys, free_values).slots
            slots = lax.stop_gradient(slots)
            if self.gradient == "bo_qsa":
                slots = slots + start - lax.stop_gradient(start)
        for _ in range(rounds - 1):
            slots = self.step(slots, keys, values).slots
        return self.step(slots, keys, values)
