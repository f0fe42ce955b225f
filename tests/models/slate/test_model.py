"""What only SLATE does: generation, slot editing, seeds in place of noise, dropout."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from objdisc_jax.models import base
from objdisc_jax.models.base import Batch
from objdisc_jax.models.slate.model import exchange
from objdisc_jax.models.slate.settings import Settings
from objdisc_jax.nn import chunks
from objdisc_jax.testing.models import ModelCase
from tests.golden import published

STEP = jnp.int32(0)


@pytest.fixture(scope="module")
def model():
    case = ModelCase.small("slate")
    graphdef, _ = base.split(nnx.eval_shape(case.build))
    return base.merge(graphdef, jax.jit(lambda: base.split(case.build())[1])())


@pytest.fixture
def slots():
    return jax.random.normal(jax.random.key(5), (2, 3, 8))


@pytest.fixture
def batch(model):
    return Batch({"image": jax.random.uniform(jax.random.key(1), (2, *model.resolution, 3))})


def run_again(model, slots):
    """Greedy tokens by the whole decoder on the whole sequence, for every token."""

    @jax.jit
    def logits(tokens):
        return model.head(model.decode_features(model.embedding(tokens), slots))

    tokens = jnp.zeros((len(slots), model.settings.num_tokens), jnp.int32)
    for i in range(model.settings.num_tokens):
        tokens = tokens.at[:, i].set(jnp.argmax(logits(tokens)[:, i], -1))
    return tokens


def test_cached_generation_equals_running_everything_again(model, slots):
    found = jax.jit(lambda slots: model.generate(slots))(slots)
    np.testing.assert_array_equal(found, run_again(model, slots))
    assert len(np.unique(found)) > 2


def test_generation_in_bfloat16_takes_the_argmax_but_for_rounding(model, slots):
    graphdef, _ = base.split(nnx.eval_shape(ModelCase.small("slate", dtype="bfloat16").build))
    model = base.merge(graphdef, base.split(model)[1])

    @jax.jit
    def compute(slots):
        tokens = model.generate(slots)
        features = model.decode_features(model.embedding(tokens), slots)
        return tokens, model.head(features)

    tokens, logits = compute(slots)
    assert logits.dtype == jnp.bfloat16
    assert len(np.unique(tokens)) > 2
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, tokens[..., None], -1)[..., 0]
    assert (logits.max(-1) - chosen < 0.05).all()


def test_samples_follow_the_key_and_are_among_the_top_k(model, slots):
    generate = jax.jit(
        lambda key, **settings: model.generate(slots, key=key, **settings),
        static_argnames=("temperature", "top_k"),
    )
    greedy = model.generate(slots)
    first, again, other = (generate(jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(generate(jax.random.key(0), top_k=1), greedy)
    np.testing.assert_array_equal(generate(jax.random.key(0), temperature=1e-4), greedy)

    drawn = generate(jax.random.key(2), top_k=3)
    logits = model.head(model.decode_features(model.embedding(drawn), slots))
    rank = (logits > jnp.take_along_axis(logits, drawn[..., None], -1)).sum(-1)
    assert (rank < 3).all()
    assert (rank > 0).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 3}, "give a key|Give a key"),
        ({"temperature": 0.5}, "Give a key"),
        ({"key": 0, "temperature": 0.0}, r"temperature: got 0\.0; it must be above 0"),
        ({"key": 0, "top_k": 17}, "top_k: got 17; it lies from 1 to 16"),
    ],
)
def test_generation_refuses_what_it_cannot_do(model, slots, arguments, message):
    if "key" in arguments:
        arguments = arguments | {"key": jax.random.key(0)}
    with pytest.raises(ValueError, match=message):
        model.generate(slots, **arguments)


def test_slots_can_be_left_out_and_exchanged(model, slots):
    first, second = slots[:1], slots[1:]
    mixed, rest = exchange(first, second, slot=2, other=0)
    np.testing.assert_array_equal(mixed[0], [*first[0, :2], second[0, 0]])
    np.testing.assert_array_equal(rest[0], [first[0, 2], *second[0, 1:]])
    generate = jax.jit(model.generate)
    assert (generate(mixed) != generate(first)).any()
    turned = generate(first[:, ::-1])  # a set: its order says nothing
    np.testing.assert_array_equal(turned, generate(first))
    assert generate(first[:, :2]).shape == (1, model.settings.num_tokens)
    assert model.decode_image(generate(first[:, :2])).shape == (1, *model.resolution, 3)
    with pytest.raises(ValueError, match="other: got 3; slots are numbered 0 to 2"):
        exchange(first, second, slot=0, other=3)


def test_loss_does_not_depend_on_the_chunks(model, batch, monkeypatch):
    noise = model.noise(jax.random.key(0), 2)
    expected = model.loss(batch, noise, step=STEP)[0]
    default = inspect.unwrap(chunks.in_chunks).__kwdefaults__
    monkeypatch.setitem(default, "limit", 100)  # a few tokens at a time
    np.testing.assert_allclose(model.loss(batch, noise, step=STEP)[0], expected, rtol=1e-5)


def test_no_array_of_all_tokens_by_the_vocabulary_is_made():
    case = ModelCase.small("slate", resolution=(64, 64), vocab_size=512)
    abstract = nnx.eval_shape(case.build)
    graphdef, params = base.split(abstract)
    image = jax.ShapeDtypeStruct((200, 64, 64, 3), jnp.float32)

    def gradient(params, image):
        model = base.merge(graphdef, params)
        noise = model.noise(jax.random.key(0), len(image))
        batch = Batch({"image": image})
        batch = Batch({"image": image})
        return jax.grad(lambda p: base.merge(graphdef, p).loss(batch, noise, step=STEP)[0].mean())(
            params
        )

    lowered = jax.jit(gradient).lower(params, image).as_text()
    assert "200x128x512xf32" in lowered  # half of the tokens
    assert "200x256x512x" not in lowered


def test_dropout_is_a_function_of_its_key(model, batch):
    noise = model.noise(jax.random.key(0), 2)
    loss = jax.jit(
        lambda key: model.loss(batch, noise, step=STEP, dropout_key=key)[1]["cross_entropy"]
    )
    first, again, other = (loss(jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    without = model.loss(batch, noise, step=STEP)[1]["cross_entropy"]
    assert (first != without).all()


def test_temperature_matches_published():
    golden = published.load_json("schedules.json")["slate_tau"]
    model = nnx.eval_shape(ModelCase("slate", Settings()).build)
    found = [model.temperature_at(jnp.int32(step)) for step in golden["steps"]]
    np.testing.assert_allclose(found, golden["values"], atol=1e-6)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("resolution", (30, 32), r"model\.resolution: got \(30, 32\).*multiples of 4"),
        ("num_heads", 3, r"model\.num_heads: got 3; it must divide model\.d_model, 16"),
        ("dropout", 1.0, r"model\.dropout: got 1\.0"),
        ("temperature", (1.0, 0.0), r"model\.temperature: got \(1\.0, 0\.0\)"),
        ("vocab_size", 0, r"model\.vocab_size: got 0; it must be at least 1"),
        ("dtype", "float16", r"model\.dtype: got 'float16'; allowed are float32, bfloat16"),
        ("gradient", "x", r"model\.gradient: got 'x'; allowed are implicit"),
    ],
)
def test_settings_out_of_range_are_refused(setting, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Settings.small(), **{setting: value})
