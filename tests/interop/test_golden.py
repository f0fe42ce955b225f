"""Published weights give the published numbers: in PyTorch, and in JAX after `from-torch`."""

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


def experiment(golden):
    """The config of a golden file's model, and that file's settings."""
    found = json.loads(str(golden["config"]))
    settings = found["model"]
    config = configs.experiment(model="slot_attention", data="clevr_with_masks")
    config.model.update(
        resolution=tuple(settings["resolution"]),
        num_slots=settings["num_slots"],
        num_iterations=settings["num_iterations"],
        slot_size=settings["slot_size"],
        mlp_hidden_size=settings["mlp_hidden_size"],
        encoder_channels=tuple(settings["hidden_dims"]),
        decoder_channels=(settings["hidden_dims"][0],) * 5,
        decoder_grid=tuple(settings["decoder_resolution"]),
    )
    return config, found


def published_model(config, gain=1.0):
    model = interop.create(configs.to_dict(config)["model"])
    for key, parameter in model.named_parameters():
        value = published.recipe(key, tuple(parameter.shape))
        value = value * np.float32(gain) if value.ndim >= 2 else value
        parameter.data = torch.from_numpy(np.asarray(value))
    return model


def inputs(found, batch):
    settings = found["model"]
    image = published.make_image(found["img_seed"], batch, *settings["resolution"], -1.0, 1.0)
    shape = (batch, settings["num_slots"], settings["slot_size"])
    return image, published.make_noise(found["noise_seed"], shape)


@pytest.mark.parametrize(
    ("file", "prefix", "batch", "tolerances"),
    [
        ("slot_attention.npz", "", 2, (1e-5, 2e-6, 1e-5)),
        ("slot_attention.npz", "gain2/", 2, (1e-3, 6e-5, 1e-4)),
        ("slot_attention_full.npz", "", 1, (1e-5, 2e-6, 1e-5)),
    ],
)
def test_torch_module_gives_the_published_numbers(file, prefix, batch, tolerances):
    golden = published.load_npz(file)
    config, found = experiment(golden)
    model = published_model(config, gain=2.0 if prefix else 1.0)
    image, noise = inputs(found, batch)
    image = torch.from_numpy(np.array(image)).movedim(-1, 1)
    noise = {"slots": torch.from_numpy(np.array(noise))}
    with torch.no_grad():
        prediction = model(image, noise)
    masks = "masks_s4" if file == "slot_attention_full.npz" else "masks"
    for value, name, atol in zip(
        (prediction.recon[..., ::4, ::4], prediction.masks[:, :, None, ::4, ::4], prediction.slots),
        ("recon_combined", masks, "slots"),
        tolerances,
        strict=True,
    ):
        np.testing.assert_allclose(value, golden[prefix + name], atol=atol, err_msg=name)
    loss = model.loss(image, noise)[0].mean()
    np.testing.assert_allclose(loss.item(), golden[prefix + "mse"], rtol=1e-4)
    loss.backward()
    norms = dict(zip(golden[prefix + "grad_keys"], golden[prefix + "grad_norms"], strict=True))
    for key, parameter in model.named_parameters():
        norm = 0.0 if parameter.grad is None else parameter.grad.double().norm().item()
        if key.endswith("norm_slots.bias"):  # zero but for rounding: it cancels in the softmax
            assert norm < 1e-5
        else:
            np.testing.assert_allclose(norm, norms[key], rtol=1e-3, err_msg=key)


def test_published_checkpoint_gives_the_published_numbers_here(tmp_path):
    golden = published.load_npz("slot_attention.npz")
    config, found = experiment(golden)
    state = published_model(config).state_dict()
    settings = {key: found["model"][key] for key in ("num_slots", "num_iterations", "slot_size")}
    content = {
        "state_dict": {f"model.{key}": tensor for key, tensor in state.items()},
        "hyper_parameters": argparse.Namespace(model_type="sa", **settings),
    }
    torch.save(content, tmp_path / "published.ckpt")
    convert.from_torch(tmp_path / "published.ckpt", config, tmp_path / "run")
    trained = run_dir.load_trained(tmp_path / "run", sharding.replicated(sharding.data_mesh()))
    image, noise = inputs(found, 2)

    @jax.jit
    def predict(params):
        model = base.merge(trained.graphdef, params)
        batch = Batch({"image": image})
        return model.predict(batch, {"slots": jnp.asarray(noise)}, step=jnp.int32(0))

    prediction = jax.device_get(predict(trained.params))
    recon = prediction.recon[:, ::4, ::4].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(recon, golden["recon_combined"], atol=1e-5)
    masks = prediction.masks[:, :, None, ::4, ::4]
    np.testing.assert_allclose(masks, golden["masks"], atol=2e-6)
    np.testing.assert_allclose(prediction.slots, golden["slots"], atol=1e-5)
