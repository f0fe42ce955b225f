"""The transformer decoder: causality, chunks, the one-token step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from objdisc_jax.models.slate.settings import Settings
from objdisc_jax.nn import transformer
from objdisc_jax.nn.chunks import in_chunks
from objdisc_jax.nn.transformer import TransformerDecoder

TOKENS = 6


def decoder(**settings):
    defaults = {"d_model": 8, "dropout": 0.0, "rematerialize": False}
    small = dataclasses.replace(Settings.small(), **defaults | settings)
    return TransformerDecoder(small, rngs=nnx.Rngs(0))


@pytest.fixture
def sequences():
    return jax.random.normal(jax.random.key(1), (2, TOKENS, 8))


@pytest.fixture
def context():
    return jax.random.normal(jax.random.key(2), (2, 3, 8))


@pytest.mark.parametrize("part", [2, 256])  # several parts of queries, or one
@pytest.mark.parametrize("jit", [True, False])
def test_output_depends_on_the_past_alone(sequences, context, monkeypatch, part, jit):
    monkeypatch.setattr(transformer, "PART", part)
    model = decoder()

    def output(x):
        return (model(x, context) ** 3).sum((0, 2))  # the plain sum over a norm is constant

    jacobian = jax.jacobian(jax.jit(output) if jit else output)(sequences)
    depends = np.abs(jacobian).sum((1, 3)) > 1e-12
    np.testing.assert_array_equal(depends, np.tri(TOKENS, dtype=bool))


@pytest.mark.parametrize("settings", [{"rematerialize": True}, {}])
def test_parts_and_rematerialization_change_nothing(sequences, context, monkeypatch, settings):
    plain, model = decoder(), decoder(**settings)

    def value_and_gradient(model):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(model(x, context)))))(sequences)

    expected = value_and_gradient(plain)
    monkeypatch.setattr(transformer, "PART", 4)
    found = value_and_gradient(model)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_steps_with_the_cache_equal_the_whole(sequences, context):
    model = decoder()
    contexts = model.contexts(context)
    caches, outputs = model.empty_cache(2, TOKENS), []
    for i in range(TOKENS):
        output, caches = model.step(sequences[:, i], contexts, caches, jnp.int32(i))
        outputs.append(output)
    np.testing.assert_allclose(jnp.stack(outputs, 1), model(sequences, context), atol=1e-5)


def test_dropout_is_a_function_of_its_key(sequences, context):
    model = decoder(dropout=0.3)
    first, again, other = (model(sequences, context, jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    assert np.abs(first - model(sequences, context)).max() > 0.01


def test_order_of_the_context_does_not_matter(sequences, context):
    model = decoder()
    turned = model(sequences, context[:, ::-1])
    np.testing.assert_allclose(turned, model(sequences, context), atol=1e-5)


def test_chunks_give_what_the_whole_gives():
    x = jax.random.normal(jax.random.key(0), (2, 12, 3))
    weights = jax.random.normal(jax.random.key(1), (3, 5))

    def function(first, x):
        position = first + jnp.arange(x.shape[1])
        return jax.nn.softmax(x @ weights, -1) * position[None, :, None]

    def loss(limit):
        return lambda x: jnp.sum(in_chunks(function, x, width=5, limit=limit) ** 2)

    expected = jax.value_and_grad(loss(10**6))(x)
    for limit in (1, 20, 30, 41):  # one token at a time, two, three, four
        found = jax.jit(jax.value_and_grad(loss(limit)))(x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
