"""Distributions of latent variables: typed, always in float32, sampled from given noise."""

import math

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

LOG_EPSILON = 1e-15
"""Added to probabilities before their logarithm is taken; float32 has it, half precision not."""
SMALLEST, LARGEST = float(jnp.finfo(jnp.float32).tiny), 1.0 - 2.0**-23
"""Relaxed draws stay between the two, as PyTorch's do."""


@flax.struct.dataclass
class Normal:
    """Independent Gaussians."""

    mean: Float[Array, "*s"]
    std: Float[Array, "*s"]  # standard deviations or anything that broadcasts with them

    @classmethod
    def from_features(cls, features: Float[Array, "*b c"]) -> "Normal":
        """Means from the first half of the last axis, softplus of the second as deviations."""
        mean, raw = jnp.split(features.astype(jnp.float32), 2, axis=-1)
        return cls(mean, jax.nn.softplus(raw))

    def sample(self, noise: ArrayLike) -> Float[Array, "*s"]:
        """The draw that standard normal noise makes; 0 gives the mean."""
        return self.mean + self.std * noise

    def log_prob(self, x: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """Log density of every element, in nats."""
        deviation = (x - self.mean) / self.std
        return -0.5 * deviation**2 - jnp.log(self.std) - 0.5 * math.log(2.0 * math.pi)

    def kl(self, other: "Normal") -> Float[Array, "*s"]:
        """KL(self ‖ other) of every element, in nats."""
        ratio = self.std / other.std
        distance = (self.mean - other.mean) / other.std
        return 0.5 * (ratio**2 + distance**2 - 1.0) - jnp.log(ratio)


@flax.struct.dataclass
class RelaxedBernoulli:
    """Coins whose draws are relaxed to (0, 1) (Maddison et al. 2017, arXiv 1611.00712)."""

    logits: Float[Array, "*s"]  # log odds of 1

    @classmethod
    def from_probs(cls, probs: ArrayLike) -> "RelaxedBernoulli":
        """From probabilities of 1."""
        probs = jnp.asarray(probs, jnp.float32)
        return cls(jnp.log(probs) - jnp.log1p(-probs))

    @property
    def probs(self) -> Float[Array, "*s"]:
        """Probabilities of 1."""
        return jax.nn.sigmoid(self.logits)

    def sample_logits(self, noise: ArrayLike, temperature: ArrayLike) -> Float[Array, "*s"]:
        """The log odds of the relaxed draw that uniform noise in (0, 1) makes."""
        noise = jnp.asarray(noise, jnp.float32)
        return (self.logits + jnp.log(noise) - jnp.log1p(-noise)) / temperature

    def sample(self, noise: ArrayLike, temperature: ArrayLike) -> Float[Array, "*s"]:
        """The relaxed draw of uniform noise in (0, 1); 0.5 gives σ(logits / temperature)."""
        return jnp.clip(jax.nn.sigmoid(self.sample_logits(noise, temperature)), SMALLEST, LARGEST)

    def log_prob_logits(self, y: Float[Array, "*s"], temperature: ArrayLike) -> Float[Array, "*s"]:
        """Log density of a relaxed draw's log odds y, in nats."""
        x = self.logits - temperature * y
        return jnp.log(temperature) + x - 2.0 * jax.nn.softplus(x)

    def kl(self, other: "RelaxedBernoulli") -> Float[Array, "*s"]:
        """KL(self ‖ other) of the coins themselves, not of the relaxed draws, in nats."""
        p, q = self.probs, other.probs

        def log(x: Array) -> Array:
            return jnp.log(x + LOG_EPSILON)

        return p * (log(p) - log(q)) + (1.0 - p) * (log(1.0 - p) - log(1.0 - q))


def uniform_noise(key: Array, shape: tuple[int, ...]) -> Float[Array, "*s"]:
    """Uniform draws from the open interval (0, 1), whose log odds are finite."""
    return jax.random.uniform(key, shape, minval=2.0**-23, maxval=LARGEST)
