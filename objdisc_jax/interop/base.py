"""The contract of the PyTorch models: what their JAX counterparts offer, in PyTorch's layouts.

The modules need PyTorch and nothing else; JAX need not be installed to use them.
"""

import abc
import contextlib
import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from objdisc_jax.interop import layouts
from objdisc_jax.interop.layouts import Names, Rule, Table

Noise = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says about images."""

    recon: Tensor | None  # `[b, 3, h, w]` in the model's input range; None if it makes no images
    masks: Tensor  # `[b, k, h, w]`, soft, sum to 1 over k
    slots: Tensor  # `[b, k, d]`
    # Index of the mask that is the background by construction, or None.
    background: int | None = None
    # How many objects the model says there are, `[b]`, or None if it doesn't count.
    count: Tensor | None = None
    # Anything else worth showing, by name.
    extras: dict[str, Tensor] = dataclasses.field(default_factory=dict)


class TorchModel(nn.Module, abc.ABC):
    """An object-discovery model in PyTorch.

    It is built from the same `Settings` as the JAX model. The keys and shapes of its `state_dict`
    are those of the published weights. `torch.autocast` computes in bfloat16 where the settings'
    `dtype` says so; parameters are float32.

    Attributes:
        input_range: what black and white are to the model.
        settings: what it was built from.
        names: the modules' names in the published weights and here, as in `layouts.rules`.
        published: settings of which the published code knows this one value only.
        layouts: by the name of a project that publishes weights under other names, what its keys
            begin with and what ours do, and, if its tensors have more axes in front, of one, how
            many (fewer are negative); for models that several have published.
        annealed: last components of the names of buffers that training changes, which a
            checkpoint may hold with any value.
    """

    input_range: ClassVar[tuple[float, float]]
    names: ClassVar[Table]
    published: ClassVar[Mapping[str, Any]]
    layouts: ClassVar[Mapping[str, Names]] = MappingProxyType({})
    annealed: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Any):
        super().__init__()
        self.settings = settings

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width of the images that the model takes."""
        return self.settings.resolution

    @abc.abstractmethod
    def noise(self, batch_size: int, generator: torch.Generator | None = None) -> Noise:
        """Every random draw of a forward pass, as tensors `[b, ...]` on the model's device."""

    @abc.abstractmethod
    def forward(self, image: Tensor, noise: Noise | None = None) -> Prediction:
        """Reconstruction, masks and slots.

        Args:
            image: `[b, 3, h, w]` in `input_range`.
            noise: what `noise` drew; None draws now.
        """

    @abc.abstractmethod
    def loss(
        self, image: Tensor, noise: Noise | None = None, *, step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its parts, each `[b]`.

        Args:
            image: `[b, 3, h, w]` in `input_range`.
            noise: what `noise` drew; None draws now.
            step: the training step, for schedules.
        """

    def rules(self) -> list[Rule]:
        """Where every parameter of this model is in the JAX model."""
        return layouts.rules(self, self.names)

    @abc.abstractmethod
    def hyper_parameters(self) -> dict[str, Any]:
        """The settings under the names of the published checkpoints' hyper-parameters."""

    def compute_type(self) -> contextlib.AbstractContextManager:
        """The context in which a forward pass is computed."""
        dtype = getattr(self.settings, "dtype", "float32")
        if dtype == "float32":
            return contextlib.nullcontext()
        device = next(self.parameters()).device.type
        return torch.autocast(device, dtype=getattr(torch, dtype))
