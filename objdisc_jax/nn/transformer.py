"""Causal transformer decoder with cross-attention, as SLATE has it, and its one-token step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from objdisc_jax.nn import hash_prng
from objdisc_jax.nn.chunks import in_chunks
from objdisc_jax.nn.mlp import linear
from objdisc_jax.nn.norms import layer_norm
from objdisc_jax.settings import TransformerSettings

PART = 256
"""Queries that causal attention takes at a time; they see the keys up to the last of them."""

SITES = 5
"""Places of a block that have dropout."""


class KeysValues(NamedTuple):
    """What queries attend to, head by head."""

    keys: Float[Array, "b h t e"]
    values: Float[Array, "b h t e"]


def attend(
    queries: Float[Array, "b h q e"],
    memory: KeysValues,
    visible: Bool[Array, "1 1 q t"] | None,
    rate: float,
    seed: UInt32[Array, "2"] | None,
) -> Float[Array, "b h q e"]:
    """softmax(queries · keys / √e) · values, with dropout of the weights; softmax in float32.

    A query sees the keys that are `visible` to it, or all.
    """
    weights = hash_prng.dropout(attention_weights(queries, memory.keys, visible), rate, seed)
    return jnp.einsum("bhqt,bhte->bhqe", weights.astype(queries.dtype), memory.values)


def attention_weights(
    queries: Float[Array, "b h q e"],
    keys: Float[Array, "b h t e"],
    visible: Bool[Array, "1 1 q t"] | None = None,
) -> Float[Array, "b h q t"]:
    """softmax(queries · keys / √e), float32."""
    queries = queries * queries.shape[-1] ** -0.5
    logits = jnp.einsum("bhqe,bhte->bhqt", queries, keys, preferred_element_type=jnp.float32)
    if visible is not None:
        logits = jnp.where(visible, logits, -jnp.inf)
    return jax.nn.softmax(logits, axis=-1)


def causal_attend(
    queries: Float[Array, "b h t e"],
    memory: KeysValues,
    rate: float,
    seed: UInt32[Array, "2"] | None,
) -> Float[Array, "b h t e"]:
    """`attend` where a position sees itself and those before it.

    Queries of long sequences are taken in parts, each with the keys up to its end, so that nearly
    half of the products of all with all are not made. The weights are computed again in the
    backward pass rather than kept; in large batches heads take turns.
    """
    num_tokens = queries.shape[2]

    def some_heads(first_head: Array | int, queries: Array, keys: Array, values: Array) -> Array:
        found = []
        for first in range(0, num_tokens, PART):
            last = min(first + PART, num_tokens)
            visible = jnp.tri(last - first, last, first, bool)[None, None]
            seen = KeysValues(keys[:, :, :last], values[:, :, :last])
            own_seed = seed
            if seed is not None:
                own_seed = seed + jnp.uint32(first_head * num_tokens + first)
            found.append(attend(queries[:, :, first:last], seen, visible, rate, own_seed))
        return jnp.concatenate(found, axis=2)

    if num_tokens > PART:
        some_heads = jax.checkpoint(some_heads)
    return in_chunks(some_heads, queries, *memory, width=num_tokens**2)


class MultiHeadAttention(nnx.Module):
    """Projections of multi-head attention; `gain` is of the output's weights."""

    def __init__(
        self, settings: TransformerSettings, *, gain: float, use_bias: bool, rngs: nnx.Rngs
    ):
        self.num_heads, sizes = settings.num_heads, (settings.d_model,) * 2

        def project(gain: float = 1.0) -> nnx.Linear:
            dtype = jnp.dtype(settings.dtype)
            return linear(
                *sizes, init="xavier", gain=gain, use_bias=use_bias, dtype=dtype, rngs=rngs
            )

        self.project_q = project()
        self.project_k = project()
        self.project_v = project()
        self.project_out = project(gain)

    def queries(self, x: Float[Array, "b t d"]) -> Float[Array, "b h t e"]:
        """Queries of every head."""
        return rearrange(self.project_q(x), "b t (h e) -> b h t e", h=self.num_heads)

    def memory(self, x: Float[Array, "b t d"]) -> KeysValues:
        """Keys and values of every head."""
        keys, values = (
            rearrange(project(x), "b t (h e) -> b h t e", h=self.num_heads)
            for project in (self.project_k, self.project_v)
        )
        return KeysValues(keys, values)

    def output(self, x: Float[Array, "b h t e"]) -> Float[Array, "b t d"]:
        """The heads together."""
        return self.project_out(rearrange(x, "b h t e -> b t (h e)"))


class TransformerBlock(nnx.Module):
    """Causal self-attention, cross-attention and a feed-forward network, each after a LayerNorm.

    Norms, softmax and the residual are float32. In SLATE's first block the residual of
    self-attention is the normalised input: `is_first` tells, a bool or an array of one. `plain`: no
    block is a first one in this sense, and attention has biases.
    """

    def __init__(self, settings: TransformerSettings, *, plain: bool, rngs: nnx.Rngs):
        self.plain = plain
        self.dropout = settings.dropout
        size, dtype = settings.d_model, jnp.dtype(settings.dtype)
        gain = (3 * settings.num_decoder_blocks) ** -0.5  # of what is added to the residual
        self.self_norm = layer_norm(size, rngs=rngs)
        self.self_attention = MultiHeadAttention(settings, gain=gain, use_bias=plain, rngs=rngs)
        self.cross_norm = layer_norm(size, rngs=rngs)
        self.cross_attention = MultiHeadAttention(settings, gain=gain, use_bias=plain, rngs=rngs)
        self.mlp_norm = layer_norm(size, rngs=rngs)
        self.mlp_in = linear(size, 4 * size, init="kaiming", dtype=dtype, rngs=rngs)
        self.mlp_out = linear(4 * size, size, init="xavier", gain=gain, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b t d"],
        context: KeysValues,
        seeds: UInt32[Array, "5 2"] | None,
        is_first: bool | Bool[Array, ""],
    ) -> Float[Array, "b t d"]:
        """Applies the block to whole sequences, given `cross_attention.memory` of the context.

        Without seeds there is no dropout.
        """
        weights_seed, self_seed, cross_weights_seed, cross_seed, mlp_seed = (
            (None,) * SITES if seeds is None else seeds
        )
        x = self._attend_to_past(x, is_first, weights_seed, self_seed)
        attention = self.cross_attention
        queries = attention.queries(self.cross_norm(x))
        found = attend(queries, context, None, self.dropout, cross_weights_seed)
        x = x + hash_prng.dropout(attention.output(found), self.dropout, cross_seed)
        return x + hash_prng.dropout(self._mlp(x), self.dropout, mlp_seed)

    def cross_weights(
        self, x: Float[Array, "b t d"], context: KeysValues, is_first: bool
    ) -> Float[Array, "b h t k"]:
        """How every position divides its cross-attention among the context, without dropout."""
        x = self._attend_to_past(x, is_first, None, None)
        queries = self.cross_attention.queries(self.cross_norm(x))
        return attention_weights(queries, context.keys)

    def step(
        self,
        x: Float[Array, "b 1 d"],
        context: KeysValues,
        cache: KeysValues,
        position: Int[Array, ""],
        is_first: bool,
    ) -> tuple[Float[Array, "b 1 d"], KeysValues]:
        """Applies the block to one position, given the context's memory and a cache up to it.

        Returns the output, and the cache with this position in it.
        """
        y = self.self_norm(x)
        attention = self.self_attention
        cache = KeysValues(
            *(
                lax.dynamic_update_slice_in_dim(old, new, position, axis=2)
                for old, new in zip(cache, attention.memory(y), strict=True)
            )
        )
        visible = jnp.arange(cache.keys.shape[2])[None, None, None] <= position
        found = attend(attention.queries(y), cache, visible, 0.0, None)
        x = (y if is_first and not self.plain else x) + attention.output(found)
        attention = self.cross_attention
        found = attend(attention.queries(self.cross_norm(x)), context, None, 0.0, None)
        x = x + attention.output(found)
        return x + self._mlp(x), cache

    def _attend_to_past(
        self,
        x: Float[Array, "b t d"],
        is_first: bool | Bool[Array, ""],
        weights_seed: UInt32[Array, "2"] | None,
        output_seed: UInt32[Array, "2"] | None,
    ) -> Float[Array, "b t d"]:
        """The residual after self-attention."""
        y = self.self_norm(x)
        attention = self.self_attention
        found = causal_attend(attention.queries(y), attention.memory(y), self.dropout, weights_seed)
        found = checkpoint_name(found, "attention")
        x = x if self.plain else jnp.where(is_first, y, x)
        return x + hash_prng.dropout(attention.output(found), self.dropout, output_seed)

    def _mlp(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        return self.mlp_out(jax.nn.relu(self.mlp_in(self.mlp_norm(x))))


class TransformerDecoder(nnx.Module):
    """Blocks that predict every token of a sequence from those before it and from a context.

    They are SLATE's, or `plain` ones, those of `torch.nn.TransformerDecoder` with `norm_first`,
    after which no norm comes.
    """

    def __init__(self, settings: TransformerSettings, *, plain: bool = False, rngs: nnx.Rngs):
        self.settings = settings
        self.blocks = nnx.List(
            TransformerBlock(settings, plain=plain, rngs=rngs)
            for _ in range(settings.num_decoder_blocks)
        )
        self.norm = None if plain else layer_norm(settings.d_model, rngs=rngs)

    def contexts(self, context: Float[Array, "b k d"]) -> list[KeysValues]:
        """Keys and values of a context for the cross-attention of every block."""
        return [block.cross_attention.memory(context) for block in self.blocks]

    def __call__(
        self,
        x: Float[Array, "b t d"],
        context: Float[Array, "b k d"],
        dropout_key: Array | None = None,
    ) -> Float[Array, "b t d"]:
        """What every position says of the next, from whole sequences."""
        seeds = None
        if dropout_key is not None:
            seeds = hash_prng.seeds(dropout_key, len(self.blocks), SITES)
        return self._normalised(self._apply([*self.blocks], x, context, seeds))

    def cross_weights(
        self, x: Float[Array, "b t d"], context: Float[Array, "b k d"]
    ) -> Float[Array, "b h t k"]:
        """How every position divides the last block's cross-attention among the context."""
        *others, last = self.blocks
        x = self._apply(others, x, context, None) if others else x
        return last.cross_weights(x, last.cross_attention.memory(context), is_first=not others)

    def _apply(
        self, blocks: list[TransformerBlock], x: Array, context: Array, seeds: Array | None
    ) -> Array:
        """The first blocks, as they are to be differentiated.

        They are one loop over their stacked parameters: quicker to compile, and no block is
        computed again before the backward pass has come to it.
        """
        graphdef, *_ = nnx.split(blocks[0])
        states = [nnx.state(block) for block in blocks]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

        def apply(x: Array, state: PyTree[Array], is_first: Array, seeds: Array | None) -> Array:
            block = nnx.merge(graphdef, state)
            return block(x, block.cross_attention.memory(context), seeds, is_first)

        if self.settings.rematerialize:
            policy = jax.checkpoint_policies.save_only_these_names("attention")
            apply = jax.checkpoint(apply, policy=policy)
        parts = (stacked, jnp.arange(len(blocks)) == 0, seeds)
        return lax.scan(lambda x, part: (apply(x, *part), None), x, parts)[0]

    def empty_cache(self, batch_size: int, num_tokens: int) -> list[KeysValues]:
        """Room for the keys and values of every block."""
        num_heads, d_model = self.settings.num_heads, self.settings.d_model
        shape = (batch_size, num_heads, num_tokens, d_model // num_heads)
        zeros = jnp.zeros(shape, self.settings.dtype)
        return [KeysValues(zeros, zeros) for _ in self.blocks]

    def step(
        self,
        x: Float[Array, "b d"],
        contexts: list[KeysValues],
        caches: list[KeysValues],
        position: Int[Array, ""],
    ) -> tuple[Float[Array, "b d"], list[KeysValues]]:
        """What one position says of the next, and the caches with it in them."""
        y, new = x[:, None], []
        for block, context, cache in zip(self.blocks, contexts, caches, strict=True):
            y, cache = block.step(y, context, cache, position, is_first=not new)
            new.append(cache)
        return self._normalised(y)[:, 0], new

    def _normalised(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        return x if self.norm is None else self.norm(x)
