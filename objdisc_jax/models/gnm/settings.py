"""Settings of GNM."""

import dataclasses
import math
from types import MappingProxyType

from objdisc_jax import settings

Ramp = tuple[float, float, int, int]
"""An annealed setting: first value, last value, first step, last step, a straight line between."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.Settings):
    """By default the published 128x128 model."""

    recommended = MappingProxyType(
        {
            "num_train_steps": 300_000,
            "optimizer.name": "rmsprop",
            "optimizer.learning_rate": 1e-4,
            "optimizer.kwargs.decay": 0.99,
            "optimizer.kwargs.eps_in_sqrt": False,  # as PyTorch's
            "optimizer.clip_norm": 1.0,
            "schedule.name": "constant",
            "schedule.warmup_steps": 0.0,
        }
    )

    grid: tuple[int, int] = (4, 4)  # rows and columns of cells, a possible object each
    encoder_channels: tuple[int, ...] = (16, 16, 32, 32, 64, 64, 128, 128, 128)
    encoder_kernels: tuple[int, ...] = (4, 3, 4, 3, 4, 3, 4, 3, 4)  # sides of their kernels
    encoder_strides: tuple[int, ...] = (2, 1, 2, 1, 2, 1, 2, 1, 2)  # resolution to grid
    draw_steps: int = 4  # steps in which StructDRAW draws the global code
    global_size: int = 32  # size of the global latent of each step
    global_hidden: tuple[int, ...] = (512, 512)  # hidden layers of its prior and its posterior
    global_decoder_hidden: tuple[int, ...] = (512, 1024)  # hidden layers from it to the grid
    local_channels: tuple[int, ...] = (128, 128)  # layers from a cell's features to its latents
    what_size: int = 64  # size of z_what, a glimpse's appearance
    initial_size: float = -1.0  # raw size of all glimpses at first; its sigmoid is the image's part
    glimpse_channels: tuple[int, ...] = (128, 64, 32, 16, 8)  # layers that draw it, but the last
    glimpse_kernels: tuple[int, ...] = (3, 3, 3, 3, 3, 3)  # sides of their kernels
    glimpse_upscales: tuple[int, ...] = (2, 2, 2, 2, 2, 2)  # their product is its side
    background_size: int = 10  # size of z_bg
    background_hidden: tuple[int, ...] = (512, 256)  # hidden layers of its posterior
    background_prior_hidden: tuple[int, ...] = (128, 64)  # hidden layers of its prior
    background_channels: tuple[int, ...] = (128, 64, 32, 16, 8)  # layers that draw it, but the last
    background_kernels: tuple[int, ...] = (1, 1, 1, 1, 1, 3)  # sides of their kernels
    background_upscales: tuple[int, ...] = (4, 2, 4, 2, 2, 1)  # 1 pixel to the whole side
    sigma: float = 0.2  # standard deviation of a pixel around the decoded image
    temperature: Ramp = (1.0, 0.5, 1000, 20_000)  # of the relaxed presence
    early_steps: int = 500  # so long, in the decoded image, presence and coverage are held down
    early_pres: float = 0.99  # largest presence until then
    early_alpha: float = 0.9  # what the foreground is taken to cover until then
    # Auxiliary priors, fixed, beside the learned ones; depth, what and background: N(0, 1).
    aux_pres: Ramp = (0.1, 0.001, 0, 4000)  # probability of presence
    aux_where_mean: tuple[float, float, float, float] = (-1.5, 0.0, 0.0, 0.0)  # size, ratio, x, y
    aux_where_std: tuple[float, float, float, float] = (0.1, 0.3, 1.0, 1.0)
    # Weights of the KL terms: to the learned priors, then to the auxiliary ones.
    beta_pres: float = 1.0
    beta_where: float = 1.0
    beta_depth: float = 1.0
    beta_what: float = 1.0
    beta_bg: float = 1.0
    beta_global: Ramp = (0.0, 1.0, 0, 100_000)
    beta_aux_pres: float = 1.0
    beta_aux_where: Ramp = (10.0, 1.0, 0, 500)
    beta_aux_depth: float = 1.0
    beta_aux_what: float = 1.0
    beta_aux_bg: Ramp = (50.0, 1.0, 0, 50_000)
    dtype: settings.DType = "float32"

    @property
    def num_cells(self) -> int:
        """Cells of the grid."""
        return self.grid[0] * self.grid[1]

    @property
    def noise_sizes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the noise of an example, by the latent that it draws."""
        return {
            "global": (self.draw_steps, self.global_size),
            "pres": (self.num_cells, 1),
            "where": (self.num_cells, 4),
            "depth": (self.num_cells, 1),
            "what": (self.num_cells, self.what_size),
            "background": (self.background_size,),
        }

    def check(self) -> None:
        """Refuses layers that do not fit together, and values out of range."""
        self.at_least(1, "grid", "draw_steps", "global_size", "what_size", "background_size")
        self.at_least(1, *(f.name for f in dataclasses.fields(self) if f.type == tuple[int, ...]))
        for key in ("encoder_channels", "local_channels"):
            if not getattr(self, key):
                self.refuse(key, "there must be at least one layer")
        self.same_length("encoder_channels", "encoder_kernels", "encoder_strides")
        self.same_length("glimpse_channels", "glimpse_kernels", "glimpse_upscales", more=1)
        self.same_length("background_channels", "background_kernels", "background_upscales", more=1)
        if self.sigma <= 0.0:
            self.refuse("sigma", "standard deviations are positive")
        if min(self.aux_where_std) <= 0.0:
            self.refuse("aux_where_std", "standard deviations are positive")
        if min(self.temperature[:2]) <= 0.0:
            self.refuse("temperature", "its first two numbers, the values, must be above 0")
        if not all(0.0 <= probability <= 1.0 for probability in self.aux_pres[:2]):
            self.refuse("aux_pres", "its first two numbers, the values, lie between 0 and 1")
        self.between(0.0, 1.0, "early_pres", "early_alpha")
        height, width = self.resolution
        for stride in self.encoder_strides:
            height, width = -(-height // stride), -(-width // stride)
        if (height, width) != self.grid:
            self.refuse(
                "grid",
                f"model.encoder_strides bring model.resolution {self.resolution} to "
                f"{(height, width)}; change one of them",
            )
        side = math.prod(self.background_upscales)
        if self.resolution != (side, side):
            self.refuse(
                "background_upscales",
                f"they make a background of {side}x{side} pixels, but model.resolution is "
                f"{self.resolution}; their product must be its height and its width",
            )

    @classmethod
    def small(cls) -> "Settings":
        """A model of 16x16 pixels and four cells."""
        return cls(
            resolution=(16, 16),
            grid=(2, 2),
            encoder_channels=(8, 8),
            encoder_kernels=(4, 4),
            encoder_strides=(4, 2),
            draw_steps=2,
            global_size=4,
            global_hidden=(8,),
            global_decoder_hidden=(8,),
            local_channels=(8,),
            what_size=4,
            glimpse_channels=(8,),
            glimpse_kernels=(3, 3),
            glimpse_upscales=(2, 4),
            background_size=3,
            background_hidden=(8,),
            background_prior_hidden=(8,),
            background_channels=(8,),
            background_kernels=(1, 3),
            background_upscales=(4, 4),
        )
