"""Posteriors of slots: independent normals, given by 2z parameters.

The parameters are means, then raw variances, whose softplus is the variance. The prior is what
zeros give: its variance is ln 2, not 1, as in the official code.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

PRIOR_VARIANCE = math.log(2.0)
MIN_VARIANCE = 1e-30
"""Below raw values of -69 the official code's variance goes on to 0, and the KL to infinity."""


def mean_and_variance(
    posterior: Float[Array, "*b p"],
) -> tuple[Float[Array, "*b z"], Float[Array, "*b z"]]:
    """The normals that parameters stand for."""
    mean, raw = jnp.split(posterior, 2, axis=-1)
    return mean, jnp.maximum(jax.nn.softplus(raw), MIN_VARIANCE)


def sample(posterior: Float[Array, "*b p"], noise: Float[Array, "*b z"]) -> Float[Array, "*b z"]:
    """The draws that standard normal noise makes."""
    mean, variance = mean_and_variance(posterior)
    return mean + jnp.sqrt(variance) * noise


def kl(posterior: Float[Array, "*b p"]) -> Float[Array, "*b"]:
    """KL(q ‖ prior) in nats, summed over a slot's dimensions."""
    return jnp.sum(kl_per_dimension(posterior), axis=-1)


def kl_per_dimension(posterior: Float[Array, "*b p"]) -> Float[Array, "*b z"]:
    """KL(q ‖ prior) in nats of every dimension."""
    mean, variance = mean_and_variance(posterior)
    ratio = variance / PRIOR_VARIANCE
    return 0.5 * (mean**2 / PRIOR_VARIANCE + ratio - 1.0 - jnp.log(ratio))
