"""The PyTorch models are the published ones to their keys, and compute what JAX computes."""

import copy
import inspect
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from objdisc_jax import interop, models
from objdisc_jax.errors import UserError
from objdisc_jax.interop import mapping
from objdisc_jax.models import base
from tests.golden import published
from tests.interop import variants

STEP = 62_000  # halfway up the regularisers' ramp


@pytest.fixture(params=variants.CASES, ids=lambda case: "-".join(case), scope="module")
def case(request):
    return variants.both(variants.settings(*request.param))


def close(ours, theirs, rtol):
    """Whether two arrays agree to `rtol` of the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=rtol * np.abs(ours).max(), rtol=0)


def test_every_model_has_a_counterpart():
    assert interop.names() == models.names()
    with pytest.raises(UserError, match="did you mean 'slot_attention'"):
        interop.get("slot_atention")


@pytest.mark.parametrize(
    ("name", "left_out"),  # constants that are in the state_dict, but not in the golden file
    [
        (
            "slot_attention",
            {
                "encoder_pos_embedding.grid": [1, 128, 128, 4],
                "decoder_pos_embedding.grid": [1, 8, 8, 4],
            },
        ),
        ("slate", {}),
    ],
)
def test_default_model_has_the_published_layout(name, left_out):
    model = interop.create(json.loads(models.get(name).default_config().to_json()))
    found = [(key, list(tensor.shape)) for key, tensor in model.state_dict().items()]
    assert {key: shape for key, shape in found if key in left_out} == left_out
    entries = published.load_json("layouts.json")[name]
    there = [(key, shape) for key, shape in found if key not in left_out]
    assert there == [(key, shape) for key, shape, _, _ in entries]


@pytest.mark.parametrize("name", interop.names())
def test_arguments_are_those_of_the_config(name):
    arguments = set(inspect.signature(interop.get(name)).parameters)
    assert arguments == set(models.get(name).default_config().keys()) - {"name"}


def test_models_import_without_jax():
    code = "import sys; sys.modules.update(dict.fromkeys(('jax', 'flax', 'numpy', 'einops')));"
    code += "from objdisc_jax import interop;"
    code += f"[interop.get(name) for name in {interop.names()}]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_prediction_loss_and_gradients_equal_jax(case):
    graphdef, params, model = case
    image, noise, torch_image, torch_noise = variants.inputs(graphdef, params)

    @jax.jit
    def compute(params, image, noise):
        def loss(params):
            model = base.merge(graphdef, params)
            values, scalars = model.loss(image, noise, step=jnp.int32(STEP))
            return jnp.mean(values), (values, scalars)

        prediction = base.merge(graphdef, params).predict(image, noise, step=jnp.int32(STEP))
        return prediction, *jax.grad(loss, has_aux=True)(params)

    ours, gradient, (losses, scalars) = jax.device_get(compute(params, image, noise))
    with torch.no_grad():
        theirs = model(torch_image, torch_noise)
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


def test_noise_has_the_shapes_and_range_of_jax(case):
    graphdef, params, model = case
    _, _, _, expected = variants.inputs(graphdef, params, batch=200)
    drawn = model.noise(200, torch.Generator().manual_seed(0))
    assert drawn.keys() == expected.keys()
    for name, value in drawn.items():
        assert value.shape == expected[name].shape
        if not value.is_floating_point():
            assert value.min() == expected[name].min()
            assert value.max() == expected[name].max()


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("slot_attention", "small"),
        ("slot_attention", "like_the_demo"),
        ("slate", "small"),
        ("gnm", "small"),
    ],
)
def test_fresh_parameters_are_drawn_as_in_jax(name, variant):
    block = variants.settings(name, variant)
    rest = dict(block)
    name = rest.pop("name")
    params = jax.jit(lambda: base.split(models.create(name, rest, rngs=nnx.Rngs(0)))[1])()
    torch.manual_seed(0)
    model = interop.create(block)
    ours = mapping.to_torch(params, model)
    for key, tensor in model.state_dict().items():
        if tensor.dtype == torch.bool:
            continue
        if tensor.numel() >= 100:
            assert ours[key].std().item() == pytest.approx(tensor.std().item(), rel=0.2), key
        elif tensor.numel() > 1:
            assert (ours[key].std() > 0) == (tensor.std() > 0), key


def test_bfloat16_computes_nearly_the_same(case):
    graphdef, params, model = case
    _, _, image, noise = variants.inputs(graphdef, params)
    exact, _ = model.loss(image, noise)
    rounded_model = copy.deepcopy(model)
    rounded_model.dtype = torch.bfloat16
    rounded_model.zero_grad()
    rounded, _ = rounded_model.loss(image, noise)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0)
    rounded.mean().backward()
    for key, parameter in rounded_model.named_parameters():
        if key.startswith("slot_attention.project"):  # once cast without gradient, once with
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 0


def test_round_trip_is_bit_identical(case):
    _, params, model = case
    state = mapping.to_torch(params, model)
    back = mapping.to_jax(state, model, params)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)
    again = mapping.to_torch(back, model)
    assert list(again) == list(model.state_dict())
    assert all(torch.equal(again[key], tensor) for key, tensor in state.items())
