"""Latents of the cells of a grid, one possible object each: presence, position, depth, what."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from objdisc_jax.models.gnm.distributions import Normal, RelaxedBernoulli
from objdisc_jax.models.gnm.layers import NormedConvs
from objdisc_jax.models.gnm.settings import Settings
from objdisc_jax.nn.conv import conv, convolution
from objdisc_jax.nn.initializers import uniform

PRES_SCALE = 8.8
"""Largest log odds of presence: its probability stays between 0.00015 and 0.99985."""


@flax.struct.dataclass
class LocalLatents:
    """One draw of the latents of k cells, float32."""

    pres: Float[Array, "b k 1"]  # presence, in (0, 1)
    # Unbounded (size, ratio, x, y); `to_transform` says what they mean.
    where: Float[Array, "b k 4"]
    depth: Float[Array, "b k 1"]  # the smaller, the nearer
    what: Float[Array, "b k d"]  # appearance


@flax.struct.dataclass
class LocalDistributions:
    """Distributions of the latents, with the axes of `LocalLatents`."""

    pres: RelaxedBernoulli
    where: Normal
    depth: Normal
    what: Normal

    def sample(self, noise: LocalLatents, temperature: ArrayLike) -> LocalLatents:
        """The draw that noise makes: uniform noise for `pres`, standard normals for the others."""
        return LocalLatents(
            pres=self.pres.sample(noise.pres, temperature),
            where=self.where.sample(noise.where),
            depth=self.depth.sample(noise.depth),
            what=self.what.sample(noise.what),
        )


class LocalLatentNet(nnx.Module):
    """Distributions of every cell's latents from the features there.

    The same network serves the prior (on the global code) and the posterior (on the encoded image).
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        self.dtype = dtype = jnp.dtype(settings.dtype)
        channels = settings.local_channels
        ones = (1,) * len(channels)
        self.trunk = NormedConvs(
            settings.encoder_channels[-1], channels, ones, ones, dtype=dtype, rngs=rngs
        )

        def head(size: int) -> nnx.Conv:
            return conv(channels[-1], size, 1, dtype=dtype, rngs=rngs)

        self.pres, self.depth, self.what = head(1), head(2), head(2 * settings.what_size)
        # Positions begin almost equal, in the middle of the cell.
        self.where = nnx.Conv(
            channels[-1],
            8,
            (1, 1),
            kernel_init=uniform(0.01),
            bias_init=lambda key, shape, dtype=None, **_: (
                jnp.zeros(shape, dtype).at[0].set(settings.initial_size)
            ),
            conv_general_dilated=convolution,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> LocalDistributions:
        """The distributions, cells in rows: k = h · w."""
        heads = (self.pres, self.where, self.depth, self.what)
        x = rearrange(self.trunk(x).astype(self.dtype), "b h w c -> b (h w) c")
        kernel, bias = (  # one product for all
            jnp.concatenate([getattr(head, name)[...] for head in heads], axis=-1).astype(x.dtype)
            for name in ("kernel", "bias")
        )
        found = (x @ kernel[0, 0] + bias[None, None]).astype(jnp.float32)
        ends = np.cumsum([head.out_features for head in heads])[:-1]
        pres, where, depth, what = jnp.split(found, ends, axis=-1)
        return LocalDistributions(
            pres=RelaxedBernoulli(PRES_SCALE * jnp.tanh(pres)),
            where=Normal.from_features(where),
            depth=Normal.from_features(depth),
            what=Normal.from_features(what),
        )


def to_transform(where: Float[Array, "b k 4"], grid: tuple[int, int]) -> Float[Array, "b k 4"]:
    """z_where of raw latents: (scale x, scale y, shift x, shift y), the image from −1 to 1.

    The first latent is the size, σ(s) of the image; the second the ratio of height to width,
    exp(r); the others move the centre from the middle of the cell by up to a whole cell.
    """
    rows, columns = grid
    scale, stretch = jax.nn.sigmoid(where[..., 0]), jnp.exp(0.5 * where[..., 1])
    cell = jnp.arange(rows * columns)[None]
    x = cell % columns + 0.5 + jnp.tanh(where[..., 2])
    y = cell // columns + 0.5 + jnp.tanh(where[..., 3])
    shift = (2.0 / columns * x - 1.0, 2.0 / rows * y - 1.0)
    return jnp.stack([scale / stretch, scale * stretch, *shift], axis=-1)
