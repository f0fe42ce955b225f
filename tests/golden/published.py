"""The published models' weights by recipe, their inputs by seed, where each weight goes here."""

import json
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np

GOLDEN = Path(__file__).parent


def load_json(name):
    return json.loads((GOLDEN / name).read_text())


def load_npz(name):
    with np.load(GOLDEN / name) as file:
        return dict(file)


def recipe(key, shape):
    """The value of a published parameter, PyTorch layout."""
    z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if len(shape) >= 2:
        return z * np.float32(1.0 / np.sqrt(np.prod(shape[1:])))
    if key.endswith("weight"):
        return np.float32(1.0) + np.float32(0.1) * z
    return np.float32(0.1) * z


def make_image(seed, batch, height, width, low, high):
    """A test image, NHWC float32."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(size=(batch, 3, 8, 8))
    fine = rng.uniform(size=(batch, 3, height, width))
    up = np.repeat(np.repeat(coarse, height // 8, 2), width // 8, 3)
    image = (low + (high - low) * (0.75 * up + 0.25 * fine)).astype(np.float32)
    return image.transpose(0, 2, 3, 1)


def make_noise(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _dense(w):
    return w.T


def _conv(w):
    return w.transpose(2, 3, 1, 0)


def _conv_transpose(w):
    return w[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)


def _same(w):
    return w


def slot_attention_rules():
    """(published key, path here, layout change of a gradient or weight) for every parameter."""
    rules = []

    def layer(key, path, change, weight="kernel"):
        rules.append((f"{key}.weight", (*path, weight), change))
        rules.append((f"{key}.bias", (*path, "bias"), _same))

    for i in range(4):
        layer(f"encoder.{i}.0", ("encoder", "layers", i), _conv)
        layer(f"decoder.{i}.0", ("decoder", "layers", i), _conv_transpose)
    layer("decoder.4.0", ("decoder", "layers", 4), _conv_transpose)
    layer("decoder.4.2", ("decoder", "out"), _conv_transpose)
    layer("encoder_pos_embedding.dense", ("encoder_position", "dense"), _dense)
    layer("decoder_pos_embedding.dense", ("decoder", "position", "dense"), _dense)
    layer("encoder_out_layer.0", ("encoder_mlp", "layers", 0), _dense)
    layer("encoder_out_layer.2", ("encoder_mlp", "layers", 1), _dense)
    for name in ("slot_mu", "slot_log_sigma"):
        rules.append((f"slot_attention.{name}", ("slot_attention", name), _same))
    for name in ("norm_inputs", "norm_slots", "norm_mlp"):
        layer(f"slot_attention.{name}", ("slot_attention", name), _same, weight="scale")
    for name in ("project_q", "project_k", "project_v"):
        path = ("slot_attention", name, "kernel")
        rules.append((f"slot_attention.{name}.weight", path, _dense))
    for side, name in (("ih", "input"), ("hh", "hidden")):
        gru = ("slot_attention", "gru", name)
        rules.append((f"slot_attention.gru.weight_{side}", (*gru, "kernel"), _dense))
        rules.append((f"slot_attention.gru.bias_{side}", (*gru, "bias"), _same))
    for i, j in ((0, 0), (2, 1)):
        layer(f"slot_attention.mlp.{i}", ("slot_attention", "mlp", "layers", j), _dense)
    return rules


def lookup(tree, path):
    for name in path:
        tree = tree[name]
    return tree


def recipe_params(params, rules, gain=1.0):
    """A copy of a parameter tree filled by the recipe; every leaf must have its rule.

    `gain` multiplies the parameters of two or more axes.
    """
    out = {}
    for key, path, change in rules:
        target = lookup(params, path)
        # The recipe draws in PyTorch's layout; `change` is a permutation, so its inverse gives
        # that layout's shape from ours.
        shape = torch_shape(target.shape, change)
        value = change(recipe(key, shape))
        if value.ndim >= 2:
            value = value * np.float32(gain)
        assert value.shape == target.shape, key
        node = out
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = jnp.asarray(value)
    return out


def torch_shape(shape, change):
    if change is _dense:
        return shape[::-1]
    if change is _conv:
        return (shape[3], shape[2], shape[0], shape[1])
    if change is _conv_transpose:
        return (shape[2], shape[3], shape[0], shape[1])
    return shape
