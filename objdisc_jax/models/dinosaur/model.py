"""DINOSAUR: Slot Attention on the features of a frozen ViT, which the slots reconstruct.

Seitzer et al. 2022, arXiv 2209.14860; the transformer decoder and its orders are those of SPOT,
Kakogeorgiou et al. 2023, arXiv 2312.00648, as is the teacher.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from objdisc_jax import run_files
from objdisc_jax.errors import ConfigError
from objdisc_jax.models.backbone import BackboneModel
from objdisc_jax.models.base import Batch, Loss, Noise, Prediction, Step
from objdisc_jax.models.dinosaur.decoder import AutoregressiveDecoder, MLPDecoder
from objdisc_jax.models.dinosaur.settings import Settings
from objdisc_jax.nn.pixel_decoder import lattice, pixel_offsets
from objdisc_jax.nn.schedules import cosine_ramp
from objdisc_jax.nn.slot_attention import SlotAttention

# What a teacher's weights do not tell, and must be as the student has it.
_TEACHERS = (
    "backbone block final_norm num_iterations normalized_state decoder num_heads plain_blocks top_k"
).split()


class DINOSAUR(BackboneModel):
    """Slots of features, and a decoder trained on features."""

    loss_only = ("teacher",)
    settings: Settings

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        super().__init__(settings, rngs=rngs)
        self.slot_attention, self.decoder = _trained_parts(settings, rngs)
        self.teacher = Teacher(settings, rngs=rngs) if settings.teacher else None

    @property
    def frozen(self) -> Mapping[str, str]:
        """The backbone, and the teacher if there is one."""
        teacher = self.settings.teacher
        return {**super().frozen, "teacher": teacher} if teacher else super().frozen

    def load_frozen(self, part: str, file: Path) -> dict[str, Any]:
        """The backbone, or the teacher's slots and decoder of a folder that holds such a model.

        Raises:
            ConfigError: the config that lies beside a teacher's weights says otherwise.
        """
        if part == "teacher":
            self._check_teacher(file.with_name(run_files.CONFIG))
        return super().load_frozen(part, file)

    def _check_teacher(self, config: Path) -> None:
        block = run_files.read_json(config).get("model", {})
        expected = {name: getattr(self.settings, name) for name in _TEACHERS}
        for name, value in {**expected, "gradient": "unrolled"}.items():
            found = block.get(name, value)
            if found != value:
                raise ConfigError(
                    f"model.teacher: {config} has model.{name} = {found!r}, but this run needs a "
                    f"teacher with {value!r}. Train the first stage with it, or set model.{name} "
                    "here as there."
                )

    def noise(self, key: Array, batch_size: int) -> Noise:
        """Standard normals of the initial slots; which patches, or which order, is decoded.

        The teacher's are others.
        """
        noise = self._own_noise(key, batch_size)
        if self.teacher is not None:
            # Of a third key, so that a model's own noise is the same with a teacher.
            noise |= self.teacher.noise(jax.random.fold_in(key, 2), batch_size)
        return noise

    def _own_noise(self, key: Array, batch_size: int) -> Noise:
        slots_key, decoder_key = jax.random.split(key)
        noise, stride = self.slot_attention.noise(slots_key, batch_size), self.settings.patch_stride
        if isinstance(self.decoder, AutoregressiveDecoder):
            num_orders = self.decoder.num_orders
            noise["order"] = jax.random.randint(decoder_key, (batch_size,), 0, num_orders)
        elif stride > 1:
            noise["offset"] = pixel_offsets(decoder_key, batch_size, self.settings.grid)
        return noise

    def loss(
        self, batch: Batch, noise: Noise, *, step: Step, dropout_key: Array | None = None
    ) -> Loss:
        """Mean squared error over patches and channels, plus the terms of attention that are on."""
        del dropout_key  # no dropout in this model
        settings = self.settings
        features = self.features(batch)
        slots, attn = self.slot_attention(features, noise.get("slots"))
        target = standardised(features) if settings.normalize_target else features
        if isinstance(self.decoder, AutoregressiveDecoder):
            recon = self.decoder(slots, features, noise["order"])
        else:
            patches = self._some_patches(noise)
            recon, _ = self.decoder(slots, attn, patches)
            if patches is not None:
                target = jnp.take_along_axis(target, patches[..., None], axis=1)
        mse = jnp.mean((recon - target) ** 2, axis=(1, 2))
        loss, scalars = mse, {"recon_loss": mse}
        if settings.distillation_weight:
            first = self.slot_attention.first_attention(features, noise.get("slots"))
            scalars["distillation"] = distillation(first, attn)
            start, end = settings.distillation_ramp
            weight = cosine_ramp(
                step,
                start_value=0.0,
                end_value=settings.distillation_weight,
                start_step=start,
                end_step=end,
            )
            loss = loss + weight * scalars["distillation"]
        if self.teacher is not None:
            segments = self.teacher(features, noise)
            scalars["teacher"] = cross_entropy(attn, matched(attn, segments))
            loss = loss + settings.teacher_weight * scalars["teacher"]
        return loss, scalars

    def predict(self, batch: Batch, noise: Noise, *, step: Step) -> Prediction:
        """Masks and slots; `extras` has the slots' `attn`."""
        del step  # no schedule acts on the prediction
        features = self.features(batch)
        slots, attn = self.slot_attention(features, noise.get("slots"))
        if self.settings.masks == "attention":
            masks = rearrange(attn, "b n k -> b k n")
        else:
            masks = self._decode(slots, attn, features)[1]
        return Prediction(None, self.at_resolution(masks), slots, extras={"attn": attn})

    def attention(self, batch: Batch, noise: Noise, *, step: Step) -> Float[Array, "b t k h2 w2"]:
        """Every iteration's attention to the patches."""
        del step
        attn = self.slot_attention.iterations(self.features(batch), noise.get("slots"))
        return rearrange(attn, "b t (h w) k -> b t k h w", h=self.settings.grid[0])

    def visualize(self, batch: Batch, noise: Noise, *, step: Step) -> dict[str, Array]:
        """Features, and what is reconstructed of them, by the features' principal components."""
        del step
        features = self.features(batch)
        slots, attn = self.slot_attention(features, noise.get("slots"))
        recon, _ = self._decode(slots, attn, features)
        target = standardised(features) if self.settings.normalize_target else features
        shown, also = self.as_colours(target, recon)
        return {"features": shown, "reconstructed features": also}

    def _decode(
        self, slots: Array, attn: Array, features: Array
    ) -> tuple[Float[Array, "b n f"], Float[Array, "b k n"]]:
        """What is reconstructed of all patches, and the decoder's masks."""
        decoder = self.decoder
        if isinstance(decoder, MLPDecoder):
            return decoder(slots, attn)
        orders = range(decoder.num_orders if self.settings.average_orders else 1)
        found = [
            (decoder(slots, features, order), decoder.masks(slots, features, order))
            for order in (jnp.full(len(slots), i) for i in orders)
        ]
        recon, masks = (jnp.mean(jnp.stack(parts), axis=0) for parts in zip(*found, strict=True))
        return recon, masks

    def _some_patches(self, noise: Noise) -> Int[Array, "b m"] | None:
        """Numbers of the patches of every n-th row and column; None are all."""
        stride = self.settings.patch_stride
        if stride == 1:
            return None
        rows, columns = lattice(noise["offset"], self.settings.grid, stride)
        patches = rows[:, :, None] * self.settings.grid[1] + columns[:, None, :]
        return rearrange(patches, "b r c -> b (r c)")


class Teacher(nnx.Module):
    """A trained first stage, whose decoder divides the patches for a second one to learn."""

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        first_stage = dataclasses.replace(settings, gradient="unrolled", teacher=None)
        self.slot_attention, self.decoder = _trained_parts(first_stage, rngs)

    def noise(self, key: Array, batch_size: int) -> Noise:
        """Standard normals of its initial slots, and the order of its transformer."""
        slots_key, order_key = jax.random.split(key)
        noise = {"teacher_slots": self.slot_attention.noise(slots_key, batch_size)["slots"]}
        if isinstance(self.decoder, AutoregressiveDecoder):
            num_orders = self.decoder.num_orders
            noise["teacher_order"] = jax.random.randint(order_key, (batch_size,), 0, num_orders)
        return noise

    def __call__(self, features: Float[Array, "b n f"], noise: Noise) -> Int[Array, "b n"]:
        """The slot whose mask is largest, of every patch."""
        slots, attn = self.slot_attention(features, noise["teacher_slots"])
        if isinstance(self.decoder, MLPDecoder):
            _, masks = self.decoder(slots, attn)
        else:
            masks = self.decoder.masks(slots, features, noise["teacher_order"])
        return jnp.argmax(masks, axis=1)


def _trained_parts(
    settings: Settings, rngs: nnx.Rngs
) -> tuple[SlotAttention, MLPDecoder | AutoregressiveDecoder]:
    slot_attention = SlotAttention(
        settings.d_model,
        settings,
        input_mlp=settings.input_mlp,
        normalized_state=settings.normalized_state,
        rngs=rngs,
    )
    decoder = MLPDecoder if settings.decoder == "mlp" else AutoregressiveDecoder
    return slot_attention, decoder(settings, rngs=rngs)


def standardised(features: Float[Array, "b n f"]) -> Float[Array, "b n f"]:
    """Features with mean 0 and variance 1 over the channels of every patch."""
    mean = jnp.mean(features, axis=-1, keepdims=True)
    variance = jnp.var(features, axis=-1, keepdims=True, ddof=1)
    return (features - mean) / jnp.sqrt(variance + 1e-6)


def distillation(first: Float[Array, "b n k"], last: Float[Array, "b n k"]) -> Float[Array, "b"]:
    """Cross-entropy of the first iteration's attention, the last's being the target (DIAS).

    As in the published code, whose function takes the attention for logits: the mean over patches
    of −Σ_k last_k log softmax(first)_k.
    """
    log_first = jax.nn.log_softmax(first, axis=-1)
    return -jnp.mean(jnp.sum(lax.stop_gradient(last) * log_first, axis=-1), axis=-1)


def matched(attn: Float[Array, "b n k"], segments: Int[Array, "b n"]) -> Int[Array, "b n"]:
    """The slot that stands for the segment of each patch (SPOT).

    Every segment has a slot of its own, so that the IoU of segments and slots, to which patches
    belong that attend most to them, is largest in sum.
    """
    num_slots = attn.shape[-1]
    own = jax.nn.one_hot(jnp.argmax(attn, axis=-1), num_slots)
    segment = jax.nn.one_hot(segments, num_slots)
    shared = jnp.einsum("bnk,bnt->bkt", own, segment)
    either = jnp.sum(own, axis=1)[:, :, None] + jnp.sum(segment, axis=1)[:, None] - shared
    iou = shared / jnp.maximum(either, 1.0)
    slots, of = jax.vmap(optax.assignment.hungarian_algorithm)(-iou)
    slots = jnp.take_along_axis(slots, jnp.argsort(of, axis=1), axis=1)
    return jnp.take_along_axis(slots, segments, axis=1)


def cross_entropy(attn: Float[Array, "b n k"], slots: Int[Array, "b n"]) -> Float[Array, "b"]:
    """Of the attention, the class of each patch being a slot; mean over patches."""
    given = jnp.take_along_axis(attn, slots[..., None], axis=-1)[..., 0]
    return -jnp.mean(jnp.log(jnp.maximum(given, jnp.finfo(attn.dtype).tiny)), axis=-1)
