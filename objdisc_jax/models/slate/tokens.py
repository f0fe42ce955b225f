"""Tokens: their embedding, the loss of predicting them, and how the next one is sampled."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal, truncated_normal
from jaxtyping import Array, Float, Int

from objdisc_jax.models.slate.settings import Settings
from objdisc_jax.nn.chunks import in_chunks


class TokenEmbedding(nnx.Module):
    """A learned vector for every token, and one for every position in the sequence.

    Row 0 of the dictionary and of the positions belong to the beginning of the sequence (BOS);
    token t has row t + 1.
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        shape = (settings.vocab_size + 1, settings.d_model)
        self.dictionary = nnx.Param(normal(1.0)(rngs.params(), shape, jnp.float32))
        shape = (1, 1 + settings.num_tokens, settings.d_model)
        self.positions = nnx.Param(truncated_normal(1.0)(rngs.params(), shape, jnp.float32))

    def __call__(self, tokens: Int[Array, "b t"]) -> Float[Array, "b t1 d"]:
        """The sequence from BOS to the last token, t + 1 vectors."""
        rows = jnp.pad(tokens + 1, ((0, 0), (1, 0)))
        return self.dictionary[...][rows] + self.positions[...]

    def at(self, row: Int[Array, "b"], position: Int[Array, ""]) -> Float[Array, "b d"]:
        """The vector of one position, by the dictionary's row."""
        return self.dictionary[...][row] + self.positions[...][:, position]


def token_cross_entropy(
    head: nnx.Linear, x: Float[Array, "b t d"], tokens: Int[Array, "b t"]
) -> Float[Array, "b t"]:
    """−log softmax(head(x)) at the tokens, in float32; the logits are never whole in memory."""

    def chunk(first: Array | int, x: Array, tokens: Array) -> Array:
        del first
        logits = head(x).astype(jnp.float32)
        at_token = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(logits, axis=-1) - at_token

    return in_chunks(chunk, x, tokens, width=head.out_features)


def sample_token(
    logits: Float[Array, "b v"],
    key: Array | None,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Int[Array, "b"]:
    """The most likely token of each row, or with a key a sampled one.

    The temperature divides the logits. With `top_k` it is one of so many most likely, and of those
    as likely as the last of them.
    """
    if key is None:
        return jnp.argmax(logits, axis=-1)
    if top_k is not None:
        least = jax.lax.top_k(logits, top_k)[0][:, -1:]
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    return jax.random.categorical(key, logits / temperature)
