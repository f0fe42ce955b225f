"""The training step: preprocessing, accumulation, devices."""

import re
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objdisc_jax import models, sharding
from objdisc_jax.errors import ConfigError
from objdisc_jax.models import base
from objdisc_jax.preprocessing import prepare_images, resize_labels
from objdisc_jax.training.run_dir import build_model
from objdisc_jax.training.step import initial_state, make_train_step
from tests.conftest import small_config
from tests.training.test_train import changed


def take_steps(config, mesh, steps=3):
    # A large epsilon: Adam's usual one turns rounding noise in tiny gradients into full steps.
    config = changed(config, **{"optimizer.kwargs.eps": 1e-2})
    graphdef, params = base.split(build_model(config))
    state = sharding.put_replicated(initial_state(config, params), mesh)
    step = make_train_step(config, graphdef)
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(steps):
        image = rng.integers(0, 256, (8, *config.model.resolution, 3), dtype=np.uint8)
        state, scalars = step(state, sharding.put_batch({"image": image}, mesh), {})
        losses.append(float(scalars["loss"]))
    return losses, jax.device_get(state)


def lattice_config(model):
    """A small model that is compared with the image at every third row and column."""
    return changed(small_config(model), **{"model.decoder": "mlp", "model.pixel_stride": 3})


@pytest.mark.parametrize("make", [lattice_config, small_config], ids=["pixels", "convolutions"])
@pytest.mark.parametrize("devices", [2, 4])
def test_any_number_of_devices_makes_the_same_updates(devices, make):
    if jax.device_count() < devices:
        pytest.skip(f"needs {devices} devices")
    config = make("slot_attention")
    one, state_of_one = take_steps(config, sharding.data_mesh(jax.devices()[:1]))
    many, state_of_many = take_steps(config, sharding.data_mesh(jax.devices()[:devices]))
    np.testing.assert_allclose(many, one, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(state_of_many), jax.tree.leaves(state_of_one), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.fixture(scope="module", params=["slot_attention", "iodine"])
def programs(request):
    """What XLA makes of a model's training step on all devices: by convolutions, by pixels."""
    if jax.device_count() < 2:
        pytest.skip("needs 2 devices")
    mesh, found = sharding.data_mesh(), []
    for config in (small_config(request.param), lattice_config(request.param)):
        graphdef, params = base.split(build_model(config))
        state = sharding.put_replicated(initial_state(config, params), mesh)
        image = np.zeros((8, *config.model.resolution, 3), np.uint8)
        batch = sharding.put_batch({"image": image}, mesh)
        step = make_train_step(config, graphdef)
        found.append(step.lower(state, batch, {}).compile().as_text())
    return found


def test_devices_exchange_sums_alone(programs):
    """Each picks the pixels of its own images."""
    exchanges = (
        r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
    )
    for program in programs:
        assert set(re.findall(exchanges, program)) == {"all-reduce"}


def test_convolutions_have_their_axes_in_the_order_that_eigen_has_them(programs):
    """Where they have not, XLA for CPUs has a routine that is a hundred times as slow."""
    if jax.default_backend() != "cpu":
        pytest.skip("is of CPUs")
    layouts = [re.findall(r" convolution\(.*dim_labels=([\w>-]+)", program) for program in programs]
    assert len(layouts[0]) > 3
    assert {layout for found in layouts for layout in found} == {"b01f_01io->b01f"}


def test_gradient_accumulation_makes_the_same_updates(tiny):
    mesh = sharding.data_mesh(jax.devices()[:2])
    whole, state = take_steps(tiny, mesh)
    parts, state_of_parts = take_steps(changed(tiny, num_microbatches=4), mesh)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(state_of_parts), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_seed_changes_initialisation_and_noise(tiny):
    mesh = sharding.data_mesh(jax.devices()[:1])
    losses = [take_steps(changed(tiny, seed=seed), mesh)[0] for seed in (0, 0, 1)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_images_are_scaled_to_the_input_range_and_resized_without_antialiasing():
    image = jnp.zeros((1, 4, 4, 3), jnp.uint8).at[:, ::2].set(255)
    unit = prepare_images(image, (4, 4), (0.0, 1.0))
    np.testing.assert_array_equal(unit, image / 255)
    signed = prepare_images(image, (4, 4), (-1.0, 1.0))
    np.testing.assert_array_equal(signed, image / 255 * 2 - 1)
    # Half-pixel centres: output row 0 of 2 sits between input rows 0 and 1.
    half = prepare_images(image, (2, 2), (0.0, 1.0))
    np.testing.assert_allclose(half, 0.5, atol=1e-6)


def test_labels_are_resized_to_the_nearest_pixel_centre():
    labels = np.arange(36, dtype=np.uint8).reshape(1, 6, 6)
    small = resize_labels(jnp.asarray(labels), (2, 2))
    np.testing.assert_array_equal(small[0], labels[0][1::3, 1::3])


@pytest.mark.parametrize(
    ("batch_size", "parts", "message"),
    [
        (6, 1, r"batch_size: got 6, .* 4 device.* multiple of 4, for example 4 or 8"),
        (12, 2, r"multiple of 8, for example 8 or 16"),
        (0, 1, r"multiple of 4, for example 4"),
        (8, 0, r"num_microbatches: got 0"),
    ],
)
def test_batches_that_cannot_be_divided_are_refused(batch_size, parts, message):
    if jax.device_count() < 4:
        pytest.skip("needs 4 devices")
    with pytest.raises(ConfigError, match=message):
        sharding.check_batch_size(batch_size, parts, sharding.data_mesh(jax.devices()[:4]))


def test_every_microbatch_has_a_dropout_mask_of_its_own():
    config = small_config("slate")
    config.model.dropout = 0.5
    config.batch_size = 4
    config.num_microbatches = 4
    graphdef, params = base.split(build_model(config))
    image = np.full((4, 16, 16, 3), 100, np.uint8)

    def loss_of(model, batch, noise, *, step, dropout_key):
        drawn = jax.random.uniform(dropout_key, ())
        return jnp.full(len(batch), drawn), {"squared": jnp.full(len(batch), drawn**2)}

    with mock.patch.object(models.model_class("slate"), "loss", loss_of):
        step = make_train_step(config, graphdef)
        _, scalars = step(initial_state(config, params), {"image": image}, {})
    # The mean of the squares is the square of the mean only where all are equal.
    assert scalars["squared"] > scalars["loss"] ** 2 + 1e-3
