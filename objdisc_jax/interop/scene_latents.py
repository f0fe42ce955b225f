"""Parts of the PyTorch GNM that stand between features and latents, and latents and pixels."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from objdisc_jax.interop.stacks import NormedConvs, NormedMLP, SubPixelStack
from objdisc_jax.interop.struct_draw import normal
from objdisc_jax.models.gnm.settings import Settings

PRES_SCALE = 8.8
LOCAL = ("pres", "where", "depth", "what")


class LocalDistributions(NamedTuple):
    """Log odds of presence, and distributions of the other latents of every cell, `[b, k, d]`."""

    pres: Tensor
    where: Normal
    depth: Normal
    what: Normal


class LocalLatentNet(nn.Module):
    """Distributions of every cell's latents from the features there."""

    def __init__(self, settings: Settings):
        super().__init__()
        features = settings.local_channels
        ones = (1,) * len(features)
        self.pwdw_net = NormedConvs(settings.encoder_channels[-1], features, ones, ones)
        self.q_depth_net = nn.Conv2d(features[-1], 2, 1)
        self.q_where_net = nn.Conv2d(features[-1], 8, 1)
        self.q_what_net = nn.Conv2d(features[-1], 2 * settings.what_size, 1)
        self.q_pres_net = nn.Conv2d(features[-1], 1, 1)
        nn.init.uniform_(self.q_where_net.weight, -0.01, 0.01)
        bias = self.q_where_net.bias
        assert bias is not None
        nn.init.zeros_(bias)
        with torch.no_grad():
            bias[0] = settings.initial_size

    def forward(self, x: Tensor) -> LocalDistributions:
        """The distributions, cells in rows."""
        x = self.pwdw_net(x)
        pres, where, depth, what = (
            getattr(self, f"q_{name}_net")(x).float().flatten(2).transpose(1, 2) for name in LOCAL
        )
        return LocalDistributions(
            PRES_SCALE * pres.tanh(), normal(where), normal(depth), normal(what)
        )


class LocalLatentSampler(nn.Module):
    """Positions and images of what the latents of the cells describe."""

    offset: Tensor

    def __init__(self, settings: Settings):
        super().__init__()
        self.grid = grid = settings.grid
        row, column = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
        self.register_buffer("offset", torch.stack([column, row])[None].float())
        self.z_what_decoder_net = SubPixelStack(
            settings.what_size,
            (*settings.glimpse_channels, 4),
            settings.glimpse_kernels,
            settings.glimpse_upscales,
        )

    def transforms(self, where: Tensor) -> Tensor:
        """(scale x, scale y, shift x, shift y) of raw latents `[b, k, 4]`."""
        size, stretch = where[..., :1].sigmoid(), (0.5 * where[..., 1:2]).exp()
        cells = self.offset.flatten(2).transpose(1, 2) + 0.5
        count = cells.new_tensor(self.grid[::-1])
        shift = 2.0 / count * (cells + where[..., 2:].tanh()) - 1.0
        return torch.cat([size / stretch, size * stretch, shift], -1)

    def glimpses(self, what: Tensor) -> Tensor:
        """Colours and opacity of glimpses, `[b, k, 4, p, q]` in [0, 1]."""
        maps = self.z_what_decoder_net(what.flatten(0, 1)[..., None, None])
        return maps.float().sigmoid().unflatten(0, what.shape[:2])


class BackgroundDecoder(nn.Module):
    """Backgrounds of their latents."""

    def __init__(self, settings: Settings):
        super().__init__()
        self.p_bg_decoder = SubPixelStack(
            settings.background_size,
            (*settings.background_channels, 3),
            settings.background_kernels,
            settings.background_upscales,
        )

    def forward(self, bg: Tensor) -> Tensor:
        """Backgrounds `[b, 3, h, w]` in [0, 1]."""
        return self.p_bg_decoder(bg[..., None, None]).float().sigmoid()


class BackgroundPrior(nn.Module):
    """What the global latents say of the background."""

    def __init__(self, features: Sequence[int]):
        super().__init__()
        self.p_bg_generator = NormedMLP(features)

    def forward(self, z_global: Tensor) -> Normal:
        """The distribution, of the latents of all steps `[b, t, d]`."""
        return normal(self.p_bg_generator(z_global.flatten(1)))


class BackgroundPosterior(nn.Module):
    """What the image says of the background."""

    def __init__(self, features: Sequence[int]):
        super().__init__()
        self.p_bg_encoder = NormedMLP(features)

    def forward(self, encoded: Tensor) -> Normal:
        """The distribution, of an encoded image `[b, c, h, w]`."""
        return normal(self.p_bg_encoder(encoded.flatten(1)))
