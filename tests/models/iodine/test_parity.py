"""IODINE computes what the official TensorFlow code computes (golden/README.md)."""

import json
import zlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from objdisc_jax import interop
from objdisc_jax.config import experiment
from objdisc_jax.interop import mapping
from objdisc_jax.models import base
from objdisc_jax.models.base import Batch
from objdisc_jax.models.iodine.likelihood import Mixture
from objdisc_jax.models.iodine.posterior import kl, sample
from objdisc_jax.models.iodine.settings import Settings
from objdisc_jax.testing.models import ModelCase
from objdisc_jax.training import optimizers
from tests.golden import published

GROUPS = ("clevr", "tetro", "dsprites", "normal", "batch")
SAME_NAMES = (
    "likelihood",
    "sigma",
    "gradient_scale",
    "coordinates",
    "resolution",
    "num_slots",
    "num_iterations",
    "decoder_channels",
    "decoder_kernel",
    "encoder_channels",
    "encoder_kernel",
    "mlp_sizes",
    "lstm_size",
)


def load(file, group):
    """A group of golden numbers, and the model with weights by the recipe, image and noise."""
    golden = {
        key.removeprefix(group): value
        for key, value in published.load_npz(file).items()
        if key.startswith(group)
    }
    config = json.loads(str(golden["config"]))
    names = {name: config[name] for name in SAME_NAMES}
    num_cosines = config["num_frequencies"]
    settings = Settings(slot_size=config["latent_size"], num_cosines=num_cosines, **names)
    there = interop.get("iodine")(settings)
    for key, parameter in there.named_parameters():
        value = published.recipe(key, tuple(parameter.shape))
        if key.startswith("decoder") and value.ndim == 4:
            value = value * np.float32(config["gain"])
        parameter.data = torch.from_numpy(np.array(value))
    graphdef, like = base.split(nnx.eval_shape(ModelCase("iodine", settings).build))
    params = mapping.to_jax(there.state_dict(), there, like)
    (height, width), batch = settings.resolution, config["batch"]
    sides = (8 * -(-side // 8) for side in settings.resolution)
    image = published.make_image(config["image_seed"], batch, *sides, 0.0, 1.0)
    image = image[:, :height, :width]
    as_stored = np.ascontiguousarray(image.transpose(0, 3, 1, 2))
    assert zlib.crc32(as_stored.tobytes()) == config["image_crc32"]
    shape = (settings.num_iterations + 1, batch, settings.num_slots, settings.slot_size)
    noise = published.make_noise(config["noise_seed"], shape)
    return SimpleNamespace(
        golden=golden,
        settings=settings,
        there=there,
        graphdef=graphdef,
        params=params,
        image=image,
        noise={"latents": jnp.moveaxis(noise, 0, 1)},
    )


@pytest.fixture(scope="module", params=GROUPS)
def case(request):
    return load("iodine.npz", f"{request.param}/")


def losses(case, params, noise):
    """Losses, their parts and the gradient of their mean."""

    @jax.jit
    def compute(params, noise):
        def loss(params):
            batch = Batch({"image": case.image})
            values, scalars = base.merge(case.graphdef, params).loss(
                batch, noise, step=jnp.int32(0)
            )
            return jnp.mean(values), (values, scalars)

        return jax.grad(loss, has_aux=True)(params)

    gradient, (values, scalars) = jax.device_get(compute(params, noise))
    return values, scalars, gradient


def iterations(case):
    """Posteriors and likelihoods, and of every draw the masks, recon and refinement inputs."""

    @jax.jit
    def compute(params):
        model = base.merge(case.graphdef, params)
        pixels = model.pixels(case.image, {})
        draws = jnp.moveaxis(case.noise["latents"], 1, 0)
        refined = model.refine(case.image, {"latents": draws[:-1]})

        def explain(posterior, noise):
            decoded = model.decode(sample(posterior, noise))
            mixture = Mixture(decoded, case.image, case.settings)
            scale = case.settings.gradient_scale
            gradient = jax.tree.map(lambda x: scale * x, mixture.nll_gradient())
            maps = model.refinement.spatial_inputs(pixels, mixture, gradient)
            return mixture.masks, mixture.recon, maps

        masks, recon, maps = jax.lax.map(lambda x: explain(*x), (refined.posteriors, draws))
        return refined, kl(refined.posteriors), masks, recon, maps

    return jax.device_get(compute(case.params))


def close(ours, theirs, atol):
    np.testing.assert_allclose(np.asarray(ours), theirs, atol=atol, rtol=0)


def check_iterations(case, input_stride=8):
    golden = case.golden
    refined, divergence, masks, recon, maps = iterations(case)
    np.testing.assert_allclose(refined.nlls, golden["nll"][:-1], rtol=1e-5)
    close(refined.posteriors, golden["zp"], 1e-4)
    close(divergence, golden["kl"], 1e-4)
    if "recon_s8" not in golden:
        return  # the groups of other batch sizes have no images
    close(masks[..., ::8, ::8], golden["masks_s8"], 2e-5)
    close(recon[:, :, ::8, ::8], golden["recon_s8"], 1e-4)
    given = {key.split("/")[1] for key in golden if key.startswith("inputs")}
    assert set(maps) == given | {"capacity", "image"}
    for name, part in maps.items():
        part = part[:-1, ..., ::input_stride, ::input_stride, :]
        if name == "image":
            expected = case.image[None, :, None, ::input_stride, ::input_stride]
        else:
            key = next((key for key in golden if key.endswith(f"/{name}") and "inputs" in key), "")
            expected = golden[key] if key else 0.5
        close(*np.broadcast_arrays(part, expected), 5e-3)


def check_loss_and_gradients(case):
    golden = case.golden
    values, scalars, gradient = losses(case, case.params, case.noise)
    np.testing.assert_allclose(values, golden["loss_per_example"], rtol=1e-5)
    np.testing.assert_allclose(scalars["rec_loss"], -golden["nll"][-1], rtol=1e-5)
    close(scalars["kl"], golden["kl"][-1].sum(-1), 1e-4 * case.settings.num_slots)
    np.testing.assert_allclose(scalars["elbo"], scalars["rec_loss"] - scalars["kl"], rtol=1e-5)
    found = mapping.to_torch(gradient, case.there)
    check_gradients(golden, {key: tensor.double().numpy() for key, tensor in found.items()})


def check_gradients(golden, found):
    """Every gradient has the official norm and projection, and where stored the same values."""
    assert found.keys() == set(golden["grad_keys"])
    by_key = zip(golden["grad_keys"], golden["grad_norms"], golden["grad_projs"], strict=True)
    for key, norm, expected in by_key:
        ours = found[key]
        np.testing.assert_allclose(np.linalg.norm(ours), norm, rtol=1e-3, err_msg=key)
        direction = np.random.default_rng(zlib.crc32(b"proj:" + key.encode()))
        projection = np.vdot(direction.standard_normal(ours.shape), ours)
        assert abs(projection - expected) < 1e-3 * norm * np.sqrt(ours.size), key
        if f"grad/{key}" in golden:
            close(ours, golden[f"grad/{key}"], 1e-3 * norm)


def test_posteriors_masks_and_inputs_of_every_iteration_match_official(case):
    check_iterations(case)


def test_loss_and_every_gradient_match_official(case):
    check_loss_and_gradients(case)


def test_torch_module_gives_the_official_numbers(case):
    golden = case.golden
    image = torch.from_numpy(np.array(case.image)).movedim(-1, 1)
    noise = {"latents": torch.from_numpy(np.array(case.noise["latents"]))}
    case.there.zero_grad()
    loss, _ = case.there.loss(image, noise)
    np.testing.assert_allclose(loss.detach(), golden["loss_per_example"], rtol=1e-5)
    loss.mean().backward()
    parameters = dict(case.there.named_parameters())
    check_gradients(golden, {key: p.grad.double().numpy() for key, p in parameters.items()})
    with torch.no_grad():
        prediction = case.there(image, noise)
    close(prediction.slots, golden["zp"][-1][..., : case.settings.slot_size], 1e-4)


@pytest.mark.slow
def test_published_clevr6_model_matches():
    case = load("iodine_full.npz", "")
    assert case.settings == Settings(gradient_scale=1.0)
    assert sum(p.numel() for p in case.there.parameters()) == 1_177_168
    check_iterations(case, input_stride=16)
    check_loss_and_gradients(case)


def test_updates_of_the_recommended_optimizer_match_official():
    golden = {
        key.removeprefix("trace/"): value
        for key, value in published.load_npz("iodine.npz").items()
        if key.startswith("trace/")
    }
    trace = json.loads(str(golden["config"]))
    case = load("iodine.npz", "tetro/")
    config = experiment(model="iodine", data="tetrominoes")
    config.optimizer.learning_rate = trace["learning_rate"]
    transform = optimizers.optimizer(config)
    params, state = case.params, transform.init(case.params)
    shape = case.noise["latents"].swapaxes(0, 1).shape
    found = {"loss": [], "grad_norm": [], "nll_last": [], "kl_last": []}

    @jax.jit
    def update(params, state, noise, step):
        def loss(params):
            batch = Batch({"image": case.image})
            model = base.merge(case.graphdef, params)
            values, scalars = model.loss(batch, noise, step=step)
            return values.mean(), jax.tree.map(jnp.mean, scalars)

        (value, scalars), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = transform.update(gradient, state, params, step=step, scale=1.0)
        new = jax.tree.map(jnp.add, params, updates)
        return new, state, value, scalars, optimizers.global_norm(gradient)

    for n in range(trace["steps"]):
        noise = {"latents": jnp.moveaxis(published.make_noise(1000 + n, shape), 0, 1)}
        params, state, value, scalars, norm = update(params, state, noise, jnp.int32(n))
        found["loss"].append(value)
        found["grad_norm"].append(norm)
        found["nll_last"].append(-scalars["rec_loss"])
        found["kl_last"].append(scalars["kl"])
    for name, values in found.items():
        np.testing.assert_allclose(values, golden[name], rtol=1e-4, err_msg=name)
    moved = mapping.to_torch(jax.tree.map(jnp.subtract, params, case.params), case.there)
    keys = published.load_npz("iodine.npz")["tetro/grad_keys"]
    found = [moved[key].norm() for key in keys]
    np.testing.assert_allclose(found, golden["update_norms"], rtol=1e-3)


def test_a_tenth_of_the_learning_rate_is_left_after_a_million_steps():
    rate = optimizers.learning_rates(experiment(model="iodine", data="tetrominoes"))["rest"]
    steps = jnp.array([0, 500_000, 1_000_000])
    np.testing.assert_allclose([rate(s) for s in steps], [1e-3, 1e-3 * 0.1**0.5, 1e-4], rtol=1e-5)
