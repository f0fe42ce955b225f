"""DINOSAUR's settings: what each does, and which contradict each other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import linear_sum_assignment

from objdisc_jax.errors import ConfigError
from objdisc_jax.models import base
from objdisc_jax.models.base import Batch
from objdisc_jax.models.dinosaur.model import cross_entropy, distillation, matched
from objdisc_jax.models.dinosaur.orders import patch_orders
from objdisc_jax.models.dinosaur.settings import Settings
from objdisc_jax.testing.models import MODEL_CHECKS, ModelCase

STEP = jnp.int32(0)
TRANSFORMER = {"decoder": "transformer", "orders": "random"}
VARIANTS = [
    {"top_k": 2, "patch_stride": 2, "distillation_weight": 1.0, "normalize_target": True},
    {"gradient": "bo_qsa", "masks": "attention", "final_norm": True, "positions": "antialias"},
    {**TRANSFORMER, "average_orders": True},
    {"decoder": "transformer", "plain_blocks": True, "rematerialize": True},
    {**TRANSFORMER, "gradient": "bo_qsa", "teacher": "first_stage"},
    {"patch_stride": 2, "teacher": "first_stage"},
]
NAMES = ["mlp", "queries", "orders", "rows", "taught", "taught_mlp"]


@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("variant", range(len(VARIANTS)), ids=NAMES)
def test_variant_keeps_the_contract(variant, check):
    check(variant_case(variant))


@functools.cache
def variant_case(variant):
    return ModelCase.small("dinosaur", **VARIANTS[variant])


def features_case(**settings):
    """A model, and features and noise for it."""
    case = ModelCase.small("dinosaur", cached=True, **settings)
    shape = (4, case.settings.num_patches, case.settings.d_model)
    features = jax.random.normal(jax.random.key(3), shape)
    return case.model, Batch({"features": features}), case.model.noise(jax.random.key(0), 4)


def test_as_many_slots_as_there_are_decode_as_all_do():
    some, batch, noise = features_case(top_k=3)
    every = ModelCase.small("dinosaur", cached=True).model
    graphdef, _ = base.split(every)
    every = base.merge(graphdef, base.split(some)[1])
    for found, expected in zip(
        some.loss(batch, noise, step=STEP), every.loss(batch, noise, step=STEP), strict=True
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
    found, expected = (m.predict(batch, noise, step=STEP).masks for m in (some, every))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((100, 100), (16, 16)),
        ((300, 200), (19, 13)),
        ((200, 300), (13, 19)),
        ((480, 640), (14, 18)),
        ((20, 600), (3, 85)),
        ((1, 5000), (1, 256)),
    ],
)
def test_a_fitted_grid_has_the_aspect_ratio_of_the_image(size, grid):
    settings = Settings(patch_stride=2)  # 16x16 patches of 14x14 pixels
    resolution = settings.fitted(*size)
    assert resolution == (14 * grid[0], 14 * grid[1])
    resized = settings.resized(resolution)  # allowed whatever the shape
    assert (resized.grid, resized.position_grid, resized.patch_stride) == (grid, (16, 16), 1)


def test_another_resolution_keeps_the_parameters_and_their_meaning():
    small = ModelCase.small("dinosaur").model  # 6x6 patches
    _, params = base.split(small)
    twice, same = (
        base.merge(base.split(ModelCase("dinosaur", resized).build())[0], params)
        for resized in (small.settings.resized((24, 48)), small.settings.resized((24, 24)))
    )
    ramp = jnp.broadcast_to(jnp.arange(6.0)[:, None] + 10, (6, 6)).reshape(1, 36, 1)
    for model in (twice, same):
        model.decoder.positions[...] = jnp.broadcast_to(ramp, model.decoder.positions.shape)
    found = twice.decoder._positions().reshape(6, 12, -1)
    np.testing.assert_allclose(
        found, np.broadcast_to(np.arange(10, 16.0)[:, None, None], (6, 12, 8)), rtol=1e-6
    )
    np.testing.assert_array_equal(same.decoder._positions(), same.decoder.positions[...])


def test_slots_that_attend_most_to_a_patch_are_decoded_for_it():
    model, batch, noise = features_case(top_k=1)
    slots, attn = model.slot_attention(model.features(batch), noise["slots"])
    _, masks = model.decoder(slots, attn)
    np.testing.assert_array_equal(jnp.argmax(masks, axis=1), jnp.argmax(attn, axis=2))
    np.testing.assert_array_equal(jnp.sum(masks > 0, axis=1), 1)


def test_some_patches_are_decoded_as_among_all():
    model, batch, noise = features_case(patch_stride=2, top_k=2)
    slots, attn = model.slot_attention(model.features(batch), noise["slots"])
    patches = model._some_patches(noise)
    assert patches.shape == (4, 9)
    for example, (row, column) in zip(patches.tolist(), noise["offset"].tolist(), strict=True):
        assert example == [6 * r + c for r in range(row % 2, 6, 2) for c in range(column % 2, 6, 2)]
    some, _ = model.decoder(slots, attn, patches)
    every, _ = model.decoder(slots, attn)
    expected = jnp.take_along_axis(every, patches[..., None], axis=1)
    np.testing.assert_allclose(some, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", range(9))
def test_a_patch_is_predicted_from_those_before_it_alone(order):
    model, batch, _ = features_case(**TRANSFORMER)
    features = model.features(batch)
    slots = jax.random.normal(jax.random.key(5), (4, 3, 8))
    given = jnp.full(4, order)
    weights = jax.random.normal(jax.random.key(6), (48,))  # norms leave no gradient of a plain sum
    jacobian = jax.jacobian(lambda x: model.decoder(slots, x, given)[0] @ weights)(features)
    seen = np.abs(jacobian[:, 0]).max(-1)

    position = np.argsort(patch_orders(6, 6)[order])
    before = position[None] < position[:, None]
    assert (seen[~before] == 0).all()
    assert (np.abs(seen[before]) > 0).mean() > 0.9


def test_frozen_backbone_has_no_gradient():
    case = ModelCase.small("dinosaur")
    graphdef, params = base.split(case.model)
    grads = jax.grad(lambda p: case.loss(graphdef, p, case.batch, case.noise)[0].sum())(params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads["backbone"]))


def test_distillation_is_that_of_the_published_code():
    torch = pytest.importorskip("torch")
    first, last = (
        np.random.default_rng(seed).dirichlet(np.ones(5), (2, 7)).astype(np.float32)
        for seed in (0, 1)
    )
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(first).mT, torch.from_numpy(last).mT, reduction="none"
    ).mean(1)
    found = distillation(jnp.asarray(first), jnp.asarray(last))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    _, pull = jax.vjp(lambda x: distillation(jnp.asarray(first), x), jnp.asarray(last))
    assert (pull(jnp.ones(2))[0] == 0).all()


def test_distillation_grows_over_its_steps():
    model, batch, noise = features_case(distillation_weight=2.0, distillation_ramp=(10, 20))
    losses = {step: model.loss(batch, noise, step=jnp.int32(step)) for step in (0, 10, 15, 20, 30)}
    for step, share in ((0, 0.0), (10, 0.0), (15, 0.5), (20, 1.0), (30, 1.0)):
        loss, scalars = losses[step]
        expected = scalars["recon_loss"] + 2.0 * share * scalars["distillation"]
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_slots_are_matched_with_segments_by_iou():
    rng = np.random.default_rng(0)
    attn = rng.dirichlet(np.ones(5), (20, 36)).astype(np.float32)
    segments = rng.integers(0, [[5]] * 19 + [[3]], (20, 36))  # of the last image two are empty
    found = np.asarray(matched(jnp.asarray(attn), jnp.asarray(segments)))
    for slots, given, segment in zip(found, attn.argmax(-1), segments, strict=True):
        own, segment_is = (np.eye(5)[labels] for labels in (given, segment))
        shared = own.T @ segment_is
        iou = shared / np.maximum(own.sum(0)[:, None] + segment_is.sum(0) - shared, 1)
        slot_of = {t: k for t, k in zip(segment.tolist(), slots.tolist(), strict=True)}
        assert (
            len(set(slot_of.values())) == len(slot_of) == len(set(zip(segment, slots, strict=True)))
        )
        best = iou[linear_sum_assignment(-iou)].sum()
        np.testing.assert_allclose(sum(iou[k, t] for t, k in slot_of.items()), best, rtol=1e-6)


def test_attention_learns_the_slots_of_patches():
    logits = jax.random.normal(jax.random.key(0), (2, 6, 3))
    slots = jax.random.randint(jax.random.key(1), (2, 6), 0, 3)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, slots).mean(1)
    np.testing.assert_allclose(cross_entropy(jax.nn.softmax(logits), slots), expected, rtol=1e-6)
    # What the attention rules out is no infinity.
    assert np.isfinite(
        cross_entropy(jnp.zeros((1, 1, 2)).at[..., 0].set(1.0), jnp.ones((1, 1), int))
    )


def test_teacher_has_a_share_in_the_loss_and_no_gradient():
    model, batch, noise = features_case(teacher="first_stage", teacher_weight=2.0)
    graphdef, params = base.split(model)

    def loss(params):
        return base.merge(graphdef, params).loss(batch, noise, step=STEP)

    total, scalars = loss(params)
    np.testing.assert_allclose(total, scalars["recon_loss"] + 2.0 * scalars["teacher"], rtol=1e-6)
    grads = jax.grad(lambda params: loss(params)[0].sum())(params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads["teacher"]))
    trained, frozen = base.partition(params, model)
    assert "teacher" in frozen
    assert "teacher" not in trained


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "dinov3"}, r"model\.backbone: got 'dinov3'; allowed are dinov2_s14, "),
        ({"resolution": (25, 24)}, r"patches of tiny are 4x4 pixels: use multiples of 4, such as"),
        ({"block": 3}, r"model\.block: got 3; it lies between 1 and 2"),
        ({"block": 1, "final_norm": True}, r"model\.final_norm: .* belongs to the last block, 2"),
        ({"top_k": 4}, r"model\.top_k: got 4; it lies between 1 and 3"),
        ({"decoder": "transformer", "top_k": 2}, r"model\.top_k: .* None unless"),
        ({"decoder": "transformer", "patch_stride": 2}, r"model\.patch_stride: .* 1 unless"),
        ({"decoder": "transformer", "num_heads": 5}, r"model\.num_heads: .* divide"),
        ({"orders": "random"}, r"model\.orders: .* unless model\.decoder"),
        ({**TRANSFORMER, "orders": "rows", "average_orders": True}, r"model\.average_orders: "),
        ({"gradient": "bo_qsa", "distillation_weight": 1.0}, r"unless model\.gradient is 'unroll"),
        ({"teacher": "a", "teacher_weight": 0.0}, r"model\.teacher_weight: .* above 0"),
        ({"decoder_hidden": ()}, r"model\.decoder_hidden: .* at least one layer"),
        ({"patch_stride": 7}, r"model\.patch_stride: got 7; it lies between 1 and 6"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(Settings.small(), **changes)
