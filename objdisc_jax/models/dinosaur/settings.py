"""Settings of DINOSAUR."""

import dataclasses
from types import MappingProxyType
from typing import Literal

from objdisc_jax import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.BackboneSettings, settings.SlotAttentionSettings):
    """By default DINOSAUR with the MLP decoder on DINOv2's ViT-S/14, at the sizes of the paper."""

    recommended = MappingProxyType({"optimizer.clip_norm": 1.0, "background.mode": "none"})

    slot_size: int = 256
    mlp_hidden_size: int = 1024
    gradient: Literal["implicit", "unrolled", "bo_qsa"] = "unrolled"
    input_mlp: tuple[int, ...] = (768, 256)  # layers between the features and Slot Attention
    normalized_state: bool = False  # what the GRU updates are the normalised slots (VideoSAUR)
    decoder: Literal["mlp", "transformer"] = "mlp"  # every patch alone, or one after another
    decoder_hidden: tuple[int, ...] = (2048, 2048, 2048)  # mlp: widths of its layers but the last
    # mlp: rows and columns of the learned table of positions, which other grids of patches
    # interpolate; None: one position per patch.
    position_grid: tuple[int, int] | None = None
    # mlp: decode only so many slots for a patch, those that attend most to it; None: all.
    top_k: int | None = None
    patch_stride: int = 1  # mlp: decode every n-th row and column in training, at a random offset
    num_heads: int = 6  # transformer: heads of its attention
    num_decoder_blocks: int = 4  # transformer: its blocks
    # transformer: blocks as PyTorch and DINOSAUR's own code have them, with biases in the attention
    # and no norm at the end, rather than SLATE's and SPOT's.
    plain_blocks: bool = False
    # transformer: patches are predicted row by row, or in training in one of SPOT's nine orders.
    orders: Literal["rows", "random"] = "rows"
    average_orders: bool = False  # transformer: masks are the mean over all orders, not of rows
    rematerialize: bool = False  # transformer: compute activations again to save memory
    masks: Literal["decoder", "attention"] = "decoder"  # which are the prediction
    # Reconstruct features that have mean 0 and variance 1 over the channels of each patch.
    normalize_target: bool = False
    # Final weight of the loss that draws the first iteration's attention towards the last's (DIAS).
    distillation_weight: float = 0.0
    distillation_ramp: tuple[int, int] = (0, 500_000)  # steps between which it rises from 0
    # A trained model with these settings but gradient 'unrolled', as a folder that `convert
    # to-pretrained` makes, a safetensors file or a repository: the attention learns its masks
    # (SPOT's second stage).
    teacher: str | None = None
    teacher_weight: float = 0.005  # of that loss

    @property
    def d_model(self) -> int:
        """Size of the features, and of the transformer."""
        return self.vit.width

    @property
    def dropout(self) -> float:
        """Of the transformer: none."""
        return 0.0

    def resized(self, resolution: tuple[int, int]) -> "Settings":
        """As these, the table of positions as it was learned, and every patch decoded."""
        kept = (self.position_grid or self.grid) if self.decoder == "mlp" else None
        return dataclasses.replace(self, resolution=resolution, position_grid=kept, patch_stride=1)

    def check(self) -> None:
        """Refuses settings out of range, and those that contradict each other."""
        super().check()
        self.at_least(1, "input_mlp", "decoder_hidden", "num_heads", "num_decoder_blocks")
        if not self.decoder_hidden:
            self.refuse("decoder_hidden", "there must be at least one layer")
        self.between(1, min(self.grid), "patch_stride")
        if self.top_k is not None:
            self.between(1, self.num_slots, "top_k")
        if self.position_grid is not None:
            self.at_least(1, "position_grid")
        if self.decoder == "transformer":
            if self.position_grid is not None:
                self.refuse("position_grid", "it must be None unless model.decoder is 'mlp'")
            if self.top_k is not None:
                self.refuse("top_k", "it must be None unless model.decoder is 'mlp'")
            if self.patch_stride != 1:
                self.refuse("patch_stride", "it must be 1 unless model.decoder is 'mlp'")
            if self.d_model % self.num_heads:
                self.refuse("num_heads", f"it must divide the size of features, {self.d_model}")
        elif self.orders != "rows":
            self.refuse("orders", "it must be 'rows' unless model.decoder is 'transformer'")
        if self.average_orders and self.orders == "rows":
            self.refuse("average_orders", "it needs model.orders 'random'")
        if self.teacher and self.teacher_weight <= 0.0:
            self.refuse("teacher_weight", "it must be above 0 for model.teacher to teach")
        if self.distillation_weight and self.gradient != "unrolled":
            self.refuse(
                "distillation_weight",
                "the first iteration learns nothing of it unless model.gradient is 'unrolled'",
            )

    @classmethod
    def small(cls) -> "Settings":
        """A model of 24x24 pixels on a backbone of two blocks."""
        return cls(
            resolution=(24, 24),
            backbone="tiny",
            block=2,
            num_slots=3,
            slot_size=8,
            mlp_hidden_size=8,
            input_mlp=(8, 8),
            decoder_hidden=(8, 8),
            num_heads=2,
            num_decoder_blocks=2,
        )
