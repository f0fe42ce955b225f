"""Slot Attention: iterative attention in which slots compete for input positions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import repeat
from flax import nnx
from jax import lax
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from objdisc_jax.nn.gru import GRUCell
from objdisc_jax.nn.initializers import uniform
from objdisc_jax.nn.mlp import MLP, linear
from objdisc_jax.nn.norms import layer_norm
from objdisc_jax.settings import SlotAttentionSettings

ATTENTION_EPSILON = 1e-8


class SlotAttentionOutput(NamedTuple):
    """Slots and how the last iteration divided the input among them."""

    slots: Float[Array, "b k d"]  # float32
    attn: Float[Array, "b n k"]  # float32, sums to 1 over k (before the renormalisation over n)


class SlotAttention(nnx.Module):
    """Slot Attention (Locatello et al. 2020, arXiv 2006.15055, algorithm 1).

    How gradients flow is one of three choices:

    * `implicit` (Chang et al. 2022, arXiv 2207.00787; what the published PyTorch code does):
      `num_iterations` iterations without gradient, then one more with it. μ and log σ of the
      initialisation receive no gradient.
    * `unrolled` (the 2020 paper): `num_iterations` iterations, all differentiated, none extra.
    * `bo_qsa` (Jia et al. 2023, arXiv 2210.08990): learned queries for every slot;
      `num_iterations` iterations, differentiated through the last one, with a straight-through
      gradient to the queries.

    Projections are computed in the settings' `dtype`; softmax, norms, the renormalisation over
    positions and the state of the GRU are always float32.

    Args:
        in_features: channels c of the input.
        settings: sizes, iterations and mode; only `bo_qsa` has parameters that depend on the number
            of slots.
        input_mlp: sizes of the layers of an MLP that inputs pass first, after a LayerNorm, as SLATE
            and DINOSAUR have; none by default.
        normalized_state: whether the GRU updates the normalised slots, as in VideoSAUR.
        rngs: source of the initial values.
    """

    def __init__(
        self,
        in_features: int,
        settings: SlotAttentionSettings,
        *,
        input_mlp: Sequence[int] = (),
        normalized_state: bool = False,
        rngs: nnx.Rngs,
    ):
        self.settings, self.normalized_state = settings, normalized_state
        dtype, slot_size = jnp.dtype(settings.dtype), settings.slot_size
        if settings.gradient == "bo_qsa":
            shape = (1, settings.num_slots, slot_size)
            queries = normal(1.0)(rngs.params(), shape, jnp.float32)
            self.slots_init = nnx.Param(queries)
        else:
            init = uniform(math.sqrt(3.0 / slot_size))
            self.slot_mu = nnx.Param(init(rngs.params(), (1, 1, slot_size), jnp.float32))
            self.slot_log_sigma = nnx.Param(init(rngs.params(), (1, 1, slot_size), jnp.float32))
        self.input_layer_norm = layer_norm(in_features, rngs=rngs) if input_mlp else None
        self.input_mlp = (
            MLP((in_features, *input_mlp), init="kaiming", dtype=dtype, rngs=rngs)
            if input_mlp
            else None
        )
        in_features = (in_features, *input_mlp)[-1]
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
            (slot_size, settings.mlp_hidden_size, slot_size),
            init="kaiming",
            dtype=dtype,
            rngs=rngs,
        )

    def noise(self, key: Array, batch_size: int) -> dict[str, Float[Array, "b k d"]]:
        """Standard normals of the initial slots, under `slots`; nothing for learned queries."""
        if self.settings.gradient == "bo_qsa":
            return {}
        shape = (batch_size, self.settings.num_slots, self.settings.slot_size)
        return {"slots": jax.random.normal(key, shape)}

    def initial_slots(
        self, batch_size: int, noise: Float[Array, "b k d"] | None
    ) -> Float[Array, "b k d"]:
        """Slots before the first iteration."""
        if noise is None:
            return repeat(self.slots_init[...], "1 k d -> b k d", b=batch_size)
        return self.slot_mu[...] + jnp.exp(self.slot_log_sigma[...]) * noise

    def project_inputs(
        self, inputs: Float[Array, "b n c"]
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b n d"]]:
        """Keys and values, the same in every iteration."""
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
        """One iteration: attend, average, update the slots."""
        normalized = self.norm_slots(slots)
        queries = self.project_q(normalized) * self.settings.slot_size**-0.5
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
        slots = self.gru(updates, normalized if self.normalized_state else slots)
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
        num_iterations, gradient = self.settings.num_iterations, self.settings.gradient
        if gradient == "unrolled":
            without_gradient, with_gradient = 0, num_iterations
        elif gradient == "implicit":
            without_gradient, with_gradient = num_iterations, 1
        else:
            without_gradient, with_gradient = num_iterations - 1, 1
        if without_gradient:
            free_keys, free_values = lax.stop_gradient((keys, values))
            start = slots
            slots = self._iterate(without_gradient, slots, free_keys, free_values)
            slots = lax.stop_gradient(slots)
            if gradient == "bo_qsa":
                slots = slots + start - lax.stop_gradient(start)
        if with_gradient > 1:
            slots = self._iterate(with_gradient - 1, slots, keys, values)
        return self.step(slots, keys, values)

    def iterations(
        self, inputs: Float[Array, "b n c"], noise: Float[Array, "b k d"] | None
    ) -> Float[Array, "b t n k"]:
        """How each iteration divides the input among the slots; the last is that of a call."""
        keys, values = self.project_inputs(inputs)

        def iterate(slots: Array, _: None) -> tuple[Array, Array]:
            return self.step(slots, keys, values)

        count = self.settings.num_iterations + (self.settings.gradient == "implicit")
        slots = self.initial_slots(inputs.shape[0], noise)
        return jnp.moveaxis(lax.scan(iterate, slots, length=count)[1], 0, 1)

    def first_attention(
        self, inputs: Float[Array, "b n c"], noise: Float[Array, "b k d"] | None
    ) -> Float[Array, "b n k"]:
        """How the first iteration divides the input among the slots."""
        return self.step(
            self.initial_slots(inputs.shape[0], noise), *self.project_inputs(inputs)
        ).attn

    def _iterate(self, count: int, slots: Array, keys: Array, values: Array) -> Array:
        """The slots after so many iterations, one loop: a single one to compile."""
        return lax.fori_loop(0, count, lambda _, slots: self.step(slots, keys, values).slots, slots)
