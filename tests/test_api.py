"""Trained models in Python."""

import dataclasses
import inspect
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
from PIL import Image

import objdisc_jax
from objdisc_jax import config as configs
from objdisc_jax import convert, interop, predict
from objdisc_jax.data.images import ReadOptions
from objdisc_jax.data.synthetic import tetrominoes
from objdisc_jax.errors import UserError
from objdisc_jax.models import base
from tests import typechecker
from tests.conftest import small_config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of every model here that paints its slots or scenes, by name."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("slot_attention", "gnm", "slate"):
        config = small_config(name)
        torch.manual_seed(0)
        weights = interop.create(configs.to_dict(config)["model"]).state_dict()
        torch.save(weights, folder / "weights.pt")
        convert.from_torch(folder / "weights.pt", config, folder / name)
    return folder


@pytest.fixture(scope="module")
def model(runs):
    return objdisc_jax.load(runs / "slot_attention")


@pytest.fixture(scope="module")
def scenes():
    return tetrominoes.generate(0, 0, 3)["image"]


@pytest.fixture
def photo(tmp_path, scenes):
    file = tmp_path / "photo.png"
    Image.fromarray(scenes[0]).resize((50, 40)).save(file)
    return file


def test_importing_the_package_imports_nothing():
    code = (
        "import sys; import objdisc_jax; objdisc_jax.list_models(); objdisc_jax.list_pretrained();"
        "sys.exit(bool({'jax', 'torch', 'flax', 'matplotlib'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    for name in objdisc_jax.__all__:
        assert callable(getattr(objdisc_jax, name)), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        objdisc_jax.nothing  # noqa: B018


def test_the_public_face_is_annotated():
    public = [getattr(objdisc_jax, name) for name in objdisc_jax.__all__]
    kinds = [one for one in public if isinstance(one, type)]
    assert len(kinds) == 2
    methods = [
        method
        for kind in kinds
        for name, method in vars(kind).items()
        if inspect.isfunction(method) and not name.startswith("_")
    ]
    for function in [one for one in public if one not in kinds] + methods:
        signature = inspect.signature(function)
        parameters = [p for name, p in signature.parameters.items() if name != "self"]
        annotations = [signature.return_annotation, *(p.annotation for p in parameters)]
        assert inspect.Signature.empty not in annotations, function
        assert function.__doc__, function


def test_an_image_is_segmented_as_predict_does(runs, model, photo, tmp_path):
    arguments = [
        "--workdir",
        runs / "slot_attention",
        "--input",
        photo,
        "--output",
        tmp_path / "out",
    ]
    predict.main(predict.parse(["predict", *map(str, arguments)]))
    result = model.segment(photo)
    assert result.segmentation.shape == (40, 50)
    np.testing.assert_array_equal(
        result.segmentation, np.asarray(Image.open(tmp_path / "out" / "photo_labels.png"))
    )
    np.testing.assert_array_equal(
        np.asarray(result.overlay()), np.asarray(Image.open(tmp_path / "out" / "photo_overlay.png"))
    )


def test_files_arrays_and_images_are_the_same(model, photo):
    image = Image.open(photo)
    results = [model.segment(given) for given in (photo, str(photo), image, np.asarray(image))]
    for result in results[1:]:
        np.testing.assert_array_equal(result.masks, results[0].masks)


def test_transparent_images_are_composited_as_in_training(model, scenes, tmp_path, monkeypatch):
    options = ReadOptions(matte=(10, 20, 30))
    declaration = dataclasses.replace(model._declaration, read_options=options)
    monkeypatch.setattr(model, "_declaration", declaration)
    photo = Image.fromarray(scenes[0])
    photo.putalpha(0)
    photo.save(tmp_path / "clear.png")
    for given in (photo, tmp_path / "clear.png"):
        assert (model.segment(given).image == (10, 20, 30)).all()


def test_an_image_beside_others_is_as_alone(model, scenes):
    together = model.segment([scenes[0], scenes[1]])
    alone = model.segment(scenes[1])
    np.testing.assert_array_equal(together[1].masks, alone.masks)
    np.testing.assert_array_equal(together[1].slots, alone.slots)
    assert np.any(together[0].masks != alone.masks)


def test_images_one_by_one_are_nearly_the_same(runs, model, scenes):
    alone = objdisc_jax.load(runs / "slot_attention", one_by_one=True).segment(list(scenes))
    for result, other in zip(alone, model.segment(list(scenes)), strict=True):
        np.testing.assert_allclose(result.masks, other.masks, atol=1e-4)


def test_slots_are_painted_as_they_were_reconstructed(model, scenes):
    result = model.segment(scenes[0])
    np.testing.assert_allclose(model.render(result.slots[None])[0], result.recon, atol=1e-5)
    assert np.any(np.abs(model.render(result.slots[None, :1])[0] - result.recon) > 1e-4)


def test_gnm_paints_slots_in_boxes_before_a_background(runs, scenes):
    gnm = objdisc_jax.load(runs / "gnm")
    result = gnm.segment(scenes[0])
    boxes, background = result.extras["boxes"][None], result.extras["background"][None]
    again = gnm.render(result.slots[None], background=background)[0]
    np.testing.assert_allclose(again, result.recon, atol=1e-5)
    nowhere = gnm.render(result.slots[None], boxes=boxes + 1000, background=background)
    np.testing.assert_allclose(nowhere, background, atol=1e-6)


def test_a_model_without_a_decoder_paints_nothing(model, monkeypatch):
    monkeypatch.setattr(type(model.model), "render", base.Model.render)
    with pytest.raises(UserError, match="makes no image of its slots"):
        model.render(np.zeros((1, 2, 3), np.float32))


def test_a_setting_is_another_model(runs, scenes):
    five = objdisc_jax.load(runs / "slot_attention", num_slots=5)
    assert five.segment(scenes[0]).masks.shape[0] == 5
    with pytest.raises(UserError, match="no setting 'num_slot'"):
        objdisc_jax.load(runs / "slot_attention", num_slot=5)


def test_a_slot_is_cut_out(model, scenes):
    result = model.segment(scenes[0])
    assert {slot + 1 for slot in result.found} == set(np.unique(result.segmentation)) - {0}
    slot = result.found[-1]
    cut = np.asarray(result.cutout(slot))
    np.testing.assert_array_equal(cut[..., 3] == 255, result.segmentation == slot + 1)
    np.testing.assert_array_equal(
        cut[..., :3][cut[..., 3] == 255], result.image[cut[..., 3] == 255]
    )
    assert not cut[cut[..., 3] == 0].any()  # nothing of the rest is in the file


def test_boxes_are_in_pixels_of_the_image(runs, scenes):
    gnm = objdisc_jax.load(runs / "gnm")
    small = gnm.segment(scenes[0])
    large = gnm.segment(Image.fromarray(scenes[0]).resize((105, 105), Image.Resampling.NEAREST))
    assert small.count == len(small.boxes)
    there = small.extras["z_pres"] > 0.5
    scale = 35 / gnm.model.resolution[0]
    np.testing.assert_allclose(small.boxes, small.extras["boxes"][there] * scale, atol=1e-4)
    assert np.abs(large.boxes).max() > 35


def test_scenes_are_sampled_where_the_model_can(runs, model):
    scenes = objdisc_jax.load(runs / "gnm").sample(2, seed=3)
    assert scenes.shape[0] == 2
    assert 0 <= scenes.min() <= scenes.max() <= 1
    with pytest.raises(UserError, match="makes no new scenes"):
        model.sample()


def test_images_of_slots_are_sampled_where_the_model_can(runs, model, scenes):
    slate = objdisc_jax.load(runs / "slate")
    slots = slate.segment(scenes[0]).slots[None]
    first, again, other = (slate.generate(slots, seed=seed) for seed in (0, 0, 1))
    assert first.shape == (1, *slate.model.resolution, 3)
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    np.testing.assert_allclose(slate.generate(slots, top_k=1), slate.render(slots), atol=1e-5)
    with pytest.raises(UserError, match="samples no images of its slots"):
        model.generate(slots)


def test_a_result_says_in_a_line_what_was_found(model, scenes):
    result = model.segment(scenes[0])
    assert repr(result) == (
        f"<Segmentation of 35x35 pixels: {len(result.found)} of 3 slots have pixels>"
    )


def test_images_may_be_any_iterable_and_other_arrays(model, scenes):
    expected = [result.masks for result in model.segment(list(scenes[:2]))]
    for given in (iter(scenes[:2]), (jax.numpy.asarray(scene) for scene in scenes[:2])):
        for result, masks in zip(model.segment(given), expected, strict=True):
            np.testing.assert_array_equal(result.masks, masks)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8, 3)), r"float64 \[8, 8, 3\].*uint8"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"uint8 \[2, 8, 8, 3\].*several images are a list"),
        (np.zeros((0, 8, 3), np.uint8), r"\[0, 8, 3\].*not empty"),
    ],
)
def test_an_array_that_is_no_image_is_an_error(model, images, message):
    with pytest.raises(UserError, match=message):
        model.segment(images)


@pytest.mark.parametrize(
    ("images", "kind"), [(b"bytes", "bytes"), (3, "int"), (None, "NoneType"), ([[1]], "list")]
)
def test_what_is_no_image_is_an_error(model, images, kind):
    with typechecker.off(), pytest.raises(UserError, match=rf"images: got {kind}; allowed are"):
        model.segment(images)


@pytest.mark.parametrize("crop", ["squre", [0, 5, 0, 5], (5, 0, 0, 5), (0, 5)])
def test_a_crop_that_does_not_exist_is_an_error(model, scenes, crop):
    with typechecker.off(), pytest.raises(UserError, match=r"crop: got .*allowed are 'data'"):
        model.segment(scenes[0], crop=crop)


@pytest.mark.parametrize("seed", [-1, 2**31, 0.5])
def test_a_seed_out_of_range_is_an_error(runs, model, scenes, seed):
    with typechecker.off(), pytest.raises(UserError, match=r"seed: got .*from 0 to 2147483647"):
        model.segment(scenes[0], seed=seed)


def test_slots_that_are_none_are_an_error(model, scenes):
    result = model.segment(scenes[0])
    for slot in (-1, 3):
        with pytest.raises(UserError, match=rf"slot: got {slot}; allowed are 0 to 2"):
            result.cutout(slot)
    with pytest.raises(UserError, match=r"slots: got an array of \[3, 8\].*slots\[None\]"):
        model.render(result.slots)
    with typechecker.off(), pytest.raises(UserError, match=r"cannot paint .*\[1, 2, 5\]"):
        model.render(np.zeros((1, 2, 5), np.float32))


def test_a_source_that_is_none_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no trained model .*nowhere.*Name a run directory"):
        objdisc_jax.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        objdisc_jax.load(tmp_path)


def test_a_file_that_is_no_image_is_an_error(model, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match=r"text\.png"):
        model.segment(tmp_path / "text.png")


def test_a_seed_is_another_draw_of_the_noise(model, scenes):
    default, zero, one = (
        model.segment(scenes[0], **seed) for seed in ({}, {"seed": 0}, {"seed": 1})
    )
    np.testing.assert_array_equal(zero.slots, default.slots)
    assert np.abs(one.slots - zero.slots).max() > 1e-3


def test_background_is_told_as_asked(model, scenes):
    assert model.segment(scenes[0], background="none").segmentation.min() == 1
    assert model.segment(scenes[0], background="largest_segment").segmentation.min() == 0
    with pytest.raises(UserError, match=r"background: got 'all'.*largest_segment"):
        model.segment(scenes[0], background="all")


def test_attention_is_that_of_every_iteration(runs, model, scenes):
    attn = model.attention(scenes[0], seed=2)
    last = model.segment(scenes[0], seed=2).extras["attn"]
    iterations = model.model.settings.num_iterations + 1  # implicit: one more
    assert attn.shape == (iterations, 3, 16, 16)
    np.testing.assert_allclose(attn[-1].reshape(3, -1).T, last, atol=1e-5)
    np.testing.assert_allclose(attn.sum(1), 1, atol=1e-5)
    assert np.abs(attn[0] - attn[1]).max() > 1e-3
    with pytest.raises(UserError, match="no iterations of attention"):
        objdisc_jax.load(runs / "gnm").attention(scenes[0])


def test_settings_that_keep_the_parameters_are_known(model):
    assert model.can_take(num_slots=5)
    assert not model.can_take(resolution=(20, 24))  # its decoder's sizes make 16x16
    assert not model.can_take(slot_size=16)
    assert not model.can_take(num_slots=0)
    assert not model.can_take(nothing=1)
