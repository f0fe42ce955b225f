"""IODINE in PyTorch.

The official weights are TensorFlow's. The keys here follow its variables (after "model/iodine/"):

| key | official variable, its layout |
|---|---|
| `initial_posterior` | `initial_sample_distribution` |
| `decoder.convs.N` | `pixel_decoder/broadcast_conv/conv_net_2d/conv_2d_N`, HWIO |
| `refinement.norms.NAME` | `preprocess/layer_norm_NAME`: gamma, beta |
| `refinement.convs.N` | `encoder_net/cnn/conv_net_2d/conv_2d_N`, HWIO |
| `refinement.mlp.N` | `encoder_net/cnn/mlp/linear_N`, (in, out) |
| `refinement.lstm` | `recurrent_net/lstm/lstm`: (input and hidden, gates i g f o), ours i f g o |
| `refinement.head` | `refinement_head/residual_head/linear`, (in, out) |
"""

import math
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, pad, softplus

from objdisc_jax.interop.base import Noise, Prediction, TorchModel
from objdisc_jax.interop.blocks import (
    SameConv2d,
    initialise,
    lattice,
    pixel_offsets,
    position_features,
    truncated_normal,
)
from objdisc_jax.models.iodine.settings import Settings

PRIOR_VARIANCE, MIN_VARIANCE = math.log(2.0), 1e-30
DECODER_CONSTANT, CAPACITY = 5.0, 0.5
DENSITY_EPSILON = 1e-6
NORMED = {"log_prob": 1, "dmask": 1, "dcomponents": 3, "counterfactual": 1}

State = tuple[Tensor, Tensor]


def truncated(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """The layer, drawn anew as Sonnet does."""
    initialise(layer, "truncated")
    return layer


def mean_and_variance(posterior: Tensor) -> tuple[Tensor, Tensor]:
    """The normals that parameters `[..., 2z]` stand for."""
    mean, raw = posterior.chunk(2, -1)
    return mean, softplus(raw).clamp(min=MIN_VARIANCE)


def sample(posterior: Tensor, noise: Tensor) -> Tensor:
    """The draws that standard normal noise makes of posteriors."""
    mean, variance = mean_and_variance(posterior)
    return mean + variance.sqrt() * noise


def kl_per_slot(posterior: Tensor) -> Tensor:
    """KL(q ‖ prior) in nats."""
    mean, variance = mean_and_variance(posterior)
    ratio = variance / PRIOR_VARIANCE
    return 0.5 * (mean**2 / PRIOR_VARIANCE + ratio - 1.0 - ratio.log()).sum(-1)


class ConvBroadcastDecoder(nn.Module):
    """Slots, a constant, y and x tiled over the image and convolved."""

    yx: Tensor

    def __init__(self, settings: Settings):
        super().__init__()
        sizes = (settings.slot_size + 3, *settings.decoder_channels, 4)
        self.convs = nn.ModuleList(
            truncated(SameConv2d(n_in, n_out, settings.decoder_kernel, 1))
            for n_in, n_out in pairwise(sizes)
        )
        yx = 2.0 * position_features(settings.resolution)[..., :2] - 1.0
        self.register_buffer("yx", yx.movedim(-1, 1), persistent=False)

    def forward(self, slots: Tensor) -> Tensor:
        """Mask logits and colours `[b, k, 4, h, w]`."""
        flat = slots.flatten(0, 1)
        constant = flat.new_full((len(flat), 1), DECODER_CONSTANT)
        tiled = torch.cat([flat, constant], 1)[..., None, None].expand(-1, -1, *self.yx.shape[2:])
        x = torch.cat([tiled, self.yx.expand(len(flat), -1, -1, -1)], 1)
        for i, layer in enumerate(self.convs):
            x = layer(elu(x) if i else x)
        return x.float().unflatten(0, slots.shape[:2])


class MLPBroadcastDecoder(nn.Module):
    """Every pixel alone: an MLP on a slot and the pixel's position."""

    def __init__(self, settings: Settings):
        super().__init__()
        hidden = settings.decoder_channels
        self.slot_layer = nn.Linear(settings.slot_size, hidden[0], bias=False)
        dense = nn.Linear(4 + 4 * settings.num_frequencies, hidden[0])
        layers = [nn.Linear(*sizes) for sizes in pairwise((*hidden, 4))]
        initialise(self.slot_layer, "xavier")
        initialise(dense, "xavier")
        for i, layer in enumerate(layers):
            initialise(layer, "xavier" if i else "kaiming")
        self.position = nn.ModuleDict({"dense": dense})
        self.mlp = nn.ModuleList(layers)

    def forward(self, slots: Tensor, features: Tensor) -> Tensor:
        """Mask logits and colours `[b, k, 4, m, n]` at positions of features `[#b, m, n, f]`."""
        position = self.position["dense"](features)[:, None]
        x = self.slot_layer(slots)[:, :, None, None] + position
        for layer in self.mlp:
            x = layer(x.relu())
        return x.float().movedim(-1, 2)


class LSTMCell(nn.RNNCellBase):
    """LSTM with one bias, whose forget gate is σ(f + 1); gates i, f, g, o."""

    bias: Tensor  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, in_features: int, hidden_features: int):
        super().__init__(in_features, hidden_features, bias=False, num_chunks=4)
        self.bias = nn.Parameter(torch.empty(4 * hidden_features))
        for parameter in (self.weight_ih, self.weight_hh, self.bias):
            truncated_normal(parameter, in_features + hidden_features)

    def forward(self, x: Tensor, state: State) -> State:
        """The next hidden state and cell, from `[b, k, c]`; float32."""
        hidden, cell = state
        with torch.autocast(x.device.type, enabled=False):
            gates = x @ self.weight_ih.T + hidden @ self.weight_hh.T + self.bias
        i, f, g, o = gates.chunk(4, -1)
        cell = (f + 1.0).sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell


class Mixture:
    """Images `[b, 3, h, w]` under mask logits and colours `[b, k, 4, h, w]` of slots."""

    def __init__(self, painted: Tensor, image: Tensor, settings: Settings):
        self.logits, self.colours, self.settings = painted[:, :, :1], painted[:, :, 1:], settings
        self.log_masks = self.logits[:, :, 0].log_softmax(1)
        self.masks = self.log_masks.exp()
        self.recon = (self.masks[:, :, None] * self.colours).sum(1)
        self.u = u = (image[:, None] - self.colours) / settings.sigma
        if settings.likelihood == "logistic":
            channels = -u - 2.0 * softplus(-u) - math.log(settings.sigma)
        else:
            channels = -0.5 * u**2 - math.log(settings.sigma * math.sqrt(2.0 * math.pi))
        self.log_densities = channels.sum(2)
        self.joint = self.log_masks + self.log_densities
        self.log_prob = self.joint.logsumexp(1)

    def nll_gradient(self) -> tuple[Tensor, Tensor]:
        """The gradient of −`log_prob` by mask logits and colours."""
        responsibilities = self.joint.softmax(1)
        scores = (0.5 * self.u).tanh() if self.settings.likelihood == "logistic" else self.u
        by_colours = -responsibilities[:, :, None] * scores / self.settings.sigma
        return (self.masks - responsibilities)[:, :, None], by_colours

    def counterfactual(self) -> Tensor:
        """`log_prob` less what it is without each slot."""
        without = []
        for slot in range(self.joint.shape[1]):
            others = [other for other in range(self.joint.shape[1]) if other != slot]
            rest = self.joint[:, others].logsumexp(1) - self.log_masks[:, others].logsumexp(1)
            without.append(self.log_prob - rest)
        return torch.stack(without, 1)[:, :, None]

    def density_shares(self) -> Tensor:
        """Density of a pixel under a slot as a share of all, whatever the masks."""
        densities = self.log_densities.exp()
        return (densities / (densities.sum(1, keepdim=True) + DENSITY_EPSILON))[:, :, None]


class Pixels(NamedTuple):
    """The pixels that posteriors are refined by."""

    image: Tensor  # `[b, 3, h, w]`
    squares: Tensor  # the pixels around each, `[b, c, h, w]`
    features: Tensor  # positions in [0, 1], y and x first, and their waves, `[#b, h, w, f]`


class RefinementNetwork(nn.Module):
    """Updates posteriors from how well their samples explain the image."""

    def __init__(self, settings: Settings):
        super().__init__()
        self.settings, latents = settings, 2 * settings.slot_size
        norms: dict[str, nn.Module] = {
            name: nn.GroupNorm(1, channels) for name, channels in NORMED.items()
        }
        self.norms = nn.ModuleDict(norms | {"dzp": nn.LayerNorm(latents)})
        positions = 2 if settings.coordinates == "linear" else settings.num_cosines**2 - 1
        colours = 3 * settings.pixel_stride**2
        channels = (13 + colours + positions, *settings.encoder_channels)
        self.convs = nn.ModuleList(
            truncated(SameConv2d(n_in, n_out, settings.encoder_kernel, 2))
            for n_in, n_out in pairwise(channels)
        )
        sizes = (channels[-1], *settings.mlp_sizes)
        self.mlp = nn.ModuleList(truncated(nn.Linear(*pair)) for pair in pairwise(sizes))
        features, size = sizes[-1] + 2 * latents + 1, settings.lstm_size
        self.lstm = LSTMCell(features, size) if size else None
        self.head = truncated(nn.Linear(size or features, latents))

    def spatial_inputs(
        self, pixels: Pixels, mixture: Mixture, gradient: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The maps that are read, `[b, k, c, h, w]`, in the order of their official names."""
        by_logits, by_colours = gradient
        yx = pixels.features[..., :2]
        maps = {
            "capacity": yx.new_full((1, 1, 1, 1, 1), CAPACITY),
            "components": mixture.colours,
            "coordinates": self.position_features(yx)[:, None],
            "counterfactual": mixture.counterfactual(),
            "dcomponents": by_colours,
            "dmask": by_logits,
            "image": pixels.squares[:, None],
            "log_prob": mixture.log_prob[:, None, None],
            "mask": mixture.logits,
            "posterior": mixture.density_shares(),
            "pred_mask": mixture.masks[:, :, None],
        }
        for name in NORMED:
            # PyTorch 2.13 crashes in the norm's backward pass on channels-last maps without one.
            flat = maps[name].detach().flatten(0, 1).contiguous()
            maps[name] = self.norms[name](flat).unflatten(0, maps[name].shape[:2])
        batch, slots, _, *size = mixture.colours.shape
        return torch.cat([maps[name].expand(batch, slots, -1, *size) for name in sorted(maps)], 2)

    def position_features(self, yx: Tensor) -> Tensor:
        """Where pixels are, `[#b, c, h, w]`, from positions `[#b, h, w, 2]` in [0, 1]."""
        y, x = yx.unbind(-1)
        if self.settings.coordinates == "linear":
            return 2.0 * torch.stack([x, y], 1) - 1.0
        steps = range(self.settings.num_cosines)
        waves = [(math.pi * i * x).cos() * (math.pi * j * y).cos() for i in steps for j in steps]
        return torch.stack(waves[1:], 1)

    def forward(
        self, maps: Tensor, by_posterior: Tensor, posterior: Tensor, state: State | None
    ) -> tuple[Tensor, State | None]:
        """The updated posteriors and the LSTM's next state."""
        x = maps.flatten(0, 1)
        for layer in self.convs:
            x = elu(layer(x))
        x = x.mean((2, 3))
        for i, layer in enumerate(self.mlp):
            x = layer(elu(x) if i else x)
        x = x.float().unflatten(0, posterior.shape[:2])
        capacity = torch.full_like(x[..., :1], CAPACITY)
        x = torch.cat([x, self.norms["dzp"](by_posterior), capacity, posterior], -1)
        if self.lstm is not None:
            assert state is not None
            x, cell = self.lstm(x, state)
            state = (x, cell)
        return posterior + self.head(x).float(), state


class IODINE(TorchModel):
    """Slots whose posteriors are refined by the gradients of how they explain the image."""

    input_range = (0.0, 1.0)
    names = ((r"(decoder|refinement)\.mlp\.(\d+)", r"\1.mlp.layers.\2"),)
    published = MappingProxyType({"decoder": "conv", "pixel_stride": 1})
    features: Tensor

    settings: Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        bound = (1.5 / settings.slot_size) ** 0.5
        latents = 2 * settings.slot_size
        self.initial_posterior = nn.Parameter(torch.empty(latents).uniform_(-bound, bound))
        self.is_conv = settings.decoder == "conv"
        decoder = ConvBroadcastDecoder if self.is_conv else MLPBroadcastDecoder
        self.decoder = decoder(settings)
        self.refinement = RefinementNetwork(settings)
        frequencies = 0 if self.is_conv else settings.num_frequencies
        features = position_features(settings.resolution, frequencies)
        self.register_buffer("features", features, persistent=False)

    def noise(self, batch_size: int, generator: torch.Generator | None = None) -> Noise:
        """Standard normals of every draw of the latents; offsets of its pixels."""
        settings, device = self.settings, self.features.device
        draws = 1 + max(settings.num_iterations, settings.num_predict_iterations)
        shape = (batch_size, draws, settings.num_slots, settings.slot_size)
        noise = {"latents": torch.randn(shape, generator=generator, device=device)}
        if settings.pixel_stride > 1:
            noise["offset"] = pixel_offsets((batch_size, draws), self.resolution, generator, device)
        return noise

    def pixels(self, image: Tensor, noise: Noise, draw: int) -> Pixels:
        """The pixels that a draw is compared at."""
        stride = self.settings.pixel_stride
        if stride == 1:
            return Pixels(image, image, self.features)
        rows, cols = lattice(noise["offset"][:, draw], self.resolution, stride)
        batch = torch.arange(len(image), device=image.device)[:, None, None]
        before = (stride - 1) // 2
        margin = (before, stride - 1 - before)
        padded = pad(image, margin + margin, mode="replicate")
        # Row by row, the colours of a pixel together.
        squares = padded.unfold(2, stride, 1).unfold(3, stride, 1).permute(0, 4, 5, 1, 2, 3)
        squares = squares.flatten(1, 3)[batch, :, rows, cols].movedim(-1, 1)
        return Pixels(
            image[batch, :, rows, cols].movedim(-1, 1), squares, self.features[0, rows, cols]
        )

    def mixture(self, slots: Tensor, pixels: Pixels) -> Mixture:
        """How slots explain pixels."""
        painted = self.decoder(slots) if self.is_conv else self.decoder(slots, pixels.features)
        return Mixture(painted, pixels.image, self.settings)

    def refine(self, image: Tensor, noise: Noise, count: int) -> tuple[list[Tensor], list[Tensor]]:
        """Posteriors before each of so many draws and after the last, and the draws' NLLs."""
        batch_size, settings, wants_graph = len(image), self.settings, torch.is_grad_enabled()
        posterior = self.initial_posterior.expand(batch_size, settings.num_slots, -1)
        zeros = posterior.new_zeros(batch_size, settings.num_slots, settings.lstm_size)
        state = (zeros, zeros) if settings.lstm_size else None
        posteriors, nlls = [posterior], []
        for draw in range(count):
            pixels = self.pixels(image, noise, draw)
            with torch.enable_grad():
                if not wants_graph:
                    posterior = posterior.detach().requires_grad_()
                mixture = self.mixture(sample(posterior, noise["latents"][:, draw]), pixels)
                divergence = kl_per_slot(posterior)
            nlls.append(self.nll(mixture))
            scale = settings.gradient_scale
            by_logits, by_colours = (
                scale * self.weight(mixture) * g.detach() for g in mixture.nll_gradient()
            )
            (by_posterior,) = torch.autograd.grad(
                [mixture.logits, mixture.colours, divergence],
                posterior,
                [by_logits, by_colours, torch.full_like(divergence, scale)],
                retain_graph=wants_graph,
            )
            maps = self.refinement.spatial_inputs(pixels, mixture, (by_logits, by_colours))
            posterior, state = self.refinement(maps, by_posterior, posterior, state)
            posteriors.append(posterior)
        return posteriors, nlls

    def weight(self, mixture: Mixture) -> float:
        """How many pixels of the image one of these stands for."""
        height, width = self.resolution
        return height * width / mixture.log_prob[0].numel()

    def nll(self, mixture: Mixture) -> Tensor:
        """−log p(image) in nats."""
        return -self.weight(mixture) * mixture.log_prob.flatten(1).sum(1)

    def forward(self, image: Tensor, noise: Noise | None = None) -> Prediction:
        """Reconstruction, masks and slots; `extras` has `recons`, `z_std` and `kl`."""
        with self.compute_type():
            noise = self.noise(len(image)) if noise is None else noise
            count = self.settings.num_predict_iterations
            posterior = self.refine(image, noise, count)[0][-1]
            slots = sample(posterior, noise["latents"][:, count])
            mixture = self.mixture(slots, Pixels(image, image, self.features))
        mean, variance = mean_and_variance(posterior)
        return Prediction(
            mixture.recon,
            mixture.masks,
            mean,
            extras={
                "recons": mixture.colours,
                "z_std": variance.sqrt(),
                "kl": kl_per_slot(posterior),
            },
        )

    def loss(
        self, image: Tensor, noise: Noise | None = None, *, step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The negative ELBO in nats, summed over draws with weights from 0 to 1."""
        del step  # no schedule in this model
        with self.compute_type():
            noise = self.noise(len(image)) if noise is None else noise
            count = self.settings.num_iterations
            posteriors, nlls = self.refine(image, noise, count)
            slots = sample(posteriors[-1], noise["latents"][:, count])
            mixture = self.mixture(slots, self.pixels(image, noise, count))
        nlls = torch.stack([*nlls, self.nll(mixture)])
        kls = kl_per_slot(torch.stack(posteriors)).sum(-1)
        loss = torch.linspace(0.0, 1.0, count + 1, device=nlls.device) @ (nlls + kls)
        elbo = -(nlls[-1] + kls[-1])
        return loss, {"elbo": elbo, "rec_loss": -nlls[-1], "kl": kls[-1]}

    def hyper_parameters(self) -> dict[str, Any]:
        """The settings that make the model's shape."""
        names = ("resolution", "num_slots", "slot_size", "num_iterations")
        return {"model_type": "iodine"} | {name: getattr(self.settings, name) for name in names}
