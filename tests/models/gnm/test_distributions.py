"""Distributions and stacks against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import distributions as theirs

from objdisc_jax.models.gnm.distributions import Normal, RelaxedBernoulli, uniform_noise
from objdisc_jax.models.gnm.local_latents import LocalDistributions, LocalLatents
from objdisc_jax.models.gnm.scene_latents import SceneLatents, log_prior_ratio
from objdisc_jax.models.gnm.struct_draw import GlobalCode
from objdisc_jax.nn.schedules import annealed

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_normal_equals_pytorch():
    features, other, x = normal(3, 8), normal(3, 8), normal(3, 4)

    def torch_normal(features):
        mean, raw = torch.from_numpy(features).chunk(2, -1)
        return theirs.Normal(mean, torch.nn.functional.softplus(raw))

    p, q = (Normal.from_features(jnp.asarray(f)) for f in (features, other))
    tp, tq = torch_normal(features), torch_normal(other)
    np.testing.assert_allclose(p.kl(q), theirs.kl_divergence(tp, tq), rtol=1e-4)
    expected = tp.log_prob(torch.from_numpy(x))
    np.testing.assert_allclose(p.log_prob(jnp.asarray(x)), expected, rtol=1e-4)
    np.testing.assert_array_equal(p.sample(0.0), p.mean)
    assert Normal.from_features(jnp.asarray(features, jnp.bfloat16)).std.dtype == jnp.float32


def test_relaxed_bernoulli_equals_pytorch():
    logits, other, noise = 4 * normal(50), normal(50), RNG.uniform(0.01, 0.99, 50)
    p, q = RelaxedBernoulli(jnp.asarray(logits)), RelaxedBernoulli(jnp.asarray(other))
    tp, tq = (theirs.Bernoulli(logits=torch.from_numpy(x)) for x in (logits, other))
    np.testing.assert_allclose(p.kl(q), theirs.kl_divergence(tp, tq), rtol=1e-3, atol=1e-6)
    y = p.sample_logits(noise, 0.5)
    relaxed = theirs.relaxed_bernoulli.LogitRelaxedBernoulli(
        torch.tensor(0.5), logits=torch.from_numpy(logits)
    )
    expected = relaxed.log_prob(torch.from_numpy(np.array(y)))
    np.testing.assert_allclose(p.log_prob_logits(y, 0.5), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(p.sample(0.5, 1.0), p.probs, rtol=1e-6)
    np.testing.assert_allclose(RelaxedBernoulli.from_probs(q.probs).logits, other, rtol=1e-4)


def test_log_prior_ratio_equals_pytorch():
    batch, cells, temperature = 3, 4, 0.7
    sizes = {"where": (cells, 4), "depth": (cells, 1), "what": (cells, 5), "bg": (3,), "z": (2, 6)}
    draws = {name: normal(batch, *size) for name, size in sizes.items()}
    sides = [  # prior and posterior
        {
            name: (normal(batch, *size), RNG.uniform(0.5, 2.0, (batch, *size)).astype(np.float32))
            for name, size in sizes.items()
        }
        for _ in range(2)
    ]
    odds = [3 * normal(batch, cells, 1) for _ in range(2)]
    pres_logits = 3 * normal(batch, cells, 1)

    def local(side, logits):
        where, depth, what = (Normal(*side[name]) for name in ("where", "depth", "what"))
        return LocalDistributions(RelaxedBernoulli(logits), where, depth, what)

    (p, q), (p_local, q_local) = sides, map(local, sides, odds)
    latents = SceneLatents(
        code=GlobalCode(normal(batch, 1), draws["z"], Normal(*p["z"]), Normal(*q["z"])),
        local=LocalLatents(
            jax.nn.sigmoid(pres_logits), draws["where"], draws["depth"], draws["what"]
        ),
        bg=draws["bg"],
        p_local=p_local,
        q_local=q_local,
        p_bg=Normal(*p["bg"]),
        q_bg=Normal(*q["bg"]),
    )

    def log_prob(side, logits):
        tensors = {name: [torch.from_numpy(x) for x in side[name]] for name in sizes}
        relaxed = theirs.relaxed_bernoulli.LogitRelaxedBernoulli(
            torch.tensor(temperature), logits=torch.from_numpy(logits)
        )
        terms = [relaxed.log_prob(torch.from_numpy(pres_logits))]
        terms += [
            theirs.Normal(*tensors[name]).log_prob(torch.from_numpy(draws[name])) for name in sizes
        ]
        return sum(term.flatten(1).sum(1) for term in terms)

    expected = log_prob(sides[0], odds[0]) - log_prob(sides[1], odds[1])
    found = jax.jit(log_prior_ratio)(latents, pres_logits, temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_draws_and_their_divergences_are_finite_at_the_ends():
    sure = RelaxedBernoulli(jnp.asarray([[-8.8, 8.8]]))
    noise = uniform_noise(jax.random.key(0), (100_000, 1))
    assert noise.min() > 0
    assert noise.max() < 1
    extremes = jnp.asarray([[2.0**-23], [1.0 - 2.0**-23]])
    draws = sure.sample(extremes, 0.5)
    assert ((draws > 0) & (draws < 1)).all()
    never = RelaxedBernoulli.from_probs(1e-3)
    assert np.isfinite(jax.grad(lambda x: RelaxedBernoulli(x).kl(never).sum())(sure.logits)).all()


def test_ramps_are_straight_and_end():
    ramp = (10.0, 1.0, 100, 200)
    found = [float(annealed(jnp.int32(step), ramp)) for step in (0, 100, 150, 200, 10**6)]
    np.testing.assert_allclose(found, [10.0, 10.0, 5.5, 1.0, 1.0])
    assert annealed(jnp.int32(5), 0.25) == 0.25
