"""Settings of SLATE."""

import dataclasses
from types import MappingProxyType

from objdisc_jax import settings

PATCH = 4
"""Side of the square of pixels that a token stands for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.SlotAttentionSettings):
    """By default the published 128x128 model."""

    recommended = MappingProxyType(
        {
            "batch_size": 50,
            "num_train_steps": 200_000,
            "optimizer.learning_rate": 1e-4,
            "optimizer.clip_norm": 1.0,
            "optimizer.groups.dvae": {
                "pattern": "dvae/.*",
                "multiplier": 3.0,
                "schedule": "constant",
            },
            "schedule.name": "constant",
            "schedule.warmup_steps": 30_000,
            "schedule.warmup_offset": 1,
        }
    )

    slot_size: int = 192
    mlp_hidden_size: int = 192
    vocab_size: int = 4096  # tokens of the dVAE; 4x4 pixels are one
    dvae_features: int = 64  # channels of the dVAE
    d_model: int = 192  # size of a token's vector, and of the transformer
    num_heads: int = 8  # heads of its attention
    num_decoder_blocks: int = 8  # its blocks
    dropout: float = 0.1  # share of embeddings, attention weights and outputs that is dropped
    temperature: tuple[float, float] = (1.0, 0.1)  # of the Gumbel-softmax, first and last
    temperature_steps: int = 30_000  # steps between them, along half a cosine
    hard: bool = False  # one-hot codes for the dVAE's decoder, straight-through gradient
    rematerialize: bool = True  # compute activations again to save memory

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.resolution[0] // PATCH, self.resolution[1] // PATCH

    @property
    def num_tokens(self) -> int:
        """Tokens of an image."""
        return self.grid[0] * self.grid[1]

    def check(self) -> None:
        """Refuses settings out of range, and those that contradict each other."""
        super().check()
        self.at_least(1, "vocab_size", "dvae_features", "d_model", "num_heads")
        self.at_least(1, "num_decoder_blocks", "temperature_steps")
        self.between(0.0, 1.0, "dropout")
        if any(side % PATCH for side in self.resolution):
            self.refuse(
                "resolution", f"a token is {PATCH}x{PATCH} pixels: use multiples of {PATCH}"
            )
        if self.d_model % self.num_heads:
            self.refuse("num_heads", f"it must divide model.d_model, {self.d_model}")
        if self.dropout == 1.0:
            self.refuse("dropout", "it must be less than 1")
        if min(self.temperature) <= 0.0:
            self.refuse("temperature", "both, the first and the last, must be above 0")

    @classmethod
    def small(cls) -> "Settings":
        """A model of 16x16 pixels."""
        return cls(
            resolution=(16, 16),
            num_slots=3,
            slot_size=8,
            mlp_hidden_size=8,
            vocab_size=16,
            dvae_features=8,
            d_model=16,
            num_heads=2,
            num_decoder_blocks=2,
        )
