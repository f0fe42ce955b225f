"""DINOSAUR's slots and decoders in PyTorch, on features of a ViT that the caller has.

Several projects have published weights of them, each with keys of its own: `layouts` has those of
FT-DINOSAUR and VideoSAUR (the MLP decoder) and of SPOT (the transformer).
"""

from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from objdisc_jax.interop.base import Noise, Prediction, TorchModel
from objdisc_jax.interop.blocks import (
    SlotAttention,
    initialise,
    lattice,
    layers,
    pixel_offsets,
)
from objdisc_jax.interop.layouts import SAME, Rule
from objdisc_jax.interop.schedules import cosine_ramp
from objdisc_jax.interop.transformer import TransformerDecoder, transformer_names
from objdisc_jax.models.dinosaur.orders import patch_orders
from objdisc_jax.models.dinosaur.settings import Settings

_FT_SLOTS = "slot_attention.slot_attention."
_VIDEOSAUR_SLOTS = "processor.corrector."
_SPOT_SLOTS = "slot_attn.slot_attention."
_PARTS = "project_q project_k project_v gru mlp norm_inputs norm_slots norm_mlp".split()


class MLPDecoder(nn.Module):
    """Features and a mask logit of every patch, of each slot or of the `top_k` that see it most."""

    def __init__(self, settings: Settings):
        super().__init__()
        self.settings = settings
        self.grid = settings.position_grid or settings.grid
        count = self.grid[0] * self.grid[1]
        self.positions = nn.Parameter(torch.empty(1, count, settings.slot_size))
        nn.init.normal_(self.positions, std=0.02)
        self.mlp = layers(settings.slot_size, *settings.decoder_hidden, settings.d_model + 1)

    def forward(
        self, slots: Tensor, attn: Tensor, patches: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features `[b, m, f]` and masks `[b, k, m]` of slots `[b, k, d]`.

        Args:
            slots: of every image.
            attn: how its patches are divided among them, `[b, n, k]`.
            patches: numbers `[b, m]` of those to decode; None means all.
        """
        positions = self._resampled().expand(len(slots), -1, -1)
        if patches is not None:
            rows = torch.arange(len(slots), device=slots.device)[:, None]
            positions, attn = positions[rows, patches], attn[rows, patches]
        everywhere = slots[:, None].expand(-1, positions.shape[1], -1, -1)
        index = None
        if self.settings.top_k is not None:
            index = attn.detach().topk(self.settings.top_k).indices
            everywhere = everywhere.gather(2, index[..., None].expand(-1, -1, -1, slots.shape[2]))
        decoded = self.mlp(everywhere + positions[:, :, None]).float()
        masks = decoded[..., -1].softmax(-1)
        recon = torch.einsum("bmj,bmjf->bmf", masks, decoded[..., :-1])
        if index is not None:
            masks = torch.zeros_like(attn, dtype=masks.dtype).scatter(2, index, masks)
        return recon, masks.transpose(1, 2)

    def _resampled(self) -> Tensor:
        """Positions of the patches; a table of another grid is resampled."""
        if self.settings.grid == self.grid:
            return self.positions
        square = self.positions.transpose(1, 2).unflatten(-1, self.grid)
        found = functional.interpolate(square, self.settings.grid, mode="bicubic", antialias=True)
        return found.flatten(2).transpose(1, 2)


class AutoregressiveDecoder(nn.Module):
    """SPOT's transformer, which predicts every patch from those before it and from the slots."""

    orders: Tensor

    def __init__(self, settings: Settings):
        super().__init__()
        size = settings.d_model
        orders = torch.tensor(patch_orders(*settings.grid))
        self.num_orders = len(orders) if settings.orders == "random" else 1
        self.register_buffer("orders", orders[: self.num_orders], persistent=False)
        self.bos = nn.Parameter(torch.empty(self.num_orders, 1, 1, size))
        nn.init.normal_(self.bos, std=0.02)
        self.input_projection = nn.Linear(size, size, bias=False)
        self.slot_projection = nn.Linear(settings.slot_size, size, bias=False)
        for layer in (self.input_projection, self.slot_projection):
            initialise(layer, "xavier")
        self.input_norm, self.slot_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.transformer = TransformerDecoder(
            settings.num_patches, settings, plain=settings.plain_blocks
        )

    def forward(self, slots: Tensor, features: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """What is predicted of features `[b, n, f]` in an order `[b]`, and masks `[b, k, n]`."""
        places = self.orders[order]
        rows = torch.arange(len(slots), device=slots.device)[:, None]
        before = torch.cat([self.bos[order, 0], features[rows, places][:, :-1]], 1)
        sequence = self.input_norm(self.input_projection(before))
        memory = self.slot_norm(self.slot_projection(slots))
        back = places.argsort(1)
        recon = self.transformer(sequence, memory)[rows, back].float()
        masks = self.transformer.cross_weights(sequence, memory).mean(1)[rows, back]
        return recon, masks.transpose(1, 2)


class DINOSAUR(TorchModel):
    """Slots of features, and a decoder trained on features.

    Where other models take images it takes `features` `[b, n, f]` of a frozen ViT, patches row by
    row: those of the block that `settings.block` names. The loss knows no teacher.
    """

    input_range = (0.0, 1.0)
    names = (
        (r"slot_attention\.((?:input_)?mlp)\.\d+", r"slot_attention.\1.layers.{n}"),
        (r"decoder\.mlp\.\d+", "decoder.mlp.layers.{n}"),
        (r"decoder\.transformer\.layer_norm", "decoder.transformer.norm"),
        *transformer_names("decoder.transformer", "decoder.transformer"),
    )
    published = MappingProxyType({})
    layouts = MappingProxyType(
        {
            "FT-DINOSAUR": (
                ("slot_init.slots_mu", "slot_attention.slot_mu"),
                ("slot_init.slots_logsigma", "slot_attention.slot_log_sigma"),
                *((f"{_FT_SLOTS}to_{x}", f"slot_attention.project_{x}") for x in "qkv"),
                (f"{_FT_SLOTS}gru", "slot_attention.gru"),
                (f"{_FT_SLOTS}norm_input", "slot_attention.norm_inputs"),
                (f"{_FT_SLOTS}norm_slots", "slot_attention.norm_slots"),
                (f"{_FT_SLOTS}ff_mlp.module.0", "slot_attention.norm_mlp"),
                (f"{_FT_SLOTS}ff_mlp.module.1", "slot_attention.mlp.0"),
                (f"{_FT_SLOTS}ff_mlp.module.3", "slot_attention.mlp.2"),
                ("slot_attention.feature_transform.0", "slot_attention.input_layer_norm"),
                ("slot_attention.feature_transform.1", "slot_attention.input_mlp.0"),
                ("slot_attention.feature_transform.3", "slot_attention.input_mlp.2"),
                ("decoder.pos_embed", "decoder.positions"),
                ("decoder.decoder", "decoder.mlp"),
            ),
            "VideoSAUR": (
                ("initializer.mean", "slot_attention.slot_mu"),
                ("initializer.log_std", "slot_attention.slot_log_sigma"),
                ("encoder.output_transform.layers.0", "slot_attention.input_layer_norm"),
                ("encoder.output_transform.layers.1", "slot_attention.input_mlp.0"),
                ("encoder.output_transform.layers.3", "slot_attention.input_mlp.2"),
                *((f"{_VIDEOSAUR_SLOTS}to_{x}", f"slot_attention.project_{x}") for x in "qkv"),
                (f"{_VIDEOSAUR_SLOTS}gru", "slot_attention.gru"),
                (f"{_VIDEOSAUR_SLOTS}norm_features", "slot_attention.norm_inputs"),
                (f"{_VIDEOSAUR_SLOTS}norm_slots", "slot_attention.norm_slots"),
                (f"{_VIDEOSAUR_SLOTS}mlp.layers.0", "slot_attention.norm_mlp"),
                (f"{_VIDEOSAUR_SLOTS}mlp.layers.1", "slot_attention.mlp.0"),
                (f"{_VIDEOSAUR_SLOTS}mlp.layers.3", "slot_attention.mlp.2"),
                ("decoder.pos_emb", "decoder.positions", 1),
                ("decoder.mlp.layers", "decoder.mlp"),
            ),
            "SPOT": (
                ("bos_tokens", "decoder.bos"),
                ("slot_attn.slots_init.weight", "slot_attention.slots_init", -1),
                ("slot_attn.slot_mu", "slot_attention.slot_mu"),
                ("slot_attn.slot_log_sigma", "slot_attention.slot_log_sigma"),
                ("slot_attn.layer_norm", "slot_attention.input_layer_norm"),
                ("slot_attn.mlp", "slot_attention.input_mlp"),
                *((f"{_SPOT_SLOTS}{part}", f"slot_attention.{part}") for part in _PARTS),
                ("input_proj.0", "decoder.input_projection"),
                ("input_proj.1", "decoder.input_norm"),
                ("slot_proj.0", "decoder.slot_projection"),
                ("slot_proj.1", "decoder.slot_norm"),
                ("dec", "decoder.transformer"),
            ),
        }
    )

    settings: Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.slot_attention = SlotAttention(
            settings.d_model,
            settings,
            input_mlp=settings.input_mlp,
            normalized_state=settings.normalized_state,
        )
        decoder = MLPDecoder if settings.decoder == "mlp" else AutoregressiveDecoder
        self.decoder = decoder(settings)

    def noise(self, batch_size: int, generator: torch.Generator | None = None) -> Noise:
        """Standard normals of the initial slots; which patches, or which order, is decoded."""
        settings, device = self.settings, next(self.parameters()).device
        noise = self.slot_attention.noise(batch_size, generator, device)
        if isinstance(self.decoder, AutoregressiveDecoder):
            noise["order"] = torch.randint(
                self.decoder.num_orders, (batch_size,), generator=generator, device=device
            )
        elif settings.patch_stride > 1:
            noise["offset"] = pixel_offsets((batch_size,), settings.grid, generator, device)
        return noise

    def forward(self, image: Tensor, noise: Noise | None = None) -> Prediction:
        """Masks and slots; `extras` has the slots' `attn`.

        Args:
            image: features, `[b, n, f]`.
            noise: what `noise` drew; None draws now.
        """
        with self.compute_type():
            noise = self.noise(len(image)) if noise is None else noise
            slots, attn = self.slot_attention(image, noise.get("slots"))
            if self.settings.masks == "attention":
                masks = attn.transpose(1, 2)
            elif isinstance(self.decoder, MLPDecoder):
                _, masks = self.decoder(slots, attn)
            else:
                count = self.decoder.num_orders if self.settings.average_orders else 1
                orders = (torch.full((len(image),), i, device=image.device) for i in range(count))
                found = [self.decoder(slots, image, order)[1] for order in orders]
                masks = torch.stack(found).mean(0)
        masks = masks.float().unflatten(-1, self.settings.grid)
        masks = nn.functional.interpolate(masks, self.resolution, mode="bilinear")
        return Prediction(None, masks, slots, extras={"attn": attn})

    def loss(
        self, image: Tensor, noise: Noise | None = None, *, step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error over patches and channels, plus the distillation if it is on.

        Args:
            image: features, `[b, n, f]`.
            noise: what `noise` drew; None draws now.
            step: the training step, for the distillation's weight.
        """
        settings, target = self.settings, image
        if settings.normalize_target:
            variance, mean = torch.var_mean(image, -1, keepdim=True)
            target = (image - mean) / (variance + 1e-6).sqrt()
        with self.compute_type():
            noise = self.noise(len(image)) if noise is None else noise
            slots, attn = self.slot_attention(image, noise.get("slots"))
            if isinstance(self.decoder, MLPDecoder):
                patches = self._some_patches(noise)
                recon, _ = self.decoder(slots, attn, patches)
                if patches is not None:
                    rows = torch.arange(len(image), device=image.device)[:, None]
                    target = target[rows, patches]
            else:
                recon, _ = self.decoder(slots, image, noise["order"])
            loss = mse = ((recon - target) ** 2).mean((1, 2))
            scalars = {"recon_loss": mse}
            if settings.distillation_weight:
                first = self.slot_attention.first_attention(image, noise.get("slots"))
                pulled = -(attn.detach() * first.log_softmax(-1)).sum(-1).mean(-1)
                scalars["distillation"] = pulled
                weight = cosine_ramp(step, settings.distillation_weight, settings.distillation_ramp)
                loss = loss + weight * pulled
        return loss, scalars

    def _some_patches(self, noise: Noise) -> Tensor | None:
        """Numbers of the patches of every n-th row and column; None are all."""
        stride, grid = self.settings.patch_stride, self.settings.grid
        if stride == 1:
            return None
        rows, columns = lattice(noise["offset"], grid, stride)
        return (rows * grid[1] + columns).flatten(1)

    def rules(self) -> list[Rule]:
        """Where every parameter of this model is in the JAX model."""
        vectors = "decoder.bos"  # one for each order, no map
        return [
            rule._replace(layout=SAME) if rule.key == vectors else rule for rule in super().rules()
        ]

    def hyper_parameters(self) -> dict[str, Any]:
        """The settings by their own names: the publishing projects have no common ones."""
        settings = self.settings
        names = ("backbone", "block", "num_slots", "num_iterations", "slot_size", "decoder")
        return {"model_type": "dinosaur", **{name: getattr(settings, name) for name in names}}
