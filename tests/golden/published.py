"""The published models' weights by recipe, their inputs by seed, where each weight goes here."""

import json
import zlib
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from objdisc_jax import interop, models
from objdisc_jax.interop.mapping import array_to_jax

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


def slot_attention_rules():
    """(published key, path here, layout change of a gradient or weight) for every parameter."""
    model = interop.create(models.get("slot_attention").default_config().to_dict())
    return [
        (
            rule.key,
            tuple(int(name) if name.isdigit() else name for name in rule.path.split(".")),
            partial(array_to_jax, layout=rule.layout),
        )
        for rule in model.rules()
    ]


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
    """The published shape of a parameter that has this one here."""
    return change.keywords["layout"].torch_shape(shape)
