"""The Slot Attention auto-encoder in PyTorch, with the published weights' keys and shapes.

Settings that the published code lacks have keys of their own: `encoder_norm`, wider position grids
for Fourier features, `slot_attention.slots_init`, and `decoder_slot_layer` with a `decoder` of
linear layers for the decoder that treats every pixel alone.
"""

from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from objdisc_jax.interop.base import Noise, Prediction, TorchModel
from objdisc_jax.interop.blocks import (
    ACTIVATIONS,
    PositionEmbedding,
    SameConv2d,
    SlotAttention,
    SlotAttentionOutput,
    initialise,
    lattice,
    pixel_offsets,
)
from objdisc_jax.interop.schedules import cosine_ramp
from objdisc_jax.models.slot_attention.settings import Settings


class SlotAttentionAutoEncoder(TorchModel):
    """Convolutional encoder, Slot Attention, and a broadcast decoder trained on pixels."""

    input_range = (-1.0, 1.0)
    names = (
        (r"encoder\.(\d+)\.0", r"encoder.layers.\1"),
        (r"encoder_pos_embedding\.dense", "encoder_position.dense"),
        (r"encoder_out_layer\.\d+", "encoder_mlp.layers.{n}"),
        (r"encoder_norm", "encoder_layer_norm"),
        (r"decoder_pos_embedding\.dense", "decoder.position.dense"),
        (r"decoder_slot_layer", "decoder.slot_layer"),
        (r"decoder\.(\d+)\.0", r"decoder.layers.\1"),
        (r"decoder\.\d+\.2", "decoder.out"),
        (r"decoder\.\d+", "decoder.mlp.layers.{n}"),
        (r"slot_attention\.((?:input_)?mlp)\.\d+", r"slot_attention.\1.layers.{n}"),
    )
    published = MappingProxyType(
        {
            "gradient": "implicit",
            "encoder_channels": (64, 64, 64, 64),
            "encoder_kernels": (5, 5, 5, 5),
            "encoder_strides": (1, 1, 1, 1),
            "encoder_residual": False,
            "encoder_norm": False,
            "position": "linear",
            "activation": "leaky_relu",
            "decoder": "conv",
            "decoder_channels": (64, 64, 64, 64, 64),
            "decoder_strides": (2, 2, 2, 2, 1),
            "output": "linear",
        }
    )

    settings: Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        slot_size, decoder_channels = settings.slot_size, settings.decoder_channels
        height, width = settings.resolution
        act = ACTIVATIONS[settings.activation]
        features = settings.encoder_channels[-1]
        frequencies = settings.num_frequencies if settings.position == "fourier" else 0
        self.encoder = nn.Sequential(
            *(
                nn.Sequential(SameConv2d(n_in, n_out, kernel, stride), act())
                for (n_in, n_out), kernel, stride in zip(
                    pairwise((3, *settings.encoder_channels)),
                    settings.encoder_kernels,
                    settings.encoder_strides,
                    strict=True,
                )
            )
        )
        for stride in settings.encoder_strides:
            height, width = -(-height // stride), -(-width // stride)
        self.encoder_pos_embedding = PositionEmbedding(features, (height, width), frequencies)
        self.encoder_norm = nn.LayerNorm(features) if settings.encoder_norm else None
        first, second = nn.Linear(features, features), nn.Linear(features, features)
        self.encoder_out_layer = nn.Sequential(first, act(), second)
        for layer in [conv for conv in self.encoder.modules() if isinstance(conv, nn.Conv2d)]:
            initialise(layer, settings.encoder_init)
        initialise(first, settings.encoder_init)
        second_init = "xavier" if settings.encoder_init == "kaiming" else settings.encoder_init
        initialise(second, second_init)
        if settings.decoder == "conv":
            stages = [
                [nn.ConvTranspose2d(n_in, n_out, 5, stride, 2, stride - 1), act()]
                for (n_in, n_out), stride in zip(
                    pairwise((slot_size, *decoder_channels)), settings.decoder_strides, strict=True
                )
            ]
            stages[-1].append(nn.ConvTranspose2d(decoder_channels[-1], 4, 3, 1, 1))
            self.decoder_slot_layer = None
            self.decoder = nn.Sequential(*(nn.Sequential(*stage) for stage in stages))
            self.decoder_pos_embedding = PositionEmbedding(slot_size, settings.decoder_grid)
        else:
            hidden, *rest = decoder_channels
            self.decoder_slot_layer = nn.Linear(slot_size, hidden, bias=False)
            stages = [[act(), nn.Linear(*sizes)] for sizes in pairwise((hidden, *rest, 4))]
            self.decoder = nn.Sequential(*(layer for stage in stages for layer in stage))
            self.decoder_pos_embedding = PositionEmbedding(
                hidden, settings.resolution, settings.num_frequencies
            )
            initialise(self.decoder_slot_layer, "xavier")
            initialise(self.decoder_pos_embedding.dense, "xavier")
            for i, (_, layer) in enumerate(stages):
                initialise(layer, "xavier" if i else "kaiming")
        self.slot_attention = SlotAttention(features, settings)

    def noise(self, batch_size: int, generator: torch.Generator | None = None) -> Noise:
        """Standard normals of the initial slots; offsets of the pixels decoded in training."""
        device, stride = self.encoder_pos_embedding.grid.device, self.settings.pixel_stride
        noise = self.slot_attention.noise(batch_size, generator, device)
        if stride > 1:
            noise["offset"] = pixel_offsets((batch_size,), self.resolution, generator, device)
        return noise

    def encode(self, image: Tensor) -> Tensor:
        """The vectors `[b, n, c]` that Slot Attention reads, row by row."""
        x = image
        for layer in self.encoder:
            y = layer(x)
            x = x + y if self.settings.encoder_residual and x.shape == y.shape else y
        x = self.encoder_pos_embedding(x).flatten(2).transpose(1, 2)
        if self.encoder_norm is not None:
            x = self.encoder_norm(x)
        return self.encoder_out_layer(x)

    def attend(self, image: Tensor, noise: Noise) -> SlotAttentionOutput:
        """Slots of images and the attention that found them."""
        return self.slot_attention(self.encode(image), noise.get("slots"))

    def decode(self, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image, colours of every slot `[b, k, 3, h, w]`, and masks, at all pixels."""
        if self.decoder_slot_layer is not None:
            return self._decode_positions(slots, self.decoder_pos_embedding.grid)
        x = slots.flatten(0, 1)[..., None, None].expand(-1, -1, *self.settings.decoder_grid)
        x = self.decoder(self.decoder_pos_embedding(x))
        return self._compose(x.unflatten(0, slots.shape[:2]))

    def _decode_positions(self, slots: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decodes pixels one by one, from their position features `[#b, h, w, f]`."""
        assert self.decoder_slot_layer is not None
        slot_part = self.decoder_slot_layer(slots)[:, :, None, None]
        hidden = slot_part + self.decoder_pos_embedding.dense(features)[:, None]
        return self._compose(self.decoder(hidden).movedim(-1, 2))

    def _compose(self, decoded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Alpha-composes the slots' colours and mask logits `[b, k, 4, h, w]`."""
        decoded = decoded.float()
        recons, masks = decoded[:, :, :3], decoded[:, :, 3].softmax(1)
        if self.settings.output == "tanh":
            recons = recons.tanh()
        return (masks[:, :, None] * recons).sum(1), recons, masks

    def _some_pixels(self, image: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Every n-th row and column of images, and the position features there."""
        rows, cols = lattice(offset, self.resolution, self.settings.pixel_stride)
        batch = torch.arange(len(image), device=offset.device)[:, None, None]
        features = self.decoder_pos_embedding.grid[0, rows, cols]
        return image[batch, :, rows, cols].movedim(-1, 1), features

    def forward(self, image: Tensor, noise: Noise | None = None) -> Prediction:
        """Reconstruction, masks and slots; `extras` has the slots' `recons` and `attn`."""
        with self.compute_type():
            noise = self.noise(len(image)) if noise is None else noise
            slots, attn = self.attend(image, noise)
            recon, recons, masks = self.decode(slots)
        return Prediction(recon, masks, slots, extras={"recons": recons, "attn": attn})

    def loss(
        self, image: Tensor, noise: Noise | None = None, *, step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error over pixels and channels, plus the regularisers that are on."""
        settings = self.settings
        with self.compute_type():
            noise = self.noise(len(image)) if noise is None else noise
            slots = self.attend(image, noise).slots
            if settings.pixel_stride > 1:
                image, features = self._some_pixels(image, noise["offset"])
                recon, _, masks = self._decode_positions(slots, features)
            else:
                recon, _, masks = self.decode(slots)
        loss = mse = ((recon - image) ** 2).flatten(1).mean(1)
        scalars = {"recon_loss": mse}
        if settings.separation != "none":
            scalars["separation"] = separation(masks, settings.separation)
            weight = cosine_ramp(step, settings.separation_weight, settings.separation_ramp)
            loss = loss + weight * scalars["separation"]
        if settings.area_weight:
            scalars["area"] = area(masks, settings.area_of_object)
            weight = cosine_ramp(step, settings.area_weight, settings.area_ramp)
            loss = loss + weight * scalars["area"]
        return loss, scalars

    def hyper_parameters(self) -> dict[str, Any]:
        """The settings under the names of the published checkpoints' hyper-parameters."""
        settings = self.settings
        found: dict[str, Any] = {"model_type": "sa", "neg_1_to_pos_1_scale": True}
        for name in ("resolution", "num_slots", "num_iterations", "slot_size", "mlp_hidden_size"):
            found[name] = getattr(settings, name)
        separated = settings.separation != "none"
        found["use_separation_loss"] = settings.separation if separated else None
        found["use_area_loss"] = bool(settings.area_weight)
        for name, is_on in (("separation", separated), ("area", found["use_area_loss"])):
            if is_on:
                found[f"{name}_tau_start"], found[f"{name}_tau_end"] = getattr(
                    settings, f"{name}_ramp"
                )
                found[f"{name}_tau_max_val"] = getattr(settings, f"{name}_weight")
        return found


def separation(masks: Tensor, kind: str) -> Tensor:
    """How undecided masks `[b, k, h, w]` are: `entropy` over slots, or 1 − the largest (`max`)."""
    if kind == "max":
        return _mean_over_pixels(1.0 - masks.amax(1))
    p = masks + 1e-8
    return _mean_over_pixels(-(p * p.log()).sum(1))


def area(masks: Tensor, object_area: float) -> Tensor:
    """Pulls every mask towards the area of two objects or that of what they leave (BoxWorld)."""
    k, height, width = masks.shape[1:]
    areas = masks.sum((2, 3))
    rest = height * width - (k - 1) * object_area - areas
    as_object = (areas - 2.0 * object_area) ** 2
    as_background = rest.clamp(min=0.0) * rest
    # torch.where rather than torch.minimum: on a tie the gradient goes to the first branch alone.
    least = torch.where(as_object <= as_background, as_object, as_background)
    return least.mean(1) / (2.0 * object_area) ** 2


def _mean_over_pixels(x: Tensor) -> Tensor:
    """The mean over all axes but the first."""
    return x.flatten(1).mean(1)
