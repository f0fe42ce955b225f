"""Slot Attention on patches of an image."""

import dataclasses
from types import MappingProxyType

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from objdisc_jax.models.base import Batch, Loss, Model, Noise, Prediction, Step
from objdisc_jax.nn.mlp import MLP
from objdisc_jax.nn.pixel_decoder import MLPBroadcastDecoder
from objdisc_jax.nn.position import PositionEmbedding
from objdisc_jax.nn.slot_attention import SlotAttention
from objdisc_jax.settings import SlotAttentionSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(SlotAttentionSettings):
    """By default for images of 32x32 pixels."""

    recommended = MappingProxyType({"optimizer.learning_rate": 1e-3, "optimizer.clip_norm": 1.0})

    resolution: tuple[int, int] = (32, 32)
    num_slots: int = 5
    patch: int = 4  # side of a patch, pixels
    features: int = 64  # channels that a patch becomes
    decoder_channels: tuple[int, ...] = (32, 32)  # one entry per layer but the last
    num_frequencies: int = 8  # harmonics of position features

    def check(self) -> None:
        """Refuses layers without channels, and patches that do not fill the image."""
        super().check()
        self.at_least(1, "patch", "features", "decoder_channels")
        if any(side % self.patch for side in self.resolution):
            self.refuse("patch", f"it must divide both sides of model.resolution {self.resolution}")

    @classmethod
    def small(cls) -> "Settings":
        """Three slots for images of 8x8 pixels."""
        return cls(
            resolution=(8, 8), num_slots=3, slot_size=8, mlp_hidden_size=8, features=8,
            decoder_channels=(8,), num_frequencies=2,
        )  # fmt: skip


class PatchSlots(Model):
    """Every patch becomes a vector, Slot Attention divides them, and slots paint pixel by pixel."""

    input_range = (-1.0, 1.0)
    settings: Settings

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        super().__init__(settings, rngs=rngs)
        self.embed = MLP((3 * settings.patch**2, settings.features, settings.features), rngs=rngs)
        self.position = PositionEmbedding(
            settings.features, num_frequencies=settings.num_frequencies, rngs=rngs
        )
        self.slot_attention = SlotAttention(settings.features, settings, rngs=rngs)
        self.decoder = MLPBroadcastDecoder(
            settings.slot_size,
            settings.decoder_channels,
            resolution=settings.resolution,
            num_frequencies=settings.num_frequencies,
            activation="relu",
            dtype=jnp.dtype(settings.dtype),
            rngs=rngs,
        )

    def noise(self, key: Array, batch_size: int) -> Noise:
        """Standard normals of the initial slots."""
        return self.slot_attention.noise(key, batch_size)

    def find(self, image: Float[Array, "b h w 3"], noise: Noise) -> Float[Array, "b k d"]:
        """The slots of images."""
        side = self.settings.patch
        patches = rearrange(image, "b (h p) (w q) c -> b h w (p q c)", p=side, q=side)
        features = self.position.add_to(self.embed(patches))
        features = rearrange(features, "b h w c -> b (h w) c")
        return self.slot_attention(features, noise.get("slots")).slots

    def paint(
        self, slots: Float[Array, "b k d"]
    ) -> tuple[Float[Array, "b h w 3"], Float[Array, "b k h w"]]:
        """The image that slots make, and their masks."""
        decoded = self.decoder.decode_image(slots)
        masks = jax.nn.softmax(decoded[..., 3], axis=1)
        return jnp.einsum("bkhw,bkhwc->bhwc", masks, decoded[..., :3]), masks

    def loss(
        self, batch: Batch, noise: Noise, *, step: Step, dropout_key: Array | None = None
    ) -> Loss:
        """Mean squared error."""
        del step, dropout_key
        recon, _ = self.paint(self.find(batch.image, noise))
        return jnp.mean((recon - batch.image) ** 2, axis=(1, 2, 3)), {}

    def predict(self, batch: Batch, noise: Noise, *, step: Step) -> Prediction:
        """Reconstruction, masks and slots."""
        del step
        slots = self.find(batch.image, noise)
        recon, masks = self.paint(slots)
        return Prediction(recon, masks, slots)

    def render(self, slots: Float[Array, "b k d"], *, step: Step) -> Float[Array, "b h w 3"]:
        """What slots paint together."""
        del step
        return self.paint(slots)[0]
