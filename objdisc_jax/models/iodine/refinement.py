"""The refinement network: what it reads, and how it updates the posteriors."""

import math
from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from objdisc_jax.models.iodine.likelihood import Decoded, Mixture
from objdisc_jax.models.iodine.settings import Settings
from objdisc_jax.nn.conv import conv
from objdisc_jax.nn.initializers import initializers
from objdisc_jax.nn.mlp import MLP, elu, linear
from objdisc_jax.nn.norms import group_norm, layer_norm

CAPACITY = 0.5
"""A constant input of the official code, as a map and as a number."""
NORMED = {"counterfactual": 1, "dcomponents": 3, "dmask": 1, "log_prob": 1}
"""Channels of the maps that are normalised, which stop gradients."""


class Pixels(NamedTuple):
    """The pixels that posteriors are refined by."""

    image: Float[Array, "b h w 3"]
    rows: Float[Array, "#b h"]  # where they are, in [0, 1]: every image's own, or common
    columns: Float[Array, "#b w"]
    squares: Float[Array, "b h w c"]  # what the refinement reads: the pixels around each


class LSTMState(NamedTuple):
    """State of an LSTM, float32."""

    hidden: Float[Array, "b k d"]
    cell: Float[Array, "b k d"]


class LSTMCell(nnx.Module):
    """LSTM with one bias, whose forget gate is σ(f + 1), as in Sonnet. Float32.

    The gates are stacked in PyTorch's order: input, forget, cell, output.

    Args:
        in_features: size of the input.
        hidden_features: size of the state.
        rngs: source of the initial values: kernels and bias alike.
    """

    def __init__(self, in_features: int, hidden_features: int, *, rngs: nnx.Rngs):
        init, _ = initializers("truncated", in_features + hidden_features)
        gates = 4 * hidden_features
        self.input = nnx.Linear(in_features, gates, kernel_init=init, bias_init=init, rngs=rngs)
        self.hidden = nnx.Linear(
            hidden_features, gates, use_bias=False, kernel_init=init, rngs=rngs
        )

    def __call__(self, inputs: Float[Array, "b k c"], state: LSTMState) -> LSTMState:
        """The next state."""
        gates = self.input(inputs) + self.hidden(state.hidden)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(f + 1.0) * state.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        return LSTMState(jax.nn.sigmoid(o) * jnp.tanh(cell), cell)


class RefinementNetwork(nnx.Module):
    """Updates posteriors from how well their samples explain the image (section 2.2)."""

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        self.settings = settings
        dtype, latents = jnp.dtype(settings.dtype), 2 * settings.slot_size
        self.norms = nnx.Dict(
            {
                name: group_norm(channels, dtype=jnp.float32, rngs=rngs)
                for name, channels in NORMED.items()
            }
            | {"dzp": layer_norm(latents, rngs=rngs)}
        )
        positions = 2 if settings.coordinates == "linear" else settings.num_cosines**2 - 1
        colours = 3 * settings.pixel_stride**2
        channels = (13 + colours + positions, *settings.encoder_channels)
        kernel = settings.encoder_kernel
        self.convs = nnx.List(
            conv(n_in, n_out, kernel, stride=2, init="truncated", dtype=dtype, rngs=rngs)
            for n_in, n_out in pairwise(channels)
        )
        sizes = (channels[-1], *settings.mlp_sizes)
        self.mlp = MLP(sizes, activation="elu", init="truncated", dtype=dtype, rngs=rngs)
        features = sizes[-1] + 2 * latents + 1
        self.lstm = (
            LSTMCell(features, settings.lstm_size, rngs=rngs) if settings.lstm_size else None
        )
        self.head = linear(  # float32: it reads the posterior's parameters and updates them
            settings.lstm_size or features, latents, init="truncated", rngs=rngs
        )

    def initial_state(self, batch_size: int) -> LSTMState | None:
        """The LSTM's state before the first iteration; None without an LSTM."""
        if self.lstm is None:
            return None
        zeros = jnp.zeros((batch_size, self.settings.num_slots, self.settings.lstm_size))
        return LSTMState(zeros, zeros)

    def spatial_inputs(
        self, pixels: Pixels, mixture: Mixture, gradient: Decoded
    ) -> dict[str, Float[Array, "#b #k #h #w _"]]:
        """The maps that are read, by their official names; of one slot where all have the same.

        Args:
            pixels: what is explained.
            mixture: how it is explained.
            gradient: that of the loss by what the slots paint.
        """
        decoded, log_prob = mixture.decoded, mixture.log_prob
        maps = {
            "capacity": jnp.full((1, 1, 1, 1, 1), CAPACITY),
            "components": decoded.colours,
            "coordinates": self.position_features(pixels)[:, None],
            "counterfactual": (log_prob[:, None] - mixture.log_prob_without_each())[..., None],
            "dcomponents": gradient.colours,
            "dmask": gradient.logits[..., None],
            "image": pixels.squares[:, None],
            "log_prob": log_prob[:, None, ..., None],
            "mask": decoded.logits[..., None],
            "posterior": mixture.density_shares()[..., None],
            "pred_mask": mixture.masks[..., None],
        }
        for name in NORMED:
            flat = rearrange(lax.stop_gradient(maps[name]), "b k h w c -> (b k) h w c")
            maps[name] = rearrange(
                self.norms[name](flat), "(b k) h w c -> b k h w c", b=len(log_prob)
            )
        return maps

    def position_features(self, pixels: Pixels) -> Float[Array, "b h w f"]:
        """Where pixels are: x and y from −1 to 1, or products of cosines of both."""
        y, x = pixels.rows[:, :, None, None], pixels.columns[:, None, :, None]
        if self.settings.coordinates == "linear":
            x, y = jnp.broadcast_arrays(x, y)
            return 2.0 * jnp.concatenate([x, y], axis=-1) - 1.0
        angles = math.pi * jnp.arange(self.settings.num_cosines)[None, None, None]
        waves = jnp.cos(x * angles)[..., :, None] * jnp.cos(y * angles)[..., None, :]
        return rearrange(waves, "b h w i j -> b h w (i j)")[..., 1:]

    def __call__(
        self,
        maps: Mapping[str, Float[Array, "#b #k #h #w _"]],
        posterior_gradient: Float[Array, "b k p"],
        posterior: Float[Array, "b k p"],
        state: LSTMState | None,
    ) -> tuple[Float[Array, "b k p"], LSTMState | None]:
        """The updated posteriors and the LSTM's next state.

        Args:
            maps: from `spatial_inputs`.
            posterior_gradient: that of the loss by the posterior's parameters.
            posterior: its parameters.
            state: the LSTM's state.
        """
        x = rearrange(elu(self._first_layer(maps)), "b k h w c -> (b k) h w c")
        for layer in self.convs[1:]:
            x = elu(layer(x))
        x = self.mlp(jnp.mean(x, axis=(1, 2))).astype(jnp.float32)
        x = rearrange(x, "(b k) c -> b k c", b=len(posterior))
        gradient = self.norms["dzp"](lax.stop_gradient(posterior_gradient))
        capacity = repeat(jnp.float32([CAPACITY]), "c -> b k c", b=x.shape[0], k=x.shape[1])
        x = jnp.concatenate([x, gradient, capacity, posterior], axis=-1)
        if self.lstm is not None:
            assert state is not None
            state = self.lstm(x, state)
            x = state.hidden
        return posterior + self.head(x), state

    def _first_layer(
        self, maps: Mapping[str, Float[Array, "#b #k #h #w _"]]
    ) -> Float[Array, "b k h w c"]:
        """The convolution of all maps, in the order of their names; of common ones once."""
        first, names = self.convs[0], sorted(maps)
        assert first.bias is not None
        ends = list(accumulate(maps[name].shape[-1] for name in names))
        kernels = dict(zip(names, jnp.split(first.kernel[...], ends[:-1], axis=2), strict=True))

        def convolved(*some: str) -> Float[Array, "b _ h w c"]:
            found = [maps[name] for name in some]
            shape = jnp.broadcast_shapes(*(x.shape[:4] for x in found))
            x = jnp.concatenate(
                [jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in found], axis=-1
            ).astype(first.dtype)
            kernel = jnp.concatenate([kernels[name] for name in some], axis=2).astype(x.dtype)
            flat = rearrange(x, "b k h w c -> (b k) h w c")
            flat = first.conv_general_dilated(flat, kernel, (2, 2), "SAME")
            return rearrange(flat, "(b k) h w c -> b k h w c", b=len(x))

        common = [name for name in names if maps[name].shape[1] == 1]
        bias = first.bias[...].astype(first.dtype)[None, None, None, None]
        own = [name for name in names if name not in common]
        return convolved(*own) + convolved(*common) + bias
