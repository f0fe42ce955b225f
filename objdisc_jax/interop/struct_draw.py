"""StructDRAW in PyTorch: a global scene code, drawn in steps on a grid of features."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from objdisc_jax.interop.stacks import NormedMLP
from objdisc_jax.models.gnm.settings import Settings

State = tuple[Tensor, Tensor]


def normal(features: Tensor) -> Normal:
    """Means from the first half of the last axis, softplus of the second as deviations."""
    mean, raw = features.float().chunk(2, -1)
    return Normal(mean, nn.functional.softplus(raw), validate_args=False)


class ConvLSTMCell(nn.Module):
    """LSTM on a grid, with one 1x1 convolution over [input, h] and a learned first state."""

    def __init__(self, in_features: int, hidden_features: int, grid: tuple[int, int]):
        super().__init__()
        self.h_0 = nn.Parameter(torch.zeros(1, hidden_features, *grid))
        self.c_0 = nn.Parameter(torch.zeros(1, hidden_features, *grid))
        self.conv = nn.Conv2d(in_features + hidden_features, 4 * hidden_features, 1)

    def initial_state(self, batch_size: int) -> State:
        """The learned first state (h, c)."""
        h, c = (x.expand(batch_size, -1, -1, -1) for x in (self.h_0, self.c_0))
        return h, c

    def forward(self, inputs: Tensor, state: State) -> State:
        """Returns the next state (h, c)."""
        h, c = state
        i, f, o, g = self.conv(torch.cat([inputs, h], 1)).float().chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GlobalCode(NamedTuple):
    """What StructDRAW draws."""

    code: Tensor  # the canvas after the last step, `[b, c, h, w]`
    z: Tensor  # the latents of all steps, `[b, t, d]`
    prior: Normal  # what each was expected to be, `[b, t, d]`
    posterior: Normal  # what it was drawn from, `[b, t, d]`


class StructDRAW(nn.Module):
    """Draws a grid of features in steps; see `objdisc_jax.models.gnm.struct_draw`."""

    dec_step_0: Tensor

    def __init__(self, settings: Settings):
        super().__init__()
        self.grid = grid = settings.grid
        features, latent_size = settings.encoder_channels[-1], settings.global_size
        size, hidden = features * settings.num_cells, settings.global_hidden
        self.register_buffer("dec_step_0", torch.zeros(1, features, *grid))
        decoder_sizes = (latent_size, *settings.global_decoder_hidden, size)
        self.p_global_decoder_net = NormedMLP(decoder_sizes, last_bare=False)
        self.rnn_enc = ConvLSTMCell(3 * features, features, grid)
        self.rnn_dec = ConvLSTMCell(2 * features, features, grid)
        self.p_global_net = NormedMLP((size, *hidden, 2 * latent_size))
        self.q_global_net = NormedMLP((size, *hidden, 2 * latent_size))
        to_canvas = nn.Sequential(nn.Conv2d(features, features, 3, 1, 1))
        self.hid_to_dec_net = nn.ModuleDict({"conv": to_canvas})

    def forward(self, encoded: Tensor | None, noise: Tensor) -> GlobalCode:
        """Draws the code of an encoded image `[b, c, h, w]`, or one from the prior."""
        batch = len(noise)
        canvas = self.dec_step_0.expand(batch, -1, -1, -1)
        encoder, decoder = self.rnn_enc.initial_state(batch), self.rnn_dec.initial_state(batch)
        drawn, priors, posteriors = [], [], []
        for step_noise in noise.unbind(1):
            prior = posterior = normal(self.p_global_net(_flat(decoder[0])))
            if encoded is not None:
                inputs = torch.cat([encoded, encoded - canvas, decoder[0]], 1)
                encoder = self.rnn_enc(inputs, encoder)
                posterior = normal(self.q_global_net(_flat(encoder[0])))
            z = posterior.mean + posterior.stddev * step_noise
            decoded = self.p_global_decoder_net(z).unflatten(1, (-1, *self.grid))
            decoder = self.rnn_dec(torch.cat([decoded, canvas], 1), decoder)
            canvas = canvas + self.hid_to_dec_net["conv"](decoder[0]).float()
            drawn.append(z)
            priors.append(prior)
            posteriors.append(posterior)
        return GlobalCode(canvas, torch.stack(drawn, 1), _stack(priors), _stack(posteriors))


def _flat(x: Tensor) -> Tensor:
    """`[b, c, h, w]` to `[b, h · w · c]`."""
    return x.movedim(1, -1).flatten(1)


def _stack(steps: list[Normal]) -> Normal:
    mean, std = (torch.stack([getattr(s, name) for s in steps], 1) for name in ("loc", "scale"))
    return Normal(mean, std, validate_args=False)
