"""Discrete VAE (Ramesh et al. 2021, as SLATE has it): 4x4 pixels are one token of a vocabulary."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt32

from objdisc_jax.models.slate.settings import PATCH, Settings
from objdisc_jax.nn.chunks import in_chunks
from objdisc_jax.nn.conv import conv, pixel_shuffle
from objdisc_jax.nn.hash_prng import gumbel
from objdisc_jax.nn.norms import group_norm

GumbelNoise = UInt32[Array, "b 2 2"] | tuple[Float[Array, "b t v"], Float[Array, "b t v"]]
"""Noise of the soft code and of the tokens: two seeds per example, or the Gumbel samples."""


class ConvBlock(nnx.Module):
    """Convolution without bias, GroupNorm with one group (statistics in float32), ReLU."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int = 1,
        stride: int = 1,
        *,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.conv = conv(
            in_features,
            out_features,
            kernel_size,
            stride=stride,
            init="kaiming",
            use_bias=False,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = group_norm(out_features, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Applies the block to feature maps."""
        return self.finish(self.conv(x))

    def finish(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        """What follows the convolution."""
        return jax.nn.relu(self.norm(x))


class Code(NamedTuple):
    """What an image is to the transformer and to the dVAE's decoder."""

    # Sampled from the encoder's distribution, row by row, without gradient.
    tokens: Int[Array, "b t"]
    embedded: Float[Array, "b t c"]  # the first layer of the decoder on the relaxed one-hot code


class DVAE(nnx.Module):
    """Encoder, Gumbel-softmax and decoder; softmax and its noise are float32."""

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        features, dtype = settings.dvae_features, jnp.dtype(settings.dtype)
        vocab_size = self.vocab_size = settings.vocab_size

        def block(n_in: int, n_out: int, kernel_size: int = 1, stride: int = 1) -> ConvBlock:
            return ConvBlock(n_in, n_out, kernel_size, stride, dtype=dtype, rngs=rngs)

        def plain(n_in: int, n_out: int) -> nnx.Conv:
            return conv(n_in, n_out, 1, init="xavier", dtype=dtype, rngs=rngs)

        self.encoder = nnx.List(
            [block(3, features, PATCH, PATCH), *(block(features, features) for _ in range(6))]
        )
        self.to_logits = plain(features, vocab_size)
        self.embed = block(vocab_size, features)
        self.stages = nnx.List(
            nnx.List(
                [
                    block(features, features, 3),
                    block(features, features),
                    block(features, features),
                    block(features, 4 * features),
                ]
            )
            for _ in range(2)
        )
        self.to_image = plain(features, 3)

    def encode(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b t c"]:
        """Features of every token, row by row."""
        x = image
        for layer in self.encoder:
            x = layer(x)
        return rearrange(x, "b h w c -> b (h w) c")

    def logits(self, features: Float[Array, "b t c"]) -> Float[Array, "b t v"]:
        """Unnormalised log-probabilities of the tokens, float32."""
        return _on_tokens(self.to_logits, features).astype(jnp.float32)

    def argmax(self, features: Float[Array, "b t c"]) -> Int[Array, "b t"]:
        """The most likely tokens."""

        def chunk(first: Array | int, features: Array) -> Array:
            del first
            return jnp.argmax(self.logits(features), axis=-1)

        return in_chunks(chunk, features, width=self.vocab_size)

    def code(
        self, features: Float[Array, "b t c"], noise: GumbelNoise, temperature: Array, *, hard: bool
    ) -> Code:
        """Samples the tokens, and independently the decoder's relaxed code.

        The code is softmax((logits + g) / temperature) with Gumbel noise g (Jang et al. 2016, arXiv
        1611.01144); the tokens are argmax(logits + g') with g' of their own. Arrays `[b, t, v]` are
        never whole in memory, which is why the decoder's first layer is applied here. If `hard`, it
        gets the largest element's one-hot vector, with the gradient of the relaxed one.
        """
        explicit = noise if isinstance(noise, tuple) else ()

        def chunk(first: Array | int, features: Array, *samples: Array) -> Code:
            logits = self.logits(features)
            if isinstance(noise, tuple):
                soft, for_tokens = samples
            else:
                shape = logits.shape[1:]
                start = first * self.vocab_size
                soft, for_tokens = (gumbel(noise[:, i], shape, start) for i in (0, 1))
            tokens = jnp.argmax(lax.stop_gradient(logits) + for_tokens, axis=-1)
            relaxed = jax.nn.softmax((logits + soft) / temperature, axis=-1)
            if hard:
                one_hot = jax.nn.one_hot(jnp.argmax(relaxed, axis=-1), self.vocab_size)
                relaxed = one_hot - lax.stop_gradient(relaxed) + relaxed
            return Code(tokens, _on_tokens(self.embed.conv, relaxed))

        return in_chunks(chunk, features, *explicit, width=self.vocab_size)

    def embed_tokens(self, tokens: Int[Array, "b t"]) -> Float[Array, "b t c"]:
        """The decoder's first layer on the one-hot vectors of tokens: rows of its kernel."""
        return self.embed.conv.kernel[...][0, 0][tokens]

    def decode(
        self, embedded: Float[Array, "b t c"], size: tuple[int, int]
    ) -> Float[Array, "b h w 3"]:
        """The image of a code, or of embedded tokens, float32, not clipped."""
        x = rearrange(embedded, "b (h w) c -> b h w c", h=size[0] // PATCH)
        x = self.embed.finish(x)
        for stage in self.stages:
            for layer in stage:
                x = layer(x)
            x = pixel_shuffle(x, 2)
        return self.to_image(x).astype(jnp.float32)


def _on_tokens(layer: nnx.Conv, x: Float[Array, "b t c"]) -> Float[Array, "b t d"]:
    """A 1x1 convolution on a row of tokens."""
    return layer(x[:, None])[:, 0]
