"""SLATE computes what the published PyTorch code computes (golden/README.md)."""

import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from objdisc_jax.models import base
from objdisc_jax.models.base import Batch
from objdisc_jax.models.slate.settings import Settings
from objdisc_jax.testing.models import ModelCase
from tests.golden import published

STEP = jnp.int32(0)


def build(settings, hard=False):
    """The published model of a golden file's size: graphdef, params by the recipe, their rules."""
    block = {
        "resolution": tuple(settings["resolution"]),
        "num_decoder_blocks": settings["num_dec_blocks"],
        "temperature": (0.5, 0.5),
        "hard": hard,
        **{
            key: settings[key]
            for key in ("num_slots", "num_iterations", "slot_size", "mlp_hidden_size")
        },
        **{key: settings[key] for key in ("vocab_size", "d_model", "num_heads", "dropout")},
    }
    case = ModelCase("slate", Settings(**block))
    graphdef, params = base.split(nnx.eval_shape(case.build))
    rules = published.rules("slate", case.settings)
    return graphdef, published.recipe_params(params, rules), rules


def inputs(golden, group, batch):
    """Images and the noise of a group, Gumbel draws included."""
    found = json.loads(str(golden["config"]))
    settings = found["model"]
    image = published.make_image(found["img_seed"], batch, *settings["resolution"], 0.0, 1.0)
    shape = (batch, settings["num_slots"], settings["slot_size"])
    noise = {"slots": published.make_noise(found["noise_seed"], shape)}
    height, width = (side // 4 for side in settings["resolution"])
    draws = {"gumbel_code": "soft", "gumbel_tokens": "hard"}
    for ours, theirs in draws.items():
        noise[ours] = jnp.zeros((batch, height * width, settings["vocab_size"]))
        if f"{group}/exponential_{theirs}" in golden:
            exponential = golden[f"{group}/exponential_{theirs}"]
            noise[ours] = jnp.asarray(by_token(-np.log(exponential)))
    return image, noise


def by_token(x):
    """NCHW as `[b, h·w, c]`."""
    return x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)


def by_pixel(image):
    """NHWC as NCHW."""
    return np.asarray(image).transpose(0, 3, 1, 2)


def compute(graphdef, params, image, noise):
    """The training pass taken apart, and the gradient of its loss."""

    @jax.jit
    def run(params, image, noise):  # as arguments, so that groups share one compilation
        def loss(params):
            model = base.merge(graphdef, params)
            values, scalars = model.loss(Batch({"image": image}), noise, step=STEP)
            return values.mean(), jax.tree.map(jnp.mean, scalars)

        model = base.merge(graphdef, params)
        tokens, code = model.code(image, noise, model.temperature_at(STEP))
        embedded = model.embedding(tokens)
        slots, attn = model.attend(embedded, noise)
        found = {
            "z_log_softmax": jax.nn.log_softmax(model.dvae.logits(model.dvae.encode(image))),
            "tokens": tokens,
            "recon": model.dvae.decode(code, model.resolution),
            "slots": slots,
            "attn": attn,
            "pred_logits": model.head(model.decode_features(embedded, slots)),
        }
        return found, *jax.value_and_grad(loss, has_aux=True)(params)

    return jax.device_get(run(params, image, noise))


def check_losses(golden, group, loss, scalars):
    for value, name in (
        (loss, "loss"),
        (scalars["recon_loss"], "mse"),
        (scalars["cross_entropy"], "cross_entropy"),
    ):
        np.testing.assert_allclose(value, golden[f"{group}/{name}"], rtol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def small():
    golden = published.load_npz("slate.npz")
    return golden, json.loads(str(golden["config"]))["model"]


def test_recipe_gives_the_published_random_numbers():
    layouts = published.load_json("layouts.json")
    shapes = {key: shape for key, shape, _, _ in layouts["slate"]}
    for name, first in layouts["recipe_check_first4"].items():
        model, key = name.split(":")
        if model == "slate":
            values = published.recipe(key, shapes[key]).ravel()[:4]
            np.testing.assert_allclose(values, first, rtol=1e-6)


@pytest.mark.parametrize("group", ["a", "b", "c"])
def test_outputs_losses_and_every_gradient_match_published(small, group):
    golden, settings = small
    graphdef, params, rules = build(settings, hard=bool(golden[f"{group}/hard"]))
    image, noise = inputs(golden, group, 2)
    found, (loss, scalars), grads = compute(graphdef, params, image, noise)

    def close(ours, name, atol=1e-5):
        np.testing.assert_allclose(ours, golden[f"{group}/{name}"], atol=atol, err_msg=name)

    np.testing.assert_array_equal(found["tokens"], golden[f"{group}/tokens"])
    close(by_pixel(found["recon"])[..., ::4, ::4], "recon_unclamped")
    close(found["slots"], "slots")
    close(found["attn"], "slot_attn_raw", 1e-6)
    close(found["pred_logits"][:, ::8], "pred_logits")
    logits = found["z_log_softmax"].reshape(2, 8, 8, -1)[:, ::4, ::4]
    close(by_pixel(logits), "z_log_softmax")
    check_losses(golden, group, loss, scalars)
    published.check_gradients(golden, grads, rules, f"{group}/")


def test_prediction_and_greedy_tokens_match_published(small):
    golden, settings = small
    graphdef, params, _ = build(settings)
    image, noise = inputs(golden, "a", 2)

    @jax.jit
    def run(params):
        model = base.merge(graphdef, params)
        batch = Batch({"image": image})
        prediction = model.predict(batch, noise, step=STEP)
        tokens = model.generate(prediction.slots)
        rows = model.visualize(batch, noise, step=STEP)
        return prediction, tokens, model.decode_image(tokens), rows

    prediction, tokens, rendered, rows = jax.device_get(run(params))
    np.testing.assert_array_equal(prediction.extras["tokens"], golden["a/tokens"])
    recon = by_pixel(prediction.recon)[..., ::4, ::4]  # that of the one-hot code, group c
    np.testing.assert_allclose(recon, golden["c/recon_unclamped"].clip(0, 1), atol=1e-5)
    np.testing.assert_allclose(prediction.slots, golden["a/slots"], atol=1e-5)
    np.testing.assert_array_equal(tokens, golden["ar/tokens"])
    np.testing.assert_allclose(by_pixel(rendered)[..., ::4, ::4], golden["ar/image"], atol=1e-5)
    np.testing.assert_array_equal(rendered, rows["autoregressive"])
    attention = rows["attention"].transpose(0, 1, 4, 2, 3)[..., ::8, ::8]
    np.testing.assert_allclose(attention, golden["ar/attns"], atol=1e-5)


def test_full_size_model_matches_published():
    golden = published.load_npz("slate_full.npz")
    graphdef, params, rules = build(json.loads(str(golden["config"]))["model"])
    image, noise = inputs(golden, "a", 1)
    as_stored = np.ascontiguousarray(by_pixel(image))
    assert zlib.crc32(as_stored.tobytes()) == golden["image_crc32"]
    assert zlib.crc32(noise["slots"].tobytes()) == golden["noise_crc32"]
    found, (loss, scalars), grads = compute(graphdef, params, image, noise)
    close = np.testing.assert_allclose
    np.testing.assert_array_equal(found["tokens"], golden["a/tokens"])
    close(by_pixel(found["recon"])[..., ::8, ::8].clip(0, 1), golden["a/recon_s8"], atol=1e-5)
    close(found["slots"], golden["a/slots"], atol=1e-5)
    close(found["attn"][:, ::8], golden["a/slot_attn_s8"], atol=1e-6)
    predicted = found["pred_logits"]
    close(predicted[:, :4, ::16], golden["a/pred_logits_first4"], atol=1e-5)
    np.testing.assert_array_equal(predicted[:, :64].argmax(-1), golden["a/first64_pred_argmax"])
    check_losses(golden, "a", loss, scalars)
    published.check_gradients(golden, grads, rules, "a/")
