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
    return jnp.asarray(image.transpose(0, 2, 3, 1))


def make_noise(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def rules(name, settings=None):
    """(published key, path here, layout change of a gradient or weight) for every parameter."""
    model = interop.get(name)(settings or models.settings_class(name)())
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


def check_gradients(golden, grads, rules, prefix="", *, rtol=1e-3, zero=1e-5):
    """Every gradient has the published norm and projection, and where stored the same values.

    `zero` is how large one may be by rounding that is zero.
    """
    norms = dict(zip(golden[prefix + "grad_keys"], golden[prefix + "grad_norms"], strict=True))
    projections = dict(
        zip(golden[prefix + "grad_keys"], golden[prefix + "grad_projs"], strict=True)
    )
    without_gradient = set(golden[prefix + "grad_none_keys"])
    assert set(norms) == {key for key, _, _ in rules}
    for key, path, change in rules:
        ours = np.asarray(lookup(grads, path), np.float64)
        # Zero but for rounding: it cancels in the softmax. Not where slots are normalised for good.
        if key.endswith("norm_slots.bias") and norms[key] < zero:
            assert np.abs(ours).max() < zero
            continue
        norm = np.linalg.norm(ours)
        if key in without_gradient:
            assert norm == 0, key
            continue
        np.testing.assert_allclose(norm, norms[key], rtol=rtol, err_msg=key)
        shape = torch_shape(ours.shape, change)
        direction = np.random.default_rng(zlib.crc32(b"proj:" + key.encode()))
        projection = np.vdot(change(direction.standard_normal(shape)), ours)
        tolerance = rtol * norms[key] * np.sqrt(ours.size)
        assert abs(projection - projections[key]) < tolerance, key
        if prefix + f"grad/{key}" in golden:
            np.testing.assert_allclose(
                ours, change(golden[prefix + f"grad/{key}"]), atol=rtol * norm, err_msg=key
            )
