"""What a model's PyTorch module must do beside its JAX model, checked on settings of any kind."""

import copy
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from objdisc_jax import interop, models
from objdisc_jax.interop import mapping
from objdisc_jax.models import base
from objdisc_jax.models.base import Batch

STEP = 62_000  # halfway up the regularisers' ramp


@functools.cache
def both(name, settings, seed=0):
    """The graphdef and parameters of a JAX model, and the PyTorch model with the same ones."""
    build = models.model_class(name)
    ours = nnx.eval_shape(lambda: build(settings, rngs=nnx.Rngs(0)))
    graphdef, like = base.split(ours)
    rng = np.random.default_rng(seed)
    params, frozen = base.partition(jax.tree.map(lambda x: draw(rng, x.shape), like), ours)
    model = interop.get(name)(settings)
    model.load_state_dict(mapping.to_torch(params, model))
    return Both(graphdef, frozen), params, model.eval()


class Both(NamedTuple):
    """A JAX model without the parameters that PyTorch has as well."""

    graphdef: nnx.GraphDef
    frozen: base.Params

    def model(self, params):
        return base.merge(self.graphdef, params | self.frozen)


def draw(rng, shape):
    """Values that keep activations near 1."""
    return rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[:-1]) + 1))


def inputs(graphdef, params, batch=3, seed=0):
    """A batch and noise, for JAX and for PyTorch: of images, or of the features of a ViT."""
    model = graphdef.model(params)
    (field,), rng = model.fields, np.random.default_rng(seed)
    if field == "features":
        shape = (batch, model.settings.num_patches, model.settings.d_model)
        given = rng.standard_normal(shape).astype(np.float32)
        torch_given = torch.from_numpy(given)
    else:
        low, high = model.input_range
        given = rng.uniform(low, high, (batch, *model.resolution, 3)).astype(np.float32)
        torch_given = torch.from_numpy(given).movedim(-1, 1)
    noise = model.expand_noise(model.noise(jax.random.key(seed), batch))
    torch_noise = jax.tree.map(lambda x: torch.from_numpy(np.array(x)), noise)
    return Batch({field: jnp.asarray(given)}), noise, torch_given, torch_noise


def close(ours, theirs, rtol):
    """Whether two arrays agree to `rtol` of the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=rtol * np.abs(ours).max(), rtol=0)


def prediction_loss_and_gradients_equal_jax(name, settings):
    graphdef, params, model = both(name, settings)
    batch, noise, torch_image, torch_noise = inputs(graphdef, params)

    @jax.jit
    def compute(params, batch, noise):
        def loss(params):
            values, scalars = graphdef.model(params).loss(batch, noise, step=jnp.int32(STEP))
            return jnp.mean(values), (values, scalars)

        prediction = graphdef.model(params).predict(batch, noise, step=jnp.int32(STEP))
        return prediction, *jax.grad(loss, has_aux=True)(params)

    ours, gradient, (losses, scalars) = jax.device_get(compute(params, batch, noise))
    with torch.no_grad():
        theirs = model(torch_image, torch_noise)
    assert (ours.recon is None) == (theirs.recon is None)
    if ours.recon is not None:
        close(ours.recon, theirs.recon.movedim(1, -1), 1e-4)
    close(ours.masks, theirs.masks, 1e-4)
    close(ours.slots, theirs.slots, 1e-4)
    assert ours.background == theirs.background
    assert (ours.count is None) == (theirs.count is None)
    if ours.count is not None:
        np.testing.assert_array_equal(ours.count, theirs.count)
    assert ours.extras.keys() == theirs.extras.keys()

    model.zero_grad()
    torch_losses, torch_scalars = model.loss(torch_image, torch_noise, step=STEP)
    close(losses, torch_losses.detach(), 1e-4)
    assert scalars.keys() == torch_scalars.keys()
    for name, value in scalars.items():
        close(value, torch_scalars[name].detach(), 1e-4)
    torch_losses.mean().backward()
    expected = mapping.to_torch(gradient, model)  # a gradient's layout changes as its parameter's
    for key, parameter in model.named_parameters():
        found = torch.zeros(()) if parameter.grad is None else parameter.grad
        difference = torch.linalg.norm(found - expected[key])
        assert difference <= 1e-3 * torch.linalg.norm(expected[key]) + 1e-7, key


def noise_has_the_shapes_and_range_of_jax(name, settings):
    graphdef, params, model = both(name, settings)
    _, _, _, expected = inputs(graphdef, params, batch=200)
    drawn = model.noise(200, torch.Generator().manual_seed(0))
    assert drawn.keys() == expected.keys()
    for name, value in drawn.items():
        assert value.shape == expected[name].shape
        if not value.is_floating_point():
            assert value.min() == expected[name].min()
            assert value.max() == expected[name].max()


def bfloat16_computes_nearly_the_same(name, settings):
    graphdef, params, model = both(name, settings)
    _, _, image, noise = inputs(graphdef, params)
    exact, _ = model.loss(image, noise)
    rounded_model = copy.deepcopy(model)
    rounded_model.settings = dataclasses.replace(settings, dtype="bfloat16")
    rounded_model.zero_grad()
    rounded, _ = rounded_model.loss(image, noise)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0)
    rounded.mean().backward()
    for key, parameter in rounded_model.named_parameters():
        if key.startswith("slot_attention.project"):  # once cast without gradient, once with
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 0


def round_trip_is_bit_identical(name, settings):
    _, params, model = both(name, settings)
    state = mapping.to_torch(params, model)
    back = mapping.to_jax(state, model, params)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)
    again = mapping.to_torch(back, model)
    assert list(again) == list(model.state_dict())
    assert all(torch.equal(again[key], tensor) for key, tensor in state.items())


def fresh_parameters_are_drawn_as_in_jax(name, settings):
    build = models.model_class(name)

    def drawn():
        model = build(settings, rngs=nnx.Rngs(0))
        return base.partition(base.split(model)[1], model)[0]

    params = jax.jit(drawn)()
    torch.manual_seed(0)
    model = interop.get(name)(settings)
    ours = mapping.to_torch(params, model)
    for key, tensor in model.state_dict().items():
        if tensor.dtype == torch.bool:
            continue
        if tensor.numel() >= 100:
            assert ours[key].std().item() == pytest.approx(tensor.std().item(), rel=0.2), key
        elif tensor.numel() > 1:
            assert (ours[key].std() > 0) == (tensor.std() > 0), key


CHECKS = (
    prediction_loss_and_gradients_equal_jax,
    noise_has_the_shapes_and_range_of_jax,
    bfloat16_computes_nearly_the_same,
    round_trip_is_bit_identical,
    fresh_parameters_are_drawn_as_in_jax,
)
