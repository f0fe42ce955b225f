"""Building blocks of the PyTorch models, each with the rules for its parameters."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from objdisc_jax.settings import SlotAttentionSettings

ACTIVATIONS = {"leaky_relu": nn.LeakyReLU, "relu": nn.ReLU}


def initialise(layer: nn.Linear | nn.Conv2d, init: str, gain: float = 1.0) -> None:
    """Draws new parameters: `xavier`, `kaiming` or `truncated`; `fan_in` keeps PyTorch's own.

    Biases are zero. `gain` is a factor of the `xavier` weights.
    """
    if init == "fan_in":
        return
    if init == "truncated":
        truncated_normal(layer.weight, layer.weight[0].numel())
    elif init == "xavier":
        nn.init.xavier_uniform_(layer.weight, gain)
    else:
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def truncated_normal(parameter: Tensor, fan_in: int) -> None:
    """Draws from a normal distribution with σ = 1/√fan_in, cut at 2σ."""
    sigma = fan_in**-0.5
    nn.init.trunc_normal_(parameter, 0.0, sigma, -2.0 * sigma, 2.0 * sigma)


def layers(*sizes: int, gain: float = 1.0) -> nn.Sequential:
    """Linear layers with a ReLU between them; `gain` is of the initial weights but the first's."""
    found: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layer = nn.Linear(n_in, n_out)
        if found:
            initialise(layer, "xavier", gain)
            found.append(nn.ReLU())
        else:
            initialise(layer, "kaiming")
        found.append(layer)
    return nn.Sequential(*found)


class SameConv2d(nn.Conv2d):
    """A convolution to one output per `stride` inputs, padded as XLA's "SAME" is.

    Without a stride that is half the kernel on every side; with one, what the border lacks, the
    odd pixel at the bottom and on the right.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int):
        padding = "same" if stride == 1 else "valid"
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)

    def forward(self, input: Tensor) -> Tensor:
        """Applies the convolution to `[b, c, h, w]`."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride > 1:
            rows, cols = (
                max((-(-side // stride) - 1) * stride + kernel - side, 0)
                for side in input.shape[-2:]
            )
            pads = (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2)
            input = nn.functional.pad(input, pads)
        return super().forward(input)


def position_features(size: tuple[int, int], num_frequencies: int = 0) -> Tensor:
    """What a position embedding reads at every cell of a grid, `[1, h, w, 4 + 4f]`.

    (y, x, 1 − y, 1 − x), each from 0 to 1 inclusive, and with f frequencies the sines and cosines
    of y, then of x, at f harmonics.
    """
    rows, cols = (torch.arange(n) / max(n - 1, 1) for n in size)
    yx = torch.stack(torch.meshgrid(rows, cols, indexing="ij"), -1)
    features = [yx, 1.0 - yx]
    if num_frequencies:
        angles = yx[..., None] * (math.pi * torch.arange(1, num_frequencies + 1))
        features.append(torch.cat([angles.sin(), angles.cos()], -1).flatten(-2))
    return torch.cat(features, -1)[None]


def pixel_offsets(
    batch_shape: tuple[int, ...],
    resolution: tuple[int, int],
    generator: torch.Generator | None,
    device: torch.device,
) -> Tensor:
    """Rows and columns to start a `lattice` at, `[*batch_shape, 2]`."""
    drawn = [
        torch.randint(side, batch_shape, generator=generator, device=device) for side in resolution
    ]
    return torch.stack(drawn, -1)


def lattice(offset: Tensor, resolution: tuple[int, int], stride: int) -> tuple[Tensor, Tensor]:
    """Every `stride`-th row `[b, m, 1]` and column `[b, 1, n]` from an offset `[b, 2]` on.

    They ascend: after the last the first ones follow.
    """
    rows, columns = (
        (offset[:, axis, None] + stride * torch.arange(side // stride, device=offset.device))
        .remainder(side)
        .sort()
        .values
        for axis, side in enumerate(resolution)
    )
    return rows[:, :, None], columns[:, None, :]


class PositionEmbedding(nn.Module):
    """A learned linear map of position features, added to a feature map `[b, c, h, w]`."""

    grid: Tensor

    def __init__(self, features: int, size: tuple[int, int], num_frequencies: int = 0):
        super().__init__()
        self.register_buffer("grid", position_features(size, num_frequencies))
        self.dense = nn.Linear(4 + 4 * num_frequencies, features)

    def forward(self, x: Tensor) -> Tensor:
        """Adds the embedding of the full grid."""
        return x + self.dense(self.grid).permute(0, 3, 1, 2)


class SlotAttentionOutput(NamedTuple):
    """Slots `[b, k, d]`, and how the last iteration divided the input among them, `[b, n, k]`."""

    slots: Tensor
    attn: Tensor


class SlotAttention(nn.Module):
    """Slot Attention (Locatello et al. 2020, arXiv 2006.15055, algorithm 1).

    See `objdisc_jax.nn.slot_attention` for the three gradient modes. Softmax, norms, the
    renormalisation over positions and the GRU are float32 under `torch.autocast` too.
    """

    def __init__(
        self,
        in_features: int,
        settings: SlotAttentionSettings,
        *,
        input_mlp: Sequence[int] = (),
        normalized_state: bool = False,
    ):
        super().__init__()
        self.settings, slot_size = settings, settings.slot_size
        self.normalized_state = normalized_state
        if settings.gradient == "bo_qsa":
            self.slots_init = nn.Parameter(torch.randn(1, settings.num_slots, slot_size))
        else:
            bound = math.sqrt(3.0 / slot_size)
            self.slot_mu = nn.Parameter(torch.empty(1, 1, slot_size).uniform_(-bound, bound))
            self.slot_log_sigma = nn.Parameter(torch.empty(1, 1, slot_size).uniform_(-bound, bound))
        self.input_layer_norm = self.input_mlp = None
        if input_mlp:
            self.input_layer_norm = nn.LayerNorm(in_features)
            self.input_mlp = layers(in_features, *input_mlp)
            in_features = input_mlp[-1]
        self.norm_inputs = nn.LayerNorm(in_features)
        self.norm_slots = nn.LayerNorm(slot_size)
        self.norm_mlp = nn.LayerNorm(slot_size)
        self.project_q = nn.Linear(slot_size, slot_size, bias=False)
        self.project_k = nn.Linear(in_features, slot_size, bias=False)
        self.project_v = nn.Linear(in_features, slot_size, bias=False)
        self.gru = nn.GRUCell(slot_size, slot_size)
        self.mlp = layers(slot_size, settings.mlp_hidden_size, slot_size)
        for layer in (self.project_q, self.project_k, self.project_v):
            initialise(layer, "xavier")
        nn.init.xavier_uniform_(self.gru.weight_ih)
        nn.init.orthogonal_(self.gru.weight_hh)
        nn.init.zeros_(self.gru.bias_ih)
        nn.init.zeros_(self.gru.bias_hh)

    def noise(
        self, batch_size: int, generator: torch.Generator | None, device: torch.device
    ) -> dict[str, Tensor]:
        """Standard normals of the initial slots, under `slots`; nothing for learned queries."""
        if self.settings.gradient == "bo_qsa":
            return {}
        shape = (batch_size, self.settings.num_slots, self.settings.slot_size)
        return {"slots": torch.randn(shape, generator=generator, device=device)}

    def initial_slots(self, batch_size: int, noise: Tensor | None) -> Tensor:
        """Slots before the first iteration; `bo_qsa` has learned ones and takes no noise."""
        if noise is None:
            return self.slots_init.expand(batch_size, -1, -1)
        return self.slot_mu + self.slot_log_sigma.exp() * noise

    def step(self, slots: Tensor, keys: Tensor, values: Tensor) -> SlotAttentionOutput:
        """One iteration: attend, average, update the slots."""
        normalized = self.norm_slots(slots)
        queries = self.project_q(normalized) * self.settings.slot_size**-0.5
        attn = torch.einsum("bnd,bkd->bnk", keys, queries).float().softmax(-1)
        weights = attn + 1e-8
        weights = weights / weights.sum(1, keepdim=True)
        updates = torch.einsum("bnk,bnd->bkd", weights, values)
        with torch.autocast(slots.device.type, enabled=False):
            state = normalized if self.normalized_state else slots
            flat = self.gru(updates.float().flatten(0, 1), state.float().flatten(0, 1))
        slots = flat.view_as(slots)
        return SlotAttentionOutput(slots + self.mlp(self.norm_mlp(slots)).float(), attn)

    def project_inputs(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, the same in every iteration."""
        if self.input_layer_norm is not None and self.input_mlp is not None:
            inputs = self.input_mlp(self.input_layer_norm(inputs))
        inputs = self.norm_inputs(inputs)
        return self.project_k(inputs), self.project_v(inputs)

    def first_attention(self, inputs: Tensor, noise: Tensor | None) -> Tensor:
        """How the first iteration divides the input among the slots, `[b, n, k]`."""
        slots = self.initial_slots(len(inputs), noise)
        return self.step(slots, *self.project_inputs(inputs)).attn

    def forward(self, inputs: Tensor, noise: Tensor | None) -> SlotAttentionOutput:
        """Finds the slots of input vectors `[b, n, c]`, from noise `[b, k, d]`."""
        keys, values = self.project_inputs(inputs)
        start = slots = self.initial_slots(len(inputs), noise)
        num_iterations, gradient = self.settings.num_iterations, self.settings.gradient
        without_gradient = {"implicit": num_iterations, "bo_qsa": num_iterations - 1}
        # Detached after every iteration, which keeps no graph: a weight that autocast has cast
        # under torch.no_grad() would stay without gradient in the iteration that needs it.
        for _ in range(without_gradient.get(gradient, 0)):
            slots = self.step(slots, keys, values).slots.detach()
        if gradient == "bo_qsa":
            slots = slots.detach() + start - start.detach()
        if gradient == "unrolled":
            for _ in range(num_iterations - 1):
                slots = self.step(slots, keys, values).slots
        return self.step(slots, keys, values)
