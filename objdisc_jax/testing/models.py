"""The contract of a model, checked on the small one of its `Settings.small()`."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from objdisc_jax import models
from objdisc_jax.config import experiment, from_dict, model_block, to_dict
from objdisc_jax.errors import ConfigError
from objdisc_jax.models.base import (
    Batch,
    Model,
    Noise,
    Params,
    merge,
    partition,
    per_example_noise,
    split,
)
from objdisc_jax.settings import Settings

BATCH = 4
STEP = jnp.int32(3)


@dataclasses.dataclass(frozen=True)
class ModelCase:
    """A model with settings, and examples to give it."""

    name: str  # of the model
    settings: Settings  # that it is built from
    # Four examples of each field that it names beside "image".
    fields: Mapping[str, ArrayLike] = dataclasses.field(default_factory=dict)

    @classmethod
    def small(cls, name: str, **changes: Any) -> "ModelCase":
        """The case of a model's small settings, some of them changed."""
        return cls(name, dataclasses.replace(models.settings_class(name).small(), **changes))

    def build(self, **changes: Any) -> Model:
        """The model, with some settings changed."""
        settings = dataclasses.replace(self.settings, **changes)
        return models.model_class(self.name)(settings, rngs=nnx.Rngs(0))

    @cached_property
    def model(self) -> Model:
        """The model."""
        return self.build()

    @cached_property
    def batch(self) -> Batch:
        """What it is given: images of noise, and the further fields."""
        low, high = self.model.input_range
        image = jax.random.uniform(
            jax.random.key(1), (BATCH, *self.model.resolution, 3), minval=low, maxval=high
        )
        missing = set(self.model.fields) - {"image", *self.fields}
        assert not missing, f"the model names {missing}: give four examples in `fields`"
        given = {"image": image, **{name: jnp.asarray(x) for name, x in self.fields.items()}}
        return Batch({name: given[name] for name in self.model.fields})

    @cached_property
    def noise(self) -> Noise:
        """Noise for the batch."""
        return self.model.noise(jax.random.key(0), BATCH)

    def loss(
        self, graphdef: nnx.GraphDef, params: Params, batch: Batch, noise: Noise
    ) -> tuple[Float[Array, "b"], dict[str, Float[Array, "b"]]]:
        """The loss of the model at some parameters."""
        return merge(graphdef, params).loss(batch, noise, step=STEP)


def check_model(model: type[Model] | str, fields: Mapping[str, ArrayLike] | None = None) -> None:
    """Runs all checks on a model.

    Args:
        model: its class, or its name: of one of ours, or the dotted path of another.
        fields: four examples of each field that it names beside "image".

    Raises:
        AssertionError: the model breaks the contract; says how.
    """
    name = model if isinstance(model, str) else model.__module__
    case = ModelCase(name, models.settings_class(name).small(), fields or {})
    for check in MODEL_CHECKS:
        check(case)


def config_block_makes_the_settings(case: ModelCase) -> None:
    """The config's `model` block has the settings' defaults, survives saving, and no other key."""
    config = experiment(model=case.name, data="tetrominoes")
    assert models.settings_of(config.model) == type(case.settings)(), "the defaults differ"
    config.model = model_block(case.name, case.settings)
    values = to_dict(config)
    assert to_dict(from_dict(values)) == values, "saving and loading changes the config"
    assert models.settings_of(values["model"]) == case.settings, "JSON changes the settings"
    assert isinstance(models.create(values["model"], rngs=nnx.Rngs(0)), Model)
    with contextlib.suppress(ConfigError):
        models.settings_of({**values["model"], "surprise": 1})
        raise AssertionError("an unknown setting is not refused")


def modules_hold_float32_parameters_only(case: ModelCase) -> None:
    """The state of the modules is parameters in float32."""
    for path, variable in nnx.to_flat_state(nnx.split(case.model)[1]):
        assert isinstance(variable, nnx.Param), f"{path} is no nnx.Param"
        assert variable[...].dtype == jnp.float32, f"{path} is {variable[...].dtype}"


def splitting_and_merging_changes_nothing(case: ModelCase) -> None:
    """A model that was taken apart and put together says the same."""
    merged = merge(*split(case.model))
    expected, found = (
        model.predict(case.batch, case.noise, step=STEP) for model in (case.model, merged)
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def frozen_parts_are_parts(case: ModelCase) -> None:
    """What the model names as frozen are attributes with parameters."""
    parameters = split(case.model)[1]
    assert set(case.model.frozen) <= set(parameters), f"{case.model.frozen} are no parts"


def what_only_the_loss_uses_has_no_say(case: ModelCase) -> None:
    """Without its `loss_only` parts the model predicts the same."""
    graphdef, params = split(case.model)
    parts = {part: params[part] for part in case.model.loss_only if part in case.model.frozen}
    without = merge(graphdef, params | jax.tree.map(jnp.zeros_like, parts))
    expected, found = (
        (
            model.predict(case.batch, case.noise, step=STEP),
            model.visualize(case.batch, case.noise, step=STEP),
            model.encode_frozen(case.batch.image) if "image" in case.batch.fields else {},
        )
        for model in (case.model, without)
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def noise_is_batched_and_depends_on_the_key_alone(case: ModelCase) -> None:
    """The same key gives the same noise, another key another."""
    again, other = (case.model.noise(jax.random.key(key), BATCH) for key in (0, 1))
    leaves = jax.tree.leaves(case.noise)
    assert all(leaf.shape[0] == BATCH for leaf in leaves), "noise has the batch as its first axis"
    jax.tree.map(np.testing.assert_array_equal, case.noise, again)
    pairs = zip(leaves, jax.tree.leaves(other), strict=True)
    assert not leaves or any(not np.array_equal(a, b) for a, b in pairs), "the key has no effect"


def noise_of_an_example_does_not_depend_on_the_batch(case: ModelCase) -> None:
    """Evaluation gives every example its own noise."""
    index = jnp.array([5, 2, 9])
    together = per_example_noise(case.model, jax.random.key(3), index)
    alone = per_example_noise(case.model, jax.random.key(3), index[1:2])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1:2], b), together, alone)


def expanded_noise_gives_the_same_loss(case: ModelCase) -> None:
    """Noise that was written out is the same noise."""
    expanded = case.model.expand_noise(case.noise)
    assert all(leaf.shape[0] == BATCH for leaf in jax.tree.leaves(expanded))
    found, expected = (
        case.model.loss(case.batch, noise, step=STEP)[0] for noise in (expanded, case.noise)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def loss_is_per_example_finite_and_differentiable(case: ModelCase) -> None:
    """Every example has a loss of its own, with a gradient."""
    graphdef, params = split(case.model)
    loss = jax.jit(lambda *arguments: case.loss(graphdef, *arguments))
    value, scalars = loss(params, case.batch, case.noise)
    for name, array in {"loss": value, **scalars}.items():
        assert array.shape == (BATCH,), f"{name} has the shape {array.shape}, not {(BATCH,)}"
        assert np.isfinite(array).all(), f"{name} is not finite"
    flipped = jax.tree.map(lambda x: x[::-1], (case.batch, case.noise))
    np.testing.assert_allclose(
        loss(params, *flipped)[0][::-1], value, rtol=1e-4, err_msg="examples depend on each other"
    )
    grads = jax.grad(lambda params: loss(params, case.batch, case.noise)[0].mean())(params)
    leaves = jax.tree.leaves(grads)
    assert all(np.isfinite(leaf).all() for leaf in leaves), "a gradient is not finite"
    some_gradient_is_not_zero(case, grads)


def some_gradient_is_not_zero(case: ModelCase, grads: Params) -> None:
    """Something learns, where a model is more than its frozen parts."""
    leaves = jax.tree.leaves(partition(grads, case.model)[0])
    assert not leaves or any((leaf != 0).any() for leaf in leaves), "all gradients are zero"


def bfloat16_gives_nearly_the_same_in_float32(case: ModelCase) -> None:
    """A model with a setting `dtype` computes in bfloat16; losses and gradients are float32."""
    if not hasattr(case.settings, "dtype"):
        return
    exact, params = split(case.model)
    batch, noise = case.batch, case.noise  # made here, not while the functions below are traced
    rounded, _ = split(nnx.eval_shape(lambda: case.build(dtype="bfloat16")))

    def compute(params: Params, graphdef: nnx.GraphDef):
        value, scalars = case.loss(graphdef, params, batch, noise)
        return value.mean(), (value, scalars)

    gradient = jax.jit(jax.grad(lambda params: compute(params, rounded), has_aux=True))
    grads, (value, scalars) = gradient(params)
    for array in (value, *scalars.values(), *jax.tree.leaves(grads)):
        assert array.dtype == jnp.float32, f"found {array.dtype}"
        assert np.isfinite(array).all(), "not finite in bfloat16"
    some_gradient_is_not_zero(case, grads)
    if not partition(params, case.model)[0]:
        return  # what is not trained need not be continuous
    expected = jax.jit(lambda params: compute(params, exact)[1][0])(params)
    assert (value != expected).any(), "nothing is computed in bfloat16"
    np.testing.assert_allclose(value, expected, rtol=0.05)


def prediction_has_the_promised_shapes(case: ModelCase) -> None:
    """Reconstruction, masks, slots and count are what `Prediction` says."""
    found = case.model.predict(case.batch, case.noise, step=STEP)
    height, width = case.model.resolution
    if found.recon is not None:
        assert found.recon.shape == (BATCH, height, width, 3), f"recon is {found.recon.shape}"
    if found.masks is not None:
        num_masks = found.masks.shape[1]
        assert found.masks.shape == (BATCH, num_masks, height, width), f"{found.masks.shape}"
        np.testing.assert_allclose(found.masks.sum(1), 1.0, atol=1e-5, err_msg="masks sum to 1")
        assert (found.masks >= 0).all(), "masks are not negative"
        assert found.background is None or 0 <= found.background < num_masks
    assert found.slots.ndim == 3, f"slots are [b, k, d], not {found.slots.shape}"
    assert found.count is None or found.count.shape == (BATCH,)
    if found.contrast is not None:
        assert found.contrast.shape == (BATCH, height, width), f"{found.contrast.shape}"
        assert ((found.contrast >= 0) & (found.contrast <= 1)).all(), "contrast is from 0 to 1"


def rendered_slots_are_images(case: ModelCase) -> None:
    """`render`, where the model has it, paints any number of slots."""
    prediction = case.model.predict(case.batch, case.noise, step=STEP)
    some = prediction.slots[:, : max(1, prediction.slots.shape[1] - 1)]
    try:
        images = case.model.render(some, step=STEP)
    except NotImplementedError:
        return
    assert images.shape == (len(case.batch), *case.model.resolution, 3), images.shape
    assert jnp.all(jnp.isfinite(images))


def attention_divides_the_grid(case: ModelCase) -> None:
    """`attention`, where the model has it, sums to 1 over slots in every iteration."""
    try:
        attn = case.model.attention(case.batch, case.noise, step=STEP)
    except NotImplementedError:
        return
    slots = case.model.predict(case.batch, case.noise, step=STEP).slots
    assert len(attn) == len(case.batch)
    assert attn.shape[2] == slots.shape[1]
    np.testing.assert_allclose(jnp.sum(attn, axis=2), 1.0, atol=1e-4)


def expensive_metrics_are_per_example(case: ModelCase) -> None:
    """Every example has a finite value of each."""
    prediction = case.model.predict(case.batch, case.noise, step=STEP)
    for name, value in case.model.expensive_metrics(case.batch, prediction).items():
        assert value.shape == (BATCH,), f"{name} has the shape {value.shape}, not {(BATCH,)}"
        assert np.isfinite(value).all(), f"{name} is not finite"


def visualizations_are_images(case: ModelCase) -> None:
    """Rows are RGB images in [0, 1], of each example or of each of its slots, or label maps."""
    for name, row in case.model.visualize(case.batch, case.noise, step=STEP).items():
        assert row.shape[0] == BATCH, f"{name} has the shape {row.shape}"
        assert row.ndim in (3, 4, 5), f"{name} has the shape {row.shape}"
        if row.ndim > 3:
            assert row.shape[-1] == 3, f"{name} has the shape {row.shape}"
            assert ((row >= 0) & (row <= 1)).all(), f"{name} is not in [0, 1]"


MODEL_CHECKS: tuple[Callable[[ModelCase], None], ...] = (
    config_block_makes_the_settings,
    modules_hold_float32_parameters_only,
    splitting_and_merging_changes_nothing,
    frozen_parts_are_parts,
    what_only_the_loss_uses_has_no_say,
    noise_is_batched_and_depends_on_the_key_alone,
    noise_of_an_example_does_not_depend_on_the_batch,
    expanded_noise_gives_the_same_loss,
    loss_is_per_example_finite_and_differentiable,
    bfloat16_gives_nearly_the_same_in_float32,
    prediction_has_the_promised_shapes,
    rendered_slots_are_images,
    attention_divides_the_grid,
    expensive_metrics_are_per_example,
    visualizations_are_images,
)
