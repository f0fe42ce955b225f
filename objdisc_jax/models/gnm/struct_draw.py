"""StructDRAW: a global scene code, drawn in steps on a grid of features (Jiang & Ahn 2020)."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jax import lax
from jax.nn.initializers import zeros
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from objdisc_jax.models.gnm.distributions import Normal
from objdisc_jax.models.gnm.layers import NormedMLP
from objdisc_jax.models.gnm.settings import Settings
from objdisc_jax.nn.conv import conv


class LSTMState(NamedTuple):
    """Hidden state h and cell state c, both float32."""

    h: Float[Array, "b h w d"]
    c: Float[Array, "b h w d"]


class ConvLSTMCell(nnx.Module):
    """LSTM (Hochreiter & Schmidhuber 1997) on a grid, with 1x1 kernels (Shi et al. 2015).

    One convolution over [input, h] gives the gates, stacked in the order i, f, o, g:
    c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g), h' = σ(o) ⊙ tanh(c'). The first state is learned. Gates and
    states are float32 whatever the type of the convolution.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        grid: tuple[int, int],
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        shape = (1, *grid, hidden_features)
        self.h_0 = nnx.Param(zeros(rngs.params(), shape, jnp.float32))
        self.c_0 = nnx.Param(zeros(rngs.params(), shape, jnp.float32))
        gates = 4 * hidden_features
        self.conv = conv(in_features + hidden_features, gates, 1, dtype=dtype, rngs=rngs)

    def initial_state(self, batch_size: int) -> LSTMState:
        """The learned first state."""
        h, c = (repeat(x[...], "1 h w d -> b h w d", b=batch_size) for x in (self.h_0, self.c_0))
        return LSTMState(h, c)

    def __call__(self, inputs: Float[Array, "b h w c"], state: LSTMState) -> LSTMState:
        """Returns the next state."""
        gates = self.conv(jnp.concatenate([inputs, state.h], axis=-1))
        i, f, o, g = jnp.split(gates.astype(jnp.float32), 4, axis=-1)
        c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return LSTMState(jax.nn.sigmoid(o) * jnp.tanh(c), c)


@flax.struct.dataclass
class GlobalCode:
    """What StructDRAW draws."""

    code: Float[Array, "b h w c"]  # the canvas after the last step, float32
    z: Float[Array, "b t d"]  # the latents of all steps
    prior: Normal  # what each was expected to be, given those before it
    posterior: Normal  # what it was drawn from; the prior again if there was no image


class StructDRAW(nnx.Module):
    """Draws a grid of features in `num_steps` steps, each with a latent vector of its own.

    Step t: the prior of z_t reads the decoder's state; its posterior reads an encoder LSTM fed
    with [e, e − canvas, decoder's state]; z_t, decoded to the grid, and the canvas feed the decoder
    LSTM, whose state is added to the canvas through a 3x3 convolution. States, canvas and
    distributions are float32.
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        self.settings = settings
        dtype, features = jnp.dtype(settings.dtype), settings.encoder_channels[-1]
        size = features * settings.num_cells

        def distribution_net() -> NormedMLP:
            sizes = (size, *settings.global_hidden, 2 * settings.global_size)
            return NormedMLP(sizes, dtype=dtype, rngs=rngs)

        def lstm(num_inputs: int) -> ConvLSTMCell:
            inputs = num_inputs * features
            return ConvLSTMCell(inputs, features, grid=settings.grid, dtype=dtype, rngs=rngs)

        self.prior_net = distribution_net()
        self.posterior_net = distribution_net()
        self.encoder_lstm = lstm(3)
        self.decoder_lstm = lstm(2)
        decoder_sizes = (settings.global_size, *settings.global_decoder_hidden, size)
        self.z_decoder = NormedMLP(decoder_sizes, last_bare=False, dtype=dtype, rngs=rngs)
        self.to_canvas = conv(features, features, 3, dtype=dtype, rngs=rngs)

    def __call__(
        self, encoded: Float[Array, "b h w c"] | None, noise: Float[Array, "b t d"]
    ) -> GlobalCode:
        """Draws the code of encoded images, or without them one from the prior."""
        batch, settings = len(noise), self.settings
        height, width = settings.grid
        canvas = jnp.zeros((batch, height, width, settings.encoder_channels[-1]), jnp.float32)

        def step(carry: tuple[LSTMState, LSTMState, Array], noise: Array):
            encoder, decoder, canvas = carry
            prior = posterior = Normal.from_features(self.prior_net(_flat(decoder.h)))
            if encoded is not None:
                seen = encoded.astype(jnp.float32)
                inputs = jnp.concatenate([seen, seen - canvas, decoder.h], axis=-1)
                encoder = self.encoder_lstm(inputs, encoder)
                posterior = Normal.from_features(self.posterior_net(_flat(encoder.h)))
            z = posterior.sample(noise)
            decoded = rearrange(self.z_decoder(z), "b (c h w) -> b h w c", h=height, w=width)
            inputs = jnp.concatenate([decoded.astype(jnp.float32), canvas], axis=-1)
            decoder = self.decoder_lstm(inputs, decoder)
            canvas = canvas + self.to_canvas(decoder.h).astype(jnp.float32)
            return (encoder, decoder, canvas), (z, prior, posterior)

        start = (
            self.encoder_lstm.initial_state(batch),
            self.decoder_lstm.initial_state(batch),
            canvas,
        )
        steps = rearrange(noise, "b t d -> t b d")
        (_, _, canvas), drawn = lax.scan(jax.checkpoint(step), start, steps)
        z, prior, posterior = jax.tree.map(lambda x: rearrange(x, "t b d -> b t d"), drawn)
        return GlobalCode(canvas, z, prior, posterior)


def _flat(x: Float[Array, "b h w c"]) -> Float[Array, "b n"]:
    return rearrange(x, "b h w c -> b (h w c)")
