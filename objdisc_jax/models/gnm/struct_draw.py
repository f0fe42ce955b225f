"""StructDRAW: a global scene code, drawn in steps on a grid of features (Jiang & Ahn 2020)."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from objdisc_jax.nn.conv import conv
from objdisc_jax.models.gnm.conv_lstm import ConvLSTMCell, LSTMState
from objdisc_jax.models.gnm.distributions import Normal
from objdisc_jax.models.gnm.layers import NormedMLP


@flax.struct.dataclass
class GlobalCode:
    """What StructDRAW draws.

    Attributes:
        code: the canvas after the last step, `[b, h, w, c]`, float32.
        z: the latents of all steps, `[b, t, d]`.
        prior: what each was expected to be, given those before it, `[b, t, d]`.
        posterior: what it was drawn from, `[b, t, d]`; the prior again if there was no image.
    """

    code: Float[Array, "b h w c"]
    z: Float[Array, "b t d"]
    prior: Normal
    posterior: Normal


class StructDRAW(nnx.Module):
    """Draws a grid of features in `num_steps` steps, each with a latent vector of its own.

    Step t: the prior of z_t reads the decoder's state; its posterior reads an encoder LSTM fed
    with [e, e − canvas, decoder's state]; z_t, decoded to the grid, and the canvas feed the decoder
    LSTM, whose state is added to the canvas through a 3x3 convolution.

    Args:
        features: channels c of the encoded image, the canvas and the states.
        grid: rows and columns.
        num_steps: t.
        latent_size: d.
        hidden: widths of the hidden layers of prior and posterior.
        decoder_hidden: those of the layers that decode z_t.
        dtype: compute type; states, canvas and distributions are float32.
        rngs: source of the initial values.
    """

    def __init__(
        self,
        features: int,
        *,
        grid: tuple[int, int],
        num_steps: int,
        latent_size: int,
        hidden: Sequence[int],
        decoder_hidden: Sequence[int],
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.grid, self.num_steps, self.latent_size = grid, num_steps, latent_size
        self.features = features
        size = features * grid[0] * grid[1]

        def distribution_net() -> NormedMLP:
            return NormedMLP((size, *hidden, 2 * latent_size), dtype=dtype, rngs=rngs)

        def lstm(num_inputs: int) -> ConvLSTMCell:
            return ConvLSTMCell(num_inputs * features, features, grid=grid, dtype=dtype, rngs=rngs)

        self.prior_net = distribution_net()
        self.posterior_net = distribution_net()
        self.encoder_lstm = lstm(3)
        self.decoder_lstm = lstm(2)
        decoder_sizes = (latent_size, *decoder_hidden, size)
        self.z_decoder = NormedMLP(decoder_sizes, last_bare=False, dtype=dtype, rngs=rngs)
        self.to_canvas = conv(features, features, 3, dtype=dtype, rngs=rngs)

    def __call__(
        self, encoded: Float[Array, "b h w c"] | None, noise: Float[Array, "b t d"]
    ) -> GlobalCode:
        """Draws the code of an image, or one from the prior.

        Args:
            encoded: the encoded image; None draws from the prior.
            noise: standard normals.
        """
        batch = len(noise)
        canvas = jnp.zeros((batch, *self.grid, self.features), jnp.float32)

        def step(carry: tuple[LSTMState, LSTMState, Array], noise: Array):
            encoder, decoder, canvas = carry
            prior = posterior = Normal.from_features(self.prior_net(_flat(decoder.h)))
            if encoded is not None:
                seen = encoded.astype(jnp.float32)
                inputs = jnp.concatenate([seen, seen - canvas, decoder.h], axis=-1)
                encoder = self.encoder_lstm(inputs, encoder)
                posterior = Normal.from_features(self.posterior_net(_flat(encoder.h)))
            z = posterior.sample(noise)
            height, width = self.grid
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
        # Unrolled: there are few steps, and XLA is slow on convolutions inside loops on a CPU.
        (_, _, canvas), drawn = lax.scan(step, start, steps, unroll=self.num_steps)
        z, prior, posterior = jax.tree.map(lambda x: rearrange(x, "t b d -> b t d"), drawn)
        return GlobalCode(canvas, z, prior, posterior)


def _flat(x: Float[Array, "b h w c"]) -> Float[Array, "b n"]:
    return rearrange(x, "b h w c -> b (h w c)")
