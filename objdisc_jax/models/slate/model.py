"""SLATE: slots from the tokens of a discrete VAE, decoded by a transformer (arXiv 2110.11405)."""

from types import MappingProxyType

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from objdisc_jax.models.base import Model, Noise, Prediction
from objdisc_jax.models.slate import hash_prng
from objdisc_jax.models.slate.dvae import DVAE, PATCH, Code, Draws
from objdisc_jax.nn.mlp import linear
from objdisc_jax.nn.schedules import cosine_ramp
from objdisc_jax.nn.slot_attention import SlotAttention, SlotAttentionOutput
from objdisc_jax.models.slate.tokens import TokenEmbedding, choose, token_cross_entropy
from objdisc_jax.models.slate.transformer import TransformerDecoder


def default_config() -> ConfigDict:
    """The published 128x128 model; every key is an argument of `SLATE`."""
    config = ConfigDict()
    config.name = "slate"
    config.resolution = (128, 128)  # height and width that images are resized to
    config.num_slots = 7  # slots, the background's included
    config.slot_size = 192  # size of a slot
    config.num_iterations = 3  # rounds of attention; "implicit" adds the differentiated one
    config.mlp_hidden_size = 192  # width of the slots' residual MLP
    config.gradient = "implicit"  # implicit | unrolled | bo_qsa
    config.vocab_size = 4096  # tokens of the dVAE; 4x4 pixels are one
    config.dvae_features = 64  # channels of the dVAE
    config.d_model = 192  # size of a token's vector, and of the transformer
    config.num_heads = 8  # heads of its attention
    config.num_decoder_blocks = 8  # its blocks
    config.dropout = 0.1  # share of embeddings, attention weights and outputs that is dropped
    config.temperature = (1.0, 0.1)  # of the Gumbel-softmax, first and last
    config.temperature_steps = 30_000  # steps between them, along half a cosine
    config.hard = False  # one-hot codes for the dVAE's decoder, straight-through gradient
    config.rematerialize = True  # compute activations again to save memory
    config.dtype = "float32"  # compute type: float32 | bfloat16
    return config


class SLATE(Model):
    """Discrete VAE, Slot Attention on its tokens, and a transformer that predicts them from slots.

    The arguments are the keys of `default_config`.

    Its noise holds two 64-bit seeds an example in place of the Gumbel draws, which would be two
    arrays `[b, tokens, vocabulary]`; `expand_noise` writes them out. Loss and prediction take
    either.

    Raises:
        ValueError: a setting is out of its range or two contradict each other; names them.
    """

    input_range = (0.0, 1.0)
    optimizer_groups = MappingProxyType({"dvae": ("dvae",)})

    def __init__(
        self,
        *,
        resolution: tuple[int, int],
        num_slots: int,
        slot_size: int,
        num_iterations: int,
        mlp_hidden_size: int,
        gradient: str,
        vocab_size: int,
        dvae_features: int,
        d_model: int,
        num_heads: int,
        num_decoder_blocks: int,
        dropout: float,
        temperature: tuple[float, float],
        temperature_steps: int,
        hard: bool,
        rematerialize: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        for key, value in (
            ("num_slots", num_slots),
            ("slot_size", slot_size),
            ("mlp_hidden_size", mlp_hidden_size),
            ("vocab_size", vocab_size),
            ("dvae_features", dvae_features),
            ("d_model", d_model),
            ("num_heads", num_heads),
            ("num_decoder_blocks", num_decoder_blocks),
            ("temperature_steps", temperature_steps),
        ):
            if value < 1:
                raise ValueError(f"model.{key}: got {value}; it must be at least 1.")
        if str(dtype) not in ("float32", "bfloat16"):
            raise ValueError(f"model.dtype: got {dtype!r}; allowed are float32, bfloat16.")
        if len(resolution) != 2 or min(resolution) < PATCH or any(n % PATCH for n in resolution):
            raise ValueError(
                f"model.resolution: got {resolution}; it is a height and a width, multiples of "
                f"{PATCH}, for a token stands for {PATCH}x{PATCH} pixels: (64, 64)."
            )
        if d_model % num_heads:
            raise ValueError(
                f"model.num_heads: got {num_heads}; it must divide model.d_model, {d_model}."
            )
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"model.dropout: got {dropout}; it lies from 0 to less than 1.")
        if len(temperature) != 2 or min(temperature) <= 0.0:
            raise ValueError(
                f"model.temperature: got {temperature}; it is the first and the last one, both "
                "above 0: (1.0, 0.1)."
            )
        dtype = jnp.dtype(dtype)
        self.resolution = (resolution[0], resolution[1])
        self.grid = (resolution[0] // PATCH, resolution[1] // PATCH)
        self.num_tokens = self.grid[0] * self.grid[1]
        self.vocab_size = vocab_size
        self.dropout = dropout
        self.temperature = (temperature[0], temperature[1])
        self.temperature_steps = temperature_steps
        self.hard = hard

        self.dvae = DVAE(vocab_size, dvae_features, dtype=dtype, rngs=rngs)
        self.embedding = TokenEmbedding(vocab_size, self.num_tokens, d_model, rngs=rngs)
        self.slot_attention = SlotAttention(
            d_model,
            num_slots=num_slots,
            slot_size=slot_size,
            mlp_hidden_size=mlp_hidden_size,
            num_iterations=num_iterations,
            gradient=gradient,
            input_mlp=True,
            dtype=dtype,
            rngs=rngs,
        )

        def plain(n_in: int, n_out: int) -> nnx.Linear:
            return linear(n_in, n_out, init="xavier", use_bias=False, dtype=dtype, rngs=rngs)

        self.slot_projection = plain(slot_size, d_model)
        self.decoder = TransformerDecoder(
            d_model,
            num_heads=num_heads,
            num_blocks=num_decoder_blocks,
            dropout=dropout,
            rematerialize=rematerialize,
            dtype=dtype,
            rngs=rngs,
        )
        self.head = plain(d_model, vocab_size)

    def noise(self, key: Array, batch_size: int) -> Noise:
        """Standard normals of the initial slots; seeds of the code's and the tokens' Gumbels."""
        slots_key, gumbel_key = jax.random.split(key)
        noise = {"gumbel": hash_prng.seeds(gumbel_key, batch_size, 2)}
        slots = self.slot_attention.noise(slots_key, batch_size)
        if slots is not None:
            noise["slots"] = slots
        return noise

    def expand_noise(self, noise: Noise) -> Noise:
        """The Gumbel draws themselves, `gumbel_code` and `gumbel_tokens` `[b, t, v]`."""
        shape = (self.num_tokens, self.vocab_size)
        code, tokens = (hash_prng.gumbel(noise["gumbel"][:, i], shape) for i in (0, 1))
        rest = {name: value for name, value in noise.items() if name != "gumbel"}
        return rest | {"gumbel_code": code, "gumbel_tokens": tokens}

    def temperature_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """The Gumbel-softmax's temperature."""
        return cosine_ramp(
            step,
            start_value=self.temperature[0],
            end_value=self.temperature[1],
            start_step=0,
            end_step=self.temperature_steps,
        )

    def code(
        self, image: Float[Array, "b h w 3"], noise: Noise, temperature: Float[Array, ""]
    ) -> Code:
        """The training code of images: drawn tokens, and what the dVAE's decoder reads."""
        draws: Draws
        if "gumbel" in noise:
            draws = noise["gumbel"]
        else:
            draws = (noise["gumbel_code"], noise["gumbel_tokens"])
        return self.dvae.code(self.dvae.encode(image), draws, temperature, hard=self.hard)

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
        self,
        image: Float[Array, "b h w 3"],
        noise: Noise,
        *,
        step: Int[Array, ""],
        dropout_key: Array | None = None,
    ) -> tuple[Float[Array, "b"], dict[str, Float[Array, "b"]]]:
        """Squared error of the dVAE (a sum), plus the transformer's cross-entropy of the tokens."""
        tokens, code = self.code(image, noise, self.temperature_at(step))
        recon = self.dvae.decode(code, self.resolution)
        recon_loss = jnp.sum((recon - image) ** 2, axis=(1, 2, 3))

        embedded = self.embedding(tokens)
        decoder_key = None
        if dropout_key is not None:
            embedding_key, decoder_key = jax.random.split(dropout_key)
            seed = hash_prng.seeds(embedding_key)
            embedded = hash_prng.dropout(embedded, self.dropout, seed)
        slots = self.attend(embedded, noise).slots
        features = self.decode_features(embedded, slots, decoder_key)
        cross_entropy = jnp.sum(token_cross_entropy(self.head, features, tokens), axis=1)
        scalars = {"recon_loss": recon_loss, "cross_entropy": cross_entropy}
        return recon_loss + cross_entropy, scalars

    def predict(
        self, image: Float[Array, "b h w 3"], noise: Noise, *, step: Int[Array, ""]
    ) -> Prediction:
        """The dVAE's reconstruction, slots and their attention; `extras` has the `tokens`."""
        del step  # no temperature without noise
        tokens = self.argmax_tokens(image)
        slots, attn = self.attend(self.embedding(tokens), noise)
        masks = rearrange(attn, "b (h w) k -> b k h w", h=self.grid[0])
        masks = repeat(masks, "b k h w -> b k (h i) (w j)", i=PATCH, j=PATCH)
        return Prediction(self.render(tokens), masks, slots, extras={"tokens": tokens})

    def render(self, tokens: Int[Array, "b t"]) -> Float[Array, "b h w 3"]:
        """The dVAE's image of tokens."""
        recon = self.dvae.decode(self.dvae.embed_tokens(tokens), self.resolution)
        return jnp.clip(recon, 0.0, 1.0)

    def generate(
        self,
        slots: Float[Array, "b k s"],
        *,
        key: Array | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> Int[Array, "b t"]:
        """Tokens of slots, one after the other; `render` makes an image of them.

        Any number of slots is decoded, in any order: `slots[:, [0, 2]]` is a scene with two of
        them, and `exchange` mixes those of two images. One compiled scan; keys and values of the
        tokens so far are kept, so that each is computed once.

        Args:
            slots: the slots.
            key: draws the tokens; None takes the likeliest.
            temperature: with a key: below 1 favours likely tokens.
            top_k: with a key: draw among so many likeliest only.

        Raises:
            ValueError: an argument is out of its range, or needs a key.
        """
        if key is None and (temperature != 1.0 or top_k is not None):
            raise ValueError(
                "temperature, top_k: they act on draws. Give a key, or leave them out."
            )
        if temperature <= 0.0:
            raise ValueError(
                f"temperature: got {temperature}; it must be above 0. Leave out the key for the "
                "likeliest tokens."
            )
        if top_k is not None and not 1 <= top_k <= self.vocab_size:
            raise ValueError(f"top_k: got {top_k}; it lies from 1 to {self.vocab_size}.")
        batch_size = len(slots)
        contexts = self.decoder.contexts(self.slot_projection(slots))

        def next_token(carry, position):
            row, caches = carry
            x = self.embedding.at(row, position)
            x, caches = self.decoder.step(x, contexts, caches, position)
            own_key = None if key is None else jax.random.fold_in(key, position)
            logits = self.head(x).astype(jnp.float32)
            token = choose(logits, own_key, temperature, top_k)
            return (token + 1, caches), token

        caches = self.decoder.empty_cache(batch_size, self.num_tokens)
        start = (jnp.zeros(batch_size, jnp.int32), caches)  # row 0 is the beginning
        _, tokens = lax.scan(next_token, start, jnp.arange(self.num_tokens))
        return rearrange(tokens, "t b -> b t")

    def expensive_metrics(
        self, image: Float[Array, "b h w 3"], prediction: Prediction
    ) -> dict[str, Float[Array, "b"]]:
        """The autoregressive reconstruction's squared error, mean per element."""
        recon = self.render(self.generate(prediction.slots))
        return {"mse_autoregressive": jnp.mean((recon - image) ** 2, axis=(1, 2, 3))}

    def panels(
        self, image: Float[Array, "b h w 3"], noise: Noise, *, step: Int[Array, ""]
    ) -> dict[str, Array]:
        """The image decoded from its slots, and what each slot attends to, on white."""
        prediction = self.predict(image, noise, step=step)
        masks = prediction.masks[..., None]
        return {
            "autoregressive": self.render(self.generate(prediction.slots)),
            "attention": image[:, None] * masks + 1.0 - masks,
        }


def exchange(
    first: Float[Array, "b k s"], second: Float[Array, "b k s"], *, slot: int, other: int
) -> tuple[Float[Array, "b k s"], Float[Array, "b k s"]]:
    """Slots of two images with one of the first swapped for one of the second.

    Args:
        first: slots of the first image.
        second: slots of the second image.
        slot: index of the first image's slot.
        other: index of the second image's slot.

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
