"""Pixels as a mixture over slots (section 2.1 of the paper)."""

import math
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from objdisc_jax.models.iodine.settings import Settings

DENSITY_EPSILON = 1e-6


class Decoded(NamedTuple):
    """What slots paint, or the gradient of something by it."""

    logits: Float[Array, "b k h w"]  # of the masks
    colours: Float[Array, "b k h w 3"]


class Mixture:
    """Images under what slots paint: a mixture of their colours, weighted by their masks.

    The components are densities of a pixel's three channels at once. All float32.

    Args:
        decoded: what the slots paint.
        image: the images.
        settings: uses `likelihood` and `sigma`.
    """

    def __init__(self, decoded: Decoded, image: Float[Array, "b h w 3"], settings: Settings):
        self.decoded, self.settings = decoded, settings
        self.log_masks: Float[Array, "b k h w"] = jax.nn.log_softmax(decoded.logits, axis=1)
        self._residuals = (image[:, None] - decoded.colours) / settings.sigma

    @cached_property
    def masks(self) -> Float[Array, "b k h w"]:
        """Weights of the slots, which sum to 1."""
        return jnp.exp(self.log_masks)

    @cached_property
    def recon(self) -> Float[Array, "b h w 3"]:
        """The mixture's mean, not clipped."""
        return jnp.sum(self.masks[..., None] * self.decoded.colours, axis=1)

    @cached_property
    def log_densities(self) -> Float[Array, "b k h w"]:
        """Log density of a pixel under every slot, whatever its mask."""
        u, sigma = self._residuals, self.settings.sigma
        if self.settings.likelihood == "logistic":
            channels = -u - 2.0 * jax.nn.softplus(-u) - math.log(sigma)
        else:
            channels = -0.5 * u**2 - math.log(sigma * math.sqrt(2.0 * math.pi))
        return jnp.sum(channels, axis=-1)

    @cached_property
    def log_prob(self) -> Float[Array, "b h w"]:
        """Log density of a pixel in nats."""
        return jax.nn.logsumexp(self.log_masks + self.log_densities, axis=1)

    def log_prob_without_each(self) -> Float[Array, "b k h w"]:
        """The log density with a slot removed, and the others' masks renormalised."""
        others = jnp.eye(self.log_masks.shape[1])[None, :, :, None, None] == 0.0

        def sum_others(logs: Float[Array, "b k h w"]) -> Float[Array, "b k h w"]:
            return jax.nn.logsumexp(logs[:, None], axis=2, where=others)

        return sum_others(self.log_masks + self.log_densities) - sum_others(self.log_masks)

    def density_shares(self) -> Float[Array, "b k h w"]:
        """Density of a pixel under a slot as a share of all, whatever the masks."""
        densities = jnp.exp(self.log_densities)
        return densities / (jnp.sum(densities, axis=1, keepdims=True) + DENSITY_EPSILON)

    def nll_gradient(self) -> Decoded:
        """The gradient of a pixel's −`log_prob` by what the slots paint."""
        joint = self.log_masks + self.log_densities
        responsibilities = jax.nn.softmax(joint, axis=1)
        u = self._residuals
        is_logistic = self.settings.likelihood == "logistic"
        scores = (jnp.tanh(0.5 * u) if is_logistic else u) / self.settings.sigma
        return Decoded(self.masks - responsibilities, -responsibilities[..., None] * scores)
