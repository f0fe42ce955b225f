"""What every model must do; a model joins by its file being in objdisc_jax/models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from objdisc_jax import models
from objdisc_jax.models import base
from objdisc_jax.names import flatten

BATCH = 4
# A small variant of every model, so that the suite stays quick. A model without an entry is tested
# at its default size.
SMALL = {
    "slot_attention": {
        "resolution": (16, 16),
        "num_slots": 3,
        "slot_size": 8,
        "mlp_hidden_size": 8,
        "encoder_channels": (8, 8),
        "encoder_kernels": (5, 3),
        "encoder_strides": (1, 1),
        "decoder_channels": (8, 8),
        "decoder_strides": (2, 2),
        "decoder_grid": (4, 4),
    },
    "slate": {
        "resolution": (16, 16),
        "num_slots": 3,
        "slot_size": 8,
        "mlp_hidden_size": 8,
        "vocab_size": 16,
        "dvae_features": 8,
        "d_model": 16,
        "num_heads": 2,
        "num_decoder_blocks": 2,
    },
    "gnm": {
        "resolution": (16, 16),
        "grid": (2, 2),
        "encoder_channels": (8, 8),
        "encoder_kernels": (4, 4),
        "encoder_strides": (4, 2),
        "draw_steps": 2,
        "global_size": 4,
        "global_hidden": (8,),
        "global_decoder_hidden": (8,),
        "local_channels": (8,),
        "what_size": 4,
        "glimpse_channels": (8,),
        "glimpse_upscales": (2, 4),
        "background_size": 3,
        "background_hidden": (8,),
        "background_prior_hidden": (8,),
        "background_channels": (8,),
        "background_kernels": (1, 3),
        "background_upscales": (4, 4),
    },
}


@pytest.fixture(params=models.names())
def name(request):
    return request.param


@pytest.fixture
def settings(name):
    block = models.get(name).default_config().to_dict()
    del block["name"]
    return block | SMALL.get(name, {})


@pytest.fixture
def model(name, settings):
    return models.create(name, settings, rngs=nnx.Rngs(0))


@pytest.fixture
def image(model):
    low, high = model.input_range
    shape = (BATCH, *model.resolution, 3)
    return jax.random.uniform(jax.random.key(1), shape, minval=low, maxval=high)


def test_default_config_names_the_model_and_its_arguments(name):
    config = models.get(name).default_config()
    assert config.name == name
    arguments = config.to_dict()
    del arguments["name"]
    graph = nnx.eval_shape(lambda: models.create(name, arguments, rngs=nnx.Rngs(0)))
    assert isinstance(graph, base.Model)


def test_unknown_argument_is_refused(name, settings):
    with pytest.raises(TypeError, match="surprise"):
        models.create(name, settings | {"surprise": 1}, rngs=nnx.Rngs(0))


def test_modules_hold_float32_parameters_only(model):
    _, state = nnx.split(model)
    for _, variable in nnx.to_flat_state(state):
        assert isinstance(variable, nnx.Param)
        assert variable[...].dtype == jnp.float32


def test_split_and_merge_round_trip(model, image):
    graphdef, params = base.split(model)
    noise = model.noise(jax.random.key(0), BATCH)
    expected = model.predict(image, noise, step=jnp.int32(0)).recon
    merged = base.merge(graphdef, params)
    found = merged.predict(image, noise, step=jnp.int32(0)).recon
    np.testing.assert_array_equal(found, expected)


def test_noise_is_batched_and_depends_on_key_alone(model):
    first, again, other = (model.noise(jax.random.key(k), BATCH) for k in (0, 0, 1))
    assert all(leaf.shape[0] == BATCH for leaf in jax.tree.leaves(first))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    if jax.tree.leaves(first):
        assert any(
            not np.array_equal(a, b)
            for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
        )


def test_per_example_noise_does_not_depend_on_the_batch(model):
    index = jnp.array([5, 2, 9])
    together = base.per_example_noise(model, jax.random.key(3), index)
    alone = base.per_example_noise(model, jax.random.key(3), index[1:2])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1:2], b), together, alone)


def test_expanded_noise_gives_the_same_loss(model, image):
    noise = model.noise(jax.random.key(0), BATCH)
    expanded = model.expand_noise(noise)
    assert all(leaf.shape[0] == BATCH for leaf in jax.tree.leaves(expanded))
    found = model.loss(image, expanded, step=jnp.int32(3))[0]
    np.testing.assert_allclose(found, model.loss(image, noise, step=jnp.int32(3))[0], rtol=1e-6)


def test_optimizer_groups_are_parts_of_the_parameters(model):
    _, params = base.split(model)
    names = [name for group in model.optimizer_groups.values() for name in group]
    assert len(set(names)) == len(names)
    paths = flatten(params)
    for name in names:
        assert any(path.startswith(f"{name}.") for path in paths)


def test_slow_scores_are_per_example(model, image):
    noise = model.noise(jax.random.key(0), BATCH)
    prediction = model.predict(image, noise, step=jnp.int32(0))
    for value in model.expensive_metrics(image, prediction).values():
        assert value.shape == (BATCH,)
        assert np.isfinite(value).all()


def test_loss_is_per_example_finite_and_differentiable(model, image):
    graphdef, params = base.split(model)
    noise = model.noise(jax.random.key(0), BATCH)

    @jax.jit
    def loss(params, image, noise):
        return base.merge(graphdef, params).loss(image, noise, step=jnp.int32(3))

    value, scalars = loss(params, image, noise)
    for array in (value, *scalars.values()):
        assert array.shape == (BATCH,)
        assert np.isfinite(array).all()
    # An example's loss does not depend on the others.
    flipped = jax.tree.map(lambda x: x[::-1], (image, noise))
    np.testing.assert_allclose(loss(params, *flipped)[0][::-1], value, rtol=1e-4)
    grads = jax.grad(lambda p: loss(p, image, noise)[0].mean())(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(grads))


def test_bfloat16_gives_finite_float32_losses_and_gradients(name, settings, model, image):
    exact, params = base.split(model)
    half = settings | {"dtype": "bfloat16"}
    rounded, _ = base.split(nnx.eval_shape(lambda: models.create(name, half, rngs=nnx.Rngs(0))))
    noise = model.noise(jax.random.key(0), BATCH)

    def compute(params, graphdef):
        value, scalars = base.merge(graphdef, params).loss(image, noise, step=jnp.int32(3))
        return value.mean(), (value, scalars)

    gradient = jax.jit(jax.grad(lambda params: compute(params, rounded), has_aux=True))
    grads, (value, scalars) = gradient(params)
    for array in (value, *scalars.values(), *jax.tree.leaves(grads)):
        assert array.dtype == jnp.float32
        assert np.isfinite(array).all()
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(grads))
    # It is computed in bfloat16 indeed, and says about the same.
    expected = jax.jit(lambda params: compute(params, exact)[1][0])(params)
    assert (value != expected).any()
    np.testing.assert_allclose(value, expected, rtol=0.05)


def test_prediction_has_the_promised_shapes(model, image):
    noise = model.noise(jax.random.key(0), BATCH)
    prediction = model.predict(image, noise, step=jnp.int32(0))
    height, width = model.resolution
    assert prediction.recon.shape == (BATCH, height, width, 3)
    num_masks = prediction.masks.shape[1]
    assert prediction.masks.shape == (BATCH, num_masks, height, width)
    np.testing.assert_allclose(prediction.masks.sum(1), 1.0, atol=1e-5)
    assert (prediction.masks >= 0).all()
    assert prediction.slots.ndim == 3
    assert prediction.background is None or 0 <= prediction.background < num_masks


def test_panels_are_pictures(model, image):
    noise = model.noise(jax.random.key(0), BATCH)
    for row in model.panels(image, noise, step=jnp.int32(0)).values():
        assert row.shape[0] == BATCH
        assert row.ndim in (3, 4, 5)
        if row.ndim > 3:
            assert row.shape[-1] == 3
            assert (row >= 0).all()
            assert (row <= 1).all()


def test_unknown_model_lists_the_known():
    with pytest.raises(ValueError, match=r"'slot_atention' \(did you mean 'slot_attention'"):
        models.get("slot_atention")
