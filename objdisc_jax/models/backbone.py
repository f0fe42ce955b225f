"""What models on the features of a frozen ViT have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from objdisc_jax.models.base import Batch, Model
from objdisc_jax.nn.vit import VisionTransformer, from_hugging_face
from objdisc_jax.settings import BackboneSettings


class BackboneModel(Model):
    """A model that sees images through a frozen ViT, or features of it that were stored."""

    input_range = (0.0, 1.0)
    settings: BackboneSettings

    def __init__(self, settings: BackboneSettings, *, rngs: nnx.Rngs):
        super().__init__(settings, rngs=rngs)
        self.fields = ("features",) if settings.cached else ("image",)
        self.backbone = VisionTransformer(
            settings.vit, positions=settings.resampling, dtype=jnp.dtype(settings.dtype), rngs=rngs
        )

    @property
    def frozen(self) -> Mapping[str, str]:
        """The backbone; with stored features, too, which are of no use without."""
        return {"backbone": self.settings.weights or self.settings.vit.repository}

    def load_frozen(self, part: str, file: Path) -> dict[str, Any]:
        """The backbone of a safetensors file in Hugging Face's layout; other parts as they are."""
        found = super().load_frozen(part, file)
        return from_hugging_face(found) if part == "backbone" else found

    @property
    def encoding(self) -> Mapping[str, Any]:
        """What features depend on beside weights and resolution."""
        settings = self.settings
        names = ("backbone", "block", "final_norm", "dtype")
        stated = {name: getattr(settings, name) for name in names}
        return {**stated, "positions": settings.resampling}

    def encode_frozen(self, image: Float[Array, "b h w 3"]) -> dict[str, Array]:
        """The features of images, `[b, n, d]`, patches row by row."""
        settings = self.settings
        found = self.backbone(image, block=settings.block, final_norm=settings.final_norm)
        return {"features": found}

    def features(self, batch: Batch) -> Float[Array, "b n d"]:
        """Features of a batch, float32, without gradient: stored ones where it has them."""
        if "features" in batch.fields:
            return batch["features"].astype(jnp.float32)
        return lax.stop_gradient(self.encode_frozen(batch.image)["features"])

    def at_resolution(self, masks: Float[Array, "b k n"]) -> Float[Array, "b k h w"]:
        """Masks of patches, brought to the size of the image by bilinear interpolation."""
        masks = rearrange(masks, "b k (h w) -> b k h w", h=self.settings.grid[0])
        return jax.image.resize(masks, (*masks.shape[:2], *self.resolution), "bilinear")

    def as_colours(
        self, features: Float[Array, "b n d"], *others: Float[Array, "b n d"]
    ) -> list[Float[Array, "b h w 3"]]:
        """Images of features, and of others beside them.

        Red, green and blue are the first three principal components of an image's features, each
        from its least value there to its largest.
        """
        mean = jnp.mean(features, axis=1, keepdims=True)
        # One at a time: on a CPU a batch waits for threads that several devices use up.
        axes = lax.map(lambda x: jnp.linalg.svd(x, full_matrices=False)[2], features - mean)
        shown = [(x - mean) @ axes[:, :3].mT for x in (features, *others)]
        low, high = (extreme(shown[0], axis=1, keepdims=True) for extreme in (jnp.min, jnp.max))
        shown = [jnp.clip((x - low) / (high - low + 1e-6), 0.0, 1.0) for x in shown]
        height, width = self.resolution
        return [
            jax.image.resize(
                rearrange(x, "b (h w) c -> b h w c", h=self.settings.grid[0]),
                (len(x), height, width, 3),
                "nearest",
            )
            for x in shown
        ]
