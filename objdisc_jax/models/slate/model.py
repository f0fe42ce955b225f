"""SLATE: slots from the tokens of a discrete VAE, decoded by a transformer (arXiv 2110.11405)."""

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from objdisc_jax.models.base import Batch, Loss, Model, Noise, Prediction, Step
from objdisc_jax.models.slate.dvae import DVAE, Code, GumbelNoise
from objdisc_jax.models.slate.settings import PATCH, Settings
from objdisc_jax.models.slate.tokens import TokenEmbedding, sample_token, token_cross_entropy
from objdisc_jax.nn import hash_prng
from objdisc_jax.nn.mlp import linear
from objdisc_jax.nn.schedules import cosine_ramp
from objdisc_jax.nn.slot_attention import SlotAttention, SlotAttentionOutput
from objdisc_jax.nn.transformer import TransformerDecoder


class SLATE(Model):
    """Discrete VAE, Slot Attention on its tokens, and a transformer that predicts them from slots.

    Its noise holds two 64-bit seeds per example in place of the Gumbel noise, which would be two
    arrays `[b, tokens, vocabulary]`; `expand_noise` writes them out. Loss and prediction take
    either.
    """

    input_range = (0.0, 1.0)
    settings: Settings

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        super().__init__(settings, rngs=rngs)
        d_model, dtype = settings.d_model, jnp.dtype(settings.dtype)
        self.dvae = DVAE(settings, rngs=rngs)
        self.embedding = TokenEmbedding(settings, rngs=rngs)
        self.slot_attention = SlotAttention(
            d_model, settings, input_mlp=(d_model, d_model), rngs=rngs
        )

        def plain(n_in: int, n_out: int) -> nnx.Linear:
            return linear(n_in, n_out, init="xavier", use_bias=False, dtype=dtype, rngs=rngs)

        self.slot_projection = plain(settings.slot_size, d_model)
        self.decoder = TransformerDecoder(settings, rngs=rngs)
        self.head = plain(d_model, settings.vocab_size)

    def noise(self, key: Array, batch_size: int) -> Noise:
        """Standard normals of the initial slots; seeds of the code's and the tokens' Gumbels."""
        slots_key, gumbel_key = jax.random.split(key)
        gumbel = hash_prng.seeds(gumbel_key, batch_size, 2)
        return {"gumbel": gumbel, **self.slot_attention.noise(slots_key, batch_size)}

    def expand_noise(self, noise: Noise) -> Noise:
        """The Gumbel draws themselves, `gumbel_code` and `gumbel_tokens` `[b, t, v]`."""
        shape = (self.settings.num_tokens, self.settings.vocab_size)
        code, tokens = (hash_prng.gumbel(noise["gumbel"][:, i], shape) for i in (0, 1))
        rest = {name: value for name, value in noise.items() if name != "gumbel"}
        return rest | {"gumbel_code": code, "gumbel_tokens": tokens}

    def temperature_at(self, step: Step) -> Float[Array, ""]:
        """The Gumbel-softmax's temperature."""
        return cosine_ramp(
            step,
            start_value=self.settings.temperature[0],
            end_value=self.settings.temperature[1],
            start_step=0,
            end_step=self.settings.temperature_steps,
        )

    def code(
        self, image: Float[Array, "b h w 3"], noise: Noise, temperature: Float[Array, ""]
    ) -> Code:
        """The training code of images: drawn tokens, and what the dVAE's decoder reads."""
        gumbel: GumbelNoise
        if "gumbel" in noise:
            gumbel = noise["gumbel"]
        else:
            gumbel = (noise["gumbel_code"], noise["gumbel_tokens"])
        features = self.dvae.encode(image)
        return self.dvae.code(features, gumbel, temperature, hard=self.settings.hard)

    def argmax_tokens(self, image: Float[Array, "b h w 3"]) -> Int[Array, "b t"]:
        """The tokens of images without noise, row by row."""
        return self.dvae.argmax(self.dvae.encode(image))

    def attend(self, embedded: Float[Array, "b t1 d"], noise: Noise) -> SlotAttentionOutput:
        """Slots of embedded sequences and the attention that found them; BOS is not read."""
        return self.slot_attention(embedded[:, 1:], noise.get("slots"))

    def decode_features(
        self,
        embedded: Float[Array, "b t1 d"],
        slots: Float[Array, "b k s"],
        dropout_key: Array | None = None,
    ) -> Float[Array, "b t d"]:
        """The transformer's features for predicting every token; `head` makes logits of them."""
        return self.decoder(embedded[:, :-1], self.slot_projection(slots), dropout_key)

    def loss(
        self, batch: Batch, noise: Noise, *, step: Step, dropout_key: Array | None = None
    ) -> Loss:
        """Squared error of the dVAE (a sum), plus the transformer's cross-entropy of the tokens."""
        image = batch.image
        tokens, code = self.code(image, noise, self.temperature_at(step))
        recon = self.dvae.decode(code, self.resolution)
        recon_loss = jnp.sum((recon - image) ** 2, axis=(1, 2, 3))

        embedded = self.embedding(tokens)
        decoder_key = None
        if dropout_key is not None:
            embedding_key, decoder_key = jax.random.split(dropout_key)
            seed = hash_prng.seeds(embedding_key)
            embedded = hash_prng.dropout(embedded, self.settings.dropout, seed)
        slots = self.attend(embedded, noise).slots
        features = self.decode_features(embedded, slots, decoder_key)
        cross_entropy = jnp.sum(token_cross_entropy(self.head, features, tokens), axis=1)
        scalars = {"recon_loss": recon_loss, "cross_entropy": cross_entropy}
        return recon_loss + cross_entropy, scalars

    def predict(self, batch: Batch, noise: Noise, *, step: Step) -> Prediction:
        """The dVAE's reconstruction, slots and their attention; `extras` has the `tokens`."""
        del step  # no temperature without noise
        tokens = self.argmax_tokens(batch.image)
        slots, attn = self.attend(self.embedding(tokens), noise)
        masks = rearrange(attn, "b (h w) k -> b k h w", h=self.settings.grid[0])
        masks = repeat(masks, "b k h w -> b k (h i) (w j)", i=PATCH, j=PATCH)
        return Prediction(self.decode_image(tokens), masks, slots, extras={"tokens": tokens})

    def attention(self, batch: Batch, noise: Noise, *, step: Step) -> Float[Array, "b t k h2 w2"]:
        """Every iteration's attention to the tokens."""
        del step
        embedded = self.embedding(self.argmax_tokens(batch.image))[:, 1:]
        attn = self.slot_attention.iterations(embedded, noise.get("slots"))
        return rearrange(attn, "b t (h w) k -> b t k h w", h=self.settings.grid[0])

    def decode_image(self, tokens: Int[Array, "b t"]) -> Float[Array, "b h w 3"]:
        """The dVAE's image of tokens."""
        recon = self.dvae.decode(self.dvae.embed_tokens(tokens), self.resolution)
        return jnp.clip(recon, 0.0, 1.0)

    def render(self, slots: Float[Array, "b k d"], *, step: Step) -> Float[Array, "b h w 3"]:
        """The scenes of the likeliest tokens of slots."""
        del step
        return self.decode_image(self.generate(slots))

    def generate(
        self,
        slots: Float[Array, "b k s"],
        *,
        key: Array | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> Int[Array, "b t"]:
        """Tokens of slots, one after the other; `decode_image` makes an image of them.

        Any number of slots is decoded, in any order: `slots[:, [0, 2]]` is a scene with two of
        them, and `exchange` mixes those of two images. One compiled scan; keys and values of the
        tokens so far are kept, so that each is computed once.

        Args:
            slots: the slots.
            key: samples the tokens; None takes the argmax.
            temperature: with a key: below 1 favours likely tokens.
            top_k: with a key: sample among so many most likely only.

        Raises:
            ValueError: an argument is out of its range, or needs a key.
        """
        if key is None and (temperature != 1.0 or top_k is not None):
            raise ValueError(
                "temperature, top_k: they act on samples. Give a key, or leave them out."
            )
        if temperature <= 0.0:
            raise ValueError(
                f"temperature: got {temperature}; it must be above 0. Leave out the key for "
                "the argmax."
            )
        if top_k is not None and not 1 <= top_k <= self.settings.vocab_size:
            raise ValueError(f"top_k: got {top_k}; it lies from 1 to {self.settings.vocab_size}.")
        batch_size = len(slots)
        contexts = self.decoder.contexts(self.slot_projection(slots))

        def next_token(carry, position):
            row, caches = carry
            x = self.embedding.at(row, position)
            x, caches = self.decoder.step(x, contexts, caches, position)
            own_key = None if key is None else jax.random.fold_in(key, position)
            logits = self.head(x).astype(jnp.float32)
            token = sample_token(logits, own_key, temperature, top_k)
            return (token + 1, caches), token

        caches = self.decoder.empty_cache(batch_size, self.settings.num_tokens)
        start = (jnp.zeros(batch_size, jnp.int32), caches)  # row 0 is the beginning
        _, tokens = lax.scan(next_token, start, jnp.arange(self.settings.num_tokens))
        return rearrange(tokens, "t b -> b t")

    def expensive_metrics(
        self, batch: Batch, prediction: Prediction
    ) -> dict[str, Float[Array, "b"]]:
        """The autoregressive reconstruction's squared error, mean per element."""
        recon = self.decode_image(self.generate(prediction.slots))
        return {"mse_autoregressive": jnp.mean((recon - batch.image) ** 2, axis=(1, 2, 3))}

    def visualize(self, batch: Batch, noise: Noise, *, step: Step) -> dict[str, Array]:
        """The image decoded from its slots, and what each slot attends to, on white."""
        prediction = self.predict(batch, noise, step=step)
        assert prediction.masks is not None
        masks = prediction.masks[..., None]
        return {
            "autoregressive": self.decode_image(self.generate(prediction.slots)),
            "attention": batch.image[:, None] * masks + 1.0 - masks,
        }


def exchange(
    first: Float[Array, "b k s"], second: Float[Array, "b k s"], *, slot: int, other: int
) -> tuple[Float[Array, "b k s"], Float[Array, "b k s"]]:
    """Slots of two images, `slot` of the first swapped for the `other` of the second.

    Raises:
        ValueError: there is no such slot.
    """
    for name, index, slots in (("slot", slot, first), ("other", other, second)):
        if not 0 <= index < slots.shape[1]:
            raise ValueError(f"{name}: got {index}; slots are numbered 0 to {slots.shape[1] - 1}.")
    return (
        first.at[:, slot].set(second[:, other]),
        second.at[:, other].set(first[:, slot]),
    )
