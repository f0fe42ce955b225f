"""SLATE in PyTorch, with the published weights' keys and shapes.

A model with `gradient = "bo_qsa"`, which the published code lacks, has `slot_attn.slots_init`.
"""

from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from objdisc_jax.interop.base import Noise, Prediction, TorchModel
from objdisc_jax.interop.blocks import SlotAttention, initialise
from objdisc_jax.interop.dvae import DVAE, dvae_names
from objdisc_jax.interop.schedules import cosine_ramp
from objdisc_jax.interop.transformer import TransformerDecoder, transformer_names
from objdisc_jax.models.slate.settings import PATCH, Settings


class Positions(nn.Module):
    """Learned vectors of the positions in a sequence, added to it; then dropout."""

    def __init__(self, num_positions: int, features: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.pe = nn.Parameter(torch.empty(1, num_positions, features))
        nn.init.trunc_normal_(self.pe)

    def forward(self, x: Tensor) -> Tensor:
        """Adds the first positions' vectors to `[b, t, d]`."""
        return self.dropout(x + self.pe[:, : x.shape[1]])


class Dictionary(nn.Module):
    """Learned vectors of the beginning of a sequence (row 0) and of the tokens."""

    def __init__(self, vocab_size: int, features: int):
        super().__init__()
        self.dictionary = nn.Embedding(vocab_size + 1, features)

    def forward(self, tokens: Tensor) -> Tensor:
        """The sequence `[b, 1 + t, d]` of tokens `[b, t]`, beginning included."""
        return self.dictionary(nn.functional.pad(tokens + 1, (1, 0)))


class SLATE(TorchModel):
    """Discrete VAE, Slot Attention on its tokens, and a transformer that predicts them from slots.

    Its noise is what the JAX model's `expand_noise` gives. Dropout is on in training mode.
    """

    input_range = (0.0, 1.0)
    names = (
        (r"dvae\.encoder\.7", "dvae.to_logits"),
        (r"dvae\.decoder\.11", "dvae.to_image"),
        *dvae_names(),
        (r"positional_encoder\.pe", "embedding.positions"),
        (r"dictionary\.dictionary\.weight", "embedding.dictionary"),
        (r"slot_attn\.((?:input_)?mlp)\.\d+", r"slot_attention.\1.layers.{n}"),
        (r"slot_attn(\..*)?", r"slot_attention\1"),
        (r"slot_proj", "slot_projection"),
        (r"out", "head"),
        (r"tf_dec\.layer_norm", "decoder.norm"),
        *transformer_names("tf_dec", "decoder"),
    )
    published = MappingProxyType({"gradient": "implicit", "dvae_features": 64})

    settings: Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        d_model = settings.d_model
        self.num_tokens = settings.grid[0] * settings.grid[1]
        self.dvae = DVAE(settings.vocab_size, settings.dvae_features)
        self.positional_encoder = Positions(1 + self.num_tokens, d_model, settings.dropout)
        self.slot_attn = SlotAttention(d_model, settings, input_mlp=(d_model, d_model))
        self.dictionary = Dictionary(settings.vocab_size, d_model)
        self.slot_proj = nn.Linear(settings.slot_size, d_model, bias=False)
        self.tf_dec = TransformerDecoder(self.num_tokens, settings)
        self.out = nn.Linear(d_model, settings.vocab_size, bias=False)
        for layer in (self.slot_proj, self.out):
            initialise(layer, "xavier")

    def noise(self, batch_size: int, generator: torch.Generator | None = None) -> Noise:
        """Standard normals of the initial slots; Gumbel noise of the code and of the tokens."""
        device = self.out.weight.device

        def gumbel() -> Tensor:
            shape = (batch_size, self.num_tokens, self.settings.vocab_size)
            return -torch.empty(shape, device=device).exponential_(generator=generator).log()

        noise = {"gumbel_code": gumbel(), "gumbel_tokens": gumbel()}
        return noise | self.slot_attn.noise(batch_size, generator, device)

    def temperature_at(self, step: int) -> float:
        """The Gumbel-softmax's temperature."""
        first, last = self.settings.temperature
        return first + cosine_ramp(step, last - first, (0, self.settings.temperature_steps))

    def embed(self, tokens: Tensor) -> Tensor:
        """The sequence that Slot Attention and the transformer read, `[b, 1 + t, d]`."""
        return self.positional_encoder(self.dictionary(tokens))

    def logits(self, embedded: Tensor, slots: Tensor) -> Tensor:
        """Logits `[b, t, v]` of what follows each of `[b, t, d]`, given slots."""
        return self.out(self.tf_dec(embedded, self.slot_proj(slots)))

    def forward(self, image: Tensor, noise: Noise | None = None) -> Prediction:
        """The dVAE's reconstruction, slots and their attention; `extras` has the `tokens`."""
        with self.compute_type():
            tokens = self.dvae.encoder(image).argmax(1).flatten(1)
            drawn = self.noise(len(image)) if noise is None else noise
            slots, attn = self.slot_attn(self.embed(tokens)[:, 1:], drawn.get("slots"))
            recon = self.decode_image(tokens)
        masks = attn.transpose(1, 2).unflatten(-1, self.settings.grid)
        masks = masks.repeat_interleave(PATCH, -1).repeat_interleave(PATCH, -2)
        return Prediction(recon, masks, slots, extras={"tokens": tokens})

    def loss(
        self, image: Tensor, noise: Noise | None = None, *, step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error of the dVAE (a sum), plus the transformer's cross-entropy of the tokens."""
        with self.compute_type():
            drawn = self.noise(len(image)) if noise is None else noise
            logits = self.dvae.encoder(image).float()
            code, chosen = (
                drawn[name].transpose(1, 2).unflatten(-1, self.settings.grid)
                for name in ("gumbel_code", "gumbel_tokens")
            )
            tokens = (logits.detach() + chosen).argmax(1).flatten(1)
            z = ((logits + code) / self.temperature_at(step)).softmax(1)
            if self.settings.hard:
                one_hot = torch.zeros_like(z).scatter_(1, z.argmax(1, keepdim=True), 1.0)
                z = one_hot - z.detach() + z
            recon = self.dvae.decoder(z).float()
            recon_loss = ((recon - image) ** 2).flatten(1).sum(1)
            embedded = self.embed(tokens)
            slots, _ = self.slot_attn(embedded[:, 1:], drawn.get("slots"))
            predicted = self.logits(embedded[:, :-1], slots).float()
            cross_entropy = nn.functional.cross_entropy(
                predicted.flatten(0, 1), tokens.flatten(), reduction="none"
            )
            cross_entropy = cross_entropy.view(len(image), -1).sum(1)
        scalars = {"recon_loss": recon_loss, "cross_entropy": cross_entropy}
        return recon_loss + cross_entropy, scalars

    @torch.no_grad()
    def generate(self, slots: Tensor) -> Tensor:
        """The most likely tokens `[b, t]` of slots, one after the other.

        As in the published code the transformer reads the whole sequence again for every token.
        """
        tokens = torch.empty(len(slots), 0, dtype=torch.long, device=slots.device)
        with self.compute_type():
            for _ in range(self.num_tokens):
                last = self.logits(self.embed(tokens), slots)[:, -1]
                tokens = torch.cat([tokens, last.argmax(-1, keepdim=True)], 1)
        return tokens

    def decode_image(self, tokens: Tensor) -> Tensor:
        """The dVAE's image `[b, 3, h, w]` of tokens `[b, t]`."""
        one_hot = nn.functional.one_hot(tokens, self.settings.vocab_size).float()
        code = one_hot.transpose(1, 2).unflatten(-1, self.settings.grid)
        return self.dvae.decoder(code).float().clamp(0.0, 1.0)

    def hyper_parameters(self) -> dict[str, Any]:
        """The settings under the names of the published checkpoints' hyper-parameters."""
        settings = self.settings
        found: dict[str, Any] = {"model_type": "slate", "neg_1_to_pos_1_scale": False}
        for name in (
            "resolution",
            "num_slots",
            "num_iterations",
            "slot_size",
            "mlp_hidden_size",
            "vocab_size",
            "d_model",
            "num_heads",
            "dropout",
            "hard",
        ):
            found[name] = getattr(settings, name)
        found["num_dec_blocks"] = settings.num_decoder_blocks
        found["tau_start"], found["tau_final"] = settings.temperature
        found["tau_steps"] = settings.temperature_steps
        return found
