"""All latents of a scene, and how far they are from what was expected of them."""

from typing import NamedTuple

import flax.struct
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from objdisc_jax.models.gnm.distributions import Normal, RelaxedBernoulli
from objdisc_jax.models.gnm.local_latents import LocalDistributions, LocalLatents
from objdisc_jax.models.gnm.struct_draw import GlobalCode

STANDARD = Normal(0.0, 1.0)  # pyright: ignore[reportArgumentType]


@flax.struct.dataclass
class SceneLatents:
    """One draw of everything that makes up scenes, and what it was drawn from."""

    code: GlobalCode  # the global code
    local: LocalLatents  # latents of the cells
    bg: Float[Array, "b d"]  # the background's latent
    p_local: LocalDistributions  # what the global code says of the cells
    # What the image says of them; the prior again where they were drawn from it.
    q_local: LocalDistributions
    p_bg: Normal  # what the global latents say of the background
    q_bg: Normal  # what the image says of it; the prior again where it was drawn from that


class AuxiliaryPriors(NamedTuple):
    """Fixed priors beside the learned ones; those not named here are N(0, 1)."""

    pres: ArrayLike  # probability of presence
    where: Normal  # of the raw latents (size, ratio, x, y)


def kl_terms(latents: SceneLatents, priors: AuxiliaryPriors) -> dict[str, Float[Array, "b"]]:
    """The KL terms of the ELBO in nats per image, to the learned and to the auxiliary priors."""
    p, q = latents.p_local, latents.q_local
    aux_pres = RelaxedBernoulli.from_probs(priors.pres)
    # What a cell without an object would show is not held to the auxiliary priors.
    pres = jnp.maximum(latents.local.pres, 1e-5)
    terms = {
        "pres": q.pres.kl(p.pres),
        "aux_pres": q.pres.kl(aux_pres),
        "where": q.where.kl(p.where),
        "aux_where": q.where.kl(priors.where) * pres,
        "what": q.what.kl(p.what),
        "aux_what": q.what.kl(STANDARD) * pres,
        "depth": q.depth.kl(p.depth),
        "aux_depth": q.depth.kl(STANDARD) * pres,
        "bg": latents.q_bg.kl(latents.p_bg),
        "aux_bg": latents.q_bg.kl(STANDARD),
        "global": latents.code.posterior.kl(latents.code.prior),
    }
    return {name: sum_over_example(term) for name, term in terms.items()}


def log_prior_ratio(
    latents: SceneLatents, pres_logits: Float[Array, "b k 1"], temperature: ArrayLike
) -> Float[Array, "b"]:
    """The log importance weight of a draw: log p(z) − log q(z | image), in nats per image.

    With the learned priors alone. Logits and temperature are those of its relaxed presence.
    """
    p, q, local, code = latents.p_local, latents.q_local, latents.local, latents.code
    terms = [
        p.pres.log_prob_logits(pres_logits, temperature)
        - q.pres.log_prob_logits(pres_logits, temperature),
        p.where.log_prob(local.where) - q.where.log_prob(local.where),
        p.depth.log_prob(local.depth) - q.depth.log_prob(local.depth),
        p.what.log_prob(local.what) - q.what.log_prob(local.what),
        latents.p_bg.log_prob(latents.bg) - latents.q_bg.log_prob(latents.bg),
        code.prior.log_prob(code.z) - code.posterior.log_prob(code.z),
    ]
    return sum((sum_over_example(term) for term in terms), start=jnp.zeros(len(latents.bg)))


def sum_over_example(x: Float[Array, "b *n"]) -> Float[Array, "b"]:
    """The sum over all axes but the first."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))
