"""Published SLATE weights give the published numbers: in PyTorch, and in JAX after `from-torch`."""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from objdisc_jax import config as configs
from objdisc_jax import convert, interop, sharding
from objdisc_jax.models import base
from objdisc_jax.models.base import Batch
from objdisc_jax.training import run_dir
from tests.golden import published
from tests.models.slate.test_parity import inputs


def experiment(golden, **more):
    """The config of a golden file's model."""
    settings = json.loads(str(golden["config"]))["model"]
    config = configs.experiment(model="slate", data="clevr_with_masks")
    blocks = settings.pop("num_dec_blocks")
    config.model.update(num_decoder_blocks=blocks, temperature=(0.5, 0.5), **settings, **more)
    return config


def published_model(config):
    model = interop.create(configs.to_dict(config)["model"])
    for key, parameter in model.named_parameters():
        parameter.data = torch.from_numpy(published.recipe(key, tuple(parameter.shape)))
    return model.eval()


def as_torch(image, noise):
    image, noise = jax.tree.map(lambda x: torch.from_numpy(np.array(x)), (image, noise))
    return image.movedim(-1, 1), noise


@pytest.mark.parametrize(
    ("file", "group", "batch"),
    [
        ("slate.npz", "a", 2),
        ("slate.npz", "b", 2),
        ("slate.npz", "c", 2),
        ("slate_full.npz", "a", 1),
    ],
)
def test_torch_module_gives_the_published_numbers(file, group, batch):
    golden = published.load_npz(file)
    model = published_model(experiment(golden, hard=bool(golden[f"{group}/hard"])))
    image, noise = as_torch(*inputs(golden, group, batch))
    loss, scalars = model.loss(image, noise)
    for value, name in (
        (loss, "loss"),
        (scalars["recon_loss"], "mse"),
        (scalars["cross_entropy"], "cross_entropy"),
    ):
        np.testing.assert_allclose(value.mean().item(), golden[f"{group}/{name}"], rtol=1e-5)
    loss.mean().backward()
    norms = dict(zip(golden[f"{group}/grad_keys"], golden[f"{group}/grad_norms"], strict=True))
    for key, parameter in model.named_parameters():
        norm = 0.0 if parameter.grad is None else parameter.grad.double().norm().item()
        if key.endswith("norm_slots.bias"):  # zero but for rounding: it cancels in the softmax
            assert norm < 1e-4
        else:
            np.testing.assert_allclose(norm, norms[key], rtol=1e-3, err_msg=key)


def test_torch_module_generates_the_published_tokens():
    golden = published.load_npz("slate.npz")
    model = published_model(experiment(golden))
    with torch.no_grad():
        prediction = model(*as_torch(*inputs(golden, "a", 2)))
    np.testing.assert_array_equal(prediction.extras["tokens"], golden["a/tokens"])
    np.testing.assert_allclose(prediction.slots, golden["a/slots"], atol=1e-5)
    tokens = model.generate(prediction.slots)
    np.testing.assert_array_equal(tokens, golden["ar/tokens"])
    image = model.decode_image(tokens)[..., ::4, ::4].detach()
    np.testing.assert_allclose(image, golden["ar/image"], atol=1e-5)


def test_published_checkpoint_gives_the_published_numbers_here(tmp_path):
    golden = published.load_npz("slate.npz")
    config = experiment(golden)
    model = published_model(config)
    settings = model.hyper_parameters()
    content = {
        "state_dict": {f"model.{key}": tensor for key, tensor in model.state_dict().items()},
        "hyper_parameters": argparse.Namespace(**settings),
    }
    torch.save(content, tmp_path / "published.ckpt")
    convert.from_torch(tmp_path / "published.ckpt", config, tmp_path / "run")
    trained = run_dir.load_trained(tmp_path / "run", sharding.replicated(sharding.data_mesh()))
    image, noise = inputs(golden, "a", 2)

    @jax.jit
    def predict(params):
        batch = Batch({"image": image})
        return base.merge(trained.graphdef, params).predict(batch, noise, step=jnp.int32(0))

    prediction = jax.device_get(predict(trained.params))
    np.testing.assert_array_equal(prediction.extras["tokens"], golden["a/tokens"])
    np.testing.assert_allclose(prediction.slots, golden["a/slots"], atol=1e-5)
    convert.to_torch(tmp_path / "run", tmp_path / "again.pt")
    again = torch.load(tmp_path / "again.pt")
    for key, tensor in model.state_dict().items():
        assert torch.equal(again[key], tensor), key
