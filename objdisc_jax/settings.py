"""What the settings of all models have in common; imports the standard library alone."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from objdisc_jax.errors import ConfigError
from objdisc_jax.names import closest

DType = Literal["float32", "bfloat16"]
"""Compute type of a model; its parameters are float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a model: a frozen dataclass, every field with a default and a comment.

    A config's `model` block is made of the fields; the JAX model and the PyTorch module take the
    object itself. Lists become tuples; types, the lengths of tuples and the choices of a `Literal`
    are checked here by the annotations, all else in the subclass's own `check`.

    Raises:
        ConfigError: a field is not allowed; names it, what it is, and what is allowed.
    """

    recommended: ClassVar[Mapping[str, Any]] = types.MappingProxyType({})
    """What the model's paper prescribes for training, by the config's full keys: learning rates,
    warm-up, clipping; a group of parameters by the arguments of `config.group_config`. `experiment`
    sets them; an experiment states what differs."""
    has_coarse_masks: ClassVar[bool] = False
    """Whether masks are of patches: who shows them on a photograph enlarges them smoothly, and the
    model sees all of it."""

    resolution: tuple[int, int] = (128, 128)  # height and width that images are resized to

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _as_annotated(getattr(self, field.name), hints[field.name])
            if value is _MISFIT:
                self.refuse(field.name, _describe(hints[field.name]))
            object.__setattr__(self, field.name, value)
        self.at_least(1, "resolution")
        self.check()

    def check(self) -> None:
        """Refuses values out of range, and values that contradict each other."""

    def resized(self, resolution: tuple[int, int]) -> "Settings":
        """The settings with which a model trained with these sees images of another size.

        Raises:
            ConfigError: the resolution is not allowed.
        """
        return dataclasses.replace(self, resolution=resolution)

    def fitted(self, rows: int, columns: int) -> tuple[int, int] | None:
        """The resolution at which an image may be seen in its own aspect ratio.

        Args:
            rows: of the image.
            columns: of the image.

        Returns:
            A resolution that `resized` takes; None if the model sees images of one shape.
        """
        del rows, columns
        return None

    @classmethod
    def small(cls) -> "Settings":
        """Settings of a small model, with which tests of all models are quick."""
        return cls()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """The settings of a mapping; what it lacks is as by default.

        Raises:
            ConfigError: a field is unknown or not allowed.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"model.{key}: there is no such setting{closest(key, known)}.")
        return cls(**values)

    def refuse(self, key: str, allowed: str) -> typing.NoReturn:
        """Raises the error that a field is not allowed.

        Args:
            key: name of the field.
            allowed: what it may be: "it must be at least 1".
        """
        raise ConfigError(f"model.{key}: got {getattr(self, key)!r}; {allowed}.")

    def at_least(self, least: float, *keys: str) -> None:
        """Refuses fields below a number; of a tuple, every entry counts."""
        for key in keys:
            value = getattr(self, key)
            if min(value if isinstance(value, tuple) else (value,), default=least) < least:
                self.refuse(key, f"it must be at least {least}")

    def between(self, low: float, high: float, *keys: str) -> None:
        """Refuses fields outside of an interval, ends included; of a tuple, every entry counts."""
        for key in keys:
            value = getattr(self, key)
            if not all(low <= x <= high for x in (value if isinstance(value, tuple) else (value,))):
                self.refuse(key, f"it lies between {low} and {high}")

    def same_length(self, layers: str, *others: str, more: int = 0) -> None:
        """Refuses fields that do not have one entry per layer.

        Args:
            layers: the field whose length counts.
            others: fields of the same length.
            more: by so much the others are longer.
        """
        wanted = len(getattr(self, layers)) + more
        for key in others:
            if len(getattr(self, key)) != wanted:
                self.refuse(
                    key, f"model.{layers} {getattr(self, layers)} asks for {wanted} entries"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlotAttentionSettings(Settings):
    """Settings of models with Slot Attention (`objdisc_jax.nn.slot_attention`)."""

    num_slots: int = 7  # slots, the background's included
    slot_size: int = 64  # size of a slot
    num_iterations: int = 3  # iterations of attention; "implicit" adds the differentiated one
    mlp_hidden_size: int = 128  # width of the slots' residual MLP
    gradient: Literal["implicit", "unrolled", "bo_qsa"] = "implicit"  # how gradients flow
    dtype: DType = "float32"  # compute type; parameters, norms and losses are float32

    def check(self) -> None:
        """Refuses sizes below 1."""
        self.at_least(1, "num_slots", "slot_size", "num_iterations", "mlp_hidden_size")


class ViT(NamedTuple):
    """Sizes of a vision transformer that is published with weights."""

    repository: str  # on the Hugging Face Hub
    patch: int  # side of a patch, pixels
    width: int  # size of a token
    num_blocks: int
    num_heads: int
    table: int  # side of the table of positions, patches
    layer_scale: bool = True  # DINOv2 scales what a block adds, channel by channel
    registers: int = 0  # learned tokens beside cls and patches


VITS = types.MappingProxyType(
    {
        "dinov2_s14": ViT("facebook/dinov2-small", 14, 384, 12, 6, 37),
        "dinov2_b14": ViT("facebook/dinov2-base", 14, 768, 12, 12, 37),
        "dinov2_s14_registers": ViT(
            "facebook/dinov2-with-registers-small", 14, 384, 12, 6, 37, registers=4
        ),
        "dinov2_b14_registers": ViT(
            "facebook/dinov2-with-registers-base", 14, 768, 12, 12, 37, registers=4
        ),
        "dino_s16": ViT("facebook/dino-vits16", 16, 384, 12, 6, 14, layer_scale=False),
        "dino_s8": ViT("facebook/dino-vits8", 8, 384, 12, 6, 28, layer_scale=False),
        "dino_b16": ViT("facebook/dino-vitb16", 16, 768, 12, 12, 14, layer_scale=False),
        "dino_b8": ViT("facebook/dino-vitb8", 8, 768, 12, 12, 28, layer_scale=False),
        "tiny": ViT("", 4, 48, 2, 4, 5, registers=1),  # of tests
    }
)
"""The backbones by name."""


RESAMPLINGS = ("size", "offset", "antialias")
"""How a backbone's positions may be resampled."""


@runtime_checkable
class TransformerSettings(Protocol):
    """What the decoder asks of a model's settings."""

    @property
    def d_model(self) -> int:
        """Size of a token's vector."""
        ...

    @property
    def num_heads(self) -> int:
        """Heads of the attention."""
        ...

    @property
    def num_decoder_blocks(self) -> int:
        """Blocks."""
        ...

    @property
    def dropout(self) -> float:
        """Share of attention weights and outputs that is dropped."""
        ...

    @property
    def rematerialize(self) -> bool:
        """Whether activations are computed again to save memory."""
        ...

    @property
    def dtype(self) -> str:
        """Compute type."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSettings(Settings):
    """Settings of models on the features of a frozen ViT (`objdisc_jax.nn.vit`)."""

    has_coarse_masks = True

    resolution: tuple[int, int] = (224, 224)
    backbone: str = "dinov2_s14"  # a name of VITS
    # Its weights: a safetensors file in Hugging Face's layout, or a repository there; None is the
    # one that publishes them.
    weights: str | None = None
    block: int = 12  # the block whose output the features are, from 1 on
    final_norm: bool = False  # whether the backbone's last LayerNorm is applied to that
    # How positions are resampled to other image sizes than the backbone's own: as Hugging Face
    # (size) and as Meta do (offset), both bicubic, or with antialiasing, as timm does and Hugging
    # Face for models with registers. None: as Hugging Face does for this backbone.
    positions: str | None = None
    cached: bool = False  # read features, from the file `data.features`, and no images
    dtype: DType = "float32"  # compute type; parameters, norms and losses are float32

    @property
    def vit(self) -> ViT:
        """The backbone's sizes."""
        return VITS[self.backbone]

    @property
    def resampling(self) -> str:
        """How positions are resampled."""
        return self.positions or ("antialias" if self.vit.registers else "size")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.resolution[0] // self.vit.patch, self.resolution[1] // self.vit.patch

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return self.grid[0] * self.grid[1]

    def fitted(self, rows: int, columns: int) -> tuple[int, int]:
        """The resolution most like an image's aspect ratio, of about as many patches.

        There are at most as many. A difference of the aspect ratio counts as much as twice that of
        the number of patches.
        """
        most, aspect = self.num_patches, columns / rows

        def misfit(grid: tuple[int, int]) -> float:
            high, wide = grid
            return abs(math.log(wide / high / aspect)) + 0.5 * math.log(most / (high * wide))

        grids = (
            (high, min(max(round(high * aspect), 1), most // high)) for high in range(1, most + 1)
        )
        high, wide = min(grids, key=misfit)
        return high * self.vit.patch, wide * self.vit.patch

    def check(self) -> None:
        """Refuses backbones that there are not, and images that patches do not fill."""
        super().check()
        if self.backbone not in VITS:
            self.refuse("backbone", f"allowed are {', '.join(VITS)}")
        patch = self.vit.patch
        if any(side % patch for side in self.resolution):
            near = tuple(max(1, round(side / patch)) * patch for side in self.resolution)
            self.refuse(
                "resolution",
                f"the patches of {self.backbone} are {patch}x{patch} pixels: use multiples of "
                f"{patch}, such as {near}",
            )
        self.between(1, self.vit.num_blocks, "block")
        if self.resampling not in RESAMPLINGS:
            self.refuse("positions", f"allowed are None, {', '.join(RESAMPLINGS)}")
        if self.final_norm and self.block != self.vit.num_blocks:
            self.refuse("final_norm", f"it belongs to the last block, {self.vit.num_blocks}")


_MISFIT = object()


def _as_annotated(value: Any, hint: Any) -> Any:
    """A value as its annotation has it, or `_MISFIT`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value if value in arguments else _MISFIT
    if origin in (types.UnionType, typing.Union):
        fitting = (_as_annotated(value, one) for one in arguments)
        return next((one for one in fitting if one is not _MISFIT), _MISFIT)
    if origin is tuple:
        return _as_tuple(value, arguments)
    if hint is float and type(value) is int:
        return float(value)
    return value if type(value) is hint else _MISFIT


def _as_tuple(value: Any, hints: tuple[Any, ...]) -> Any:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return _MISFIT
    if hints[-1] is Ellipsis:
        hints = (hints[0],) * len(value)
    entries = tuple(_as_annotated(*pair) for pair in zip(value, hints, strict=False))
    return entries if len(value) == len(hints) and _MISFIT not in entries else _MISFIT


def _describe(hint: Any) -> str:
    """An annotation in words."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return f"allowed are {', '.join(map(str, arguments))}"
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return ", or ".join(_describe(one) for one in arguments)
    if typing.get_origin(hint) is tuple:
        of = getattr(arguments[0], "__name__", str(arguments[0]))
        length = "any number" if arguments[-1] is Ellipsis else len(arguments)
        return f"it is a tuple of {length} of type {of}"
    return f"it is {'None' if hint is type(None) else f'of type {hint.__name__}'}"
