"""Segmenting a folder of images."""

import numpy as np
import pytest
import torch
from PIL import Image

from objdisc_jax import config as configs
from objdisc_jax import convert, interop, predict
from objdisc_jax.data import datasets
from objdisc_jax.data.synthetic import tetrominoes
from objdisc_jax.errors import UserError
from objdisc_jax.training import loop
from tests.conftest import small_config, tiny_experiment
from tests.training.test_train import changed


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, tetrominoes_file):
    folder = tmp_path_factory.mktemp("run")
    loop.train(changed(tiny_experiment(tetrominoes_file), num_train_steps=4), folder)
    return folder


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    scenes = tetrominoes.generate(0, 0, 3)["image"]
    Image.fromarray(scenes[0]).save(folder / "a.png")
    Image.fromarray(scenes[1]).resize((120, 70)).save(folder / "wide.jpg")
    Image.fromarray(scenes[2]).convert("RGBA").save(folder / "sub" / "alpha.png")
    return folder


def run(workdir, inputs, output, *more):
    inputs = [inputs] if not isinstance(inputs, list) else inputs
    arguments = ["predict", "--workdir", workdir, "--output", output, "--input", *inputs, *more]
    predict.main(predict.parse([str(argument) for argument in arguments]))


def labels(file):
    return np.asarray(Image.open(file))


def test_every_image_gets_its_four_files_at_its_own_size(workdir, images, tmp_path):
    out = tmp_path / "out"
    run(workdir, images, out)
    assert len([f for f in out.rglob("*") if f.is_file()]) == 12
    for name, size in (("a", (35, 35)), ("wide", (70, 120)), ("sub/alpha", (35, 35))):
        assert labels(out / f"{name}_labels.png").shape == size
        assert labels(out / f"{name}_overlay.png").shape == (*size, 3)
        assert labels(out / f"{name}_panel.png").ndim == 3
        with np.load(out / f"{name}.npz") as arrays:
            assert arrays["masks"].shape == (3, 35, 35)
            assert arrays["slots"].shape == (3, 8)
            np.testing.assert_allclose(arrays["masks"].sum(0), 1, atol=1e-5)
    # The centre square is what the model saw of the wide image; the rest is background.
    with np.load(out / "wide.npz") as arrays:
        np.testing.assert_array_equal(arrays["crop"], [0, 70, 25, 95])
    wide = labels(out / "wide_labels.png")
    assert not wide[:, :25].any()
    assert not wide[:, 95:].any()


def test_count_and_extras_of_a_model_are_written(images, tetrominoes_file, tmp_path):
    config = small_config("gnm")
    config.data.path = str(tetrominoes_file)
    weights = interop.create(configs.to_dict(config)["model"]).state_dict()
    torch.save(weights, tmp_path / "gnm.pt")
    convert.from_torch(tmp_path / "gnm.pt", config, tmp_path / "gnm")
    run(tmp_path / "gnm", images / "a.png", tmp_path / "out", "--batch-size", 2)
    with np.load(tmp_path / "out" / "a.npz") as arrays:
        assert arrays["boxes"].shape == (4, 4)
        assert arrays["background"].shape == (16, 16, 3)
        assert arrays["count"] == (arrays["z_pres"] > 0.5).sum()
        assert arrays["segmentation"].shape == (16, 16)


def test_result_does_not_depend_on_the_other_images(workdir, images, tmp_path):
    run(workdir, images, tmp_path / "all", "--batch-size", 2)
    run(workdir, images / "a.png", tmp_path / "one", "--batch-size", 2)
    with np.load(tmp_path / "all" / "a.npz") as a, np.load(tmp_path / "one" / "a.npz") as b:
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


def test_broken_file_is_skipped_and_reported(workdir, images, tmp_path, caplog):
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:80])
    (images / "fake.jpg").write_text("no image")
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"2 file\(s\) could not be read"):
        run(workdir, images, out)
    assert "broken.png cannot be read" in caplog.text
    assert "fake.jpg cannot be read" in caplog.text
    assert (out / "a_labels.png").is_file()
    assert (out / "sub" / "alpha_labels.png").is_file()


@pytest.mark.parametrize(
    ("size", "crop"),
    [((240, 320), (29, 221, 64, 256)), ((480, 640), (58, 442, 128, 512)), ((64, 64), (0, 64) * 2)],
)
def test_crop_of_the_data_scales_with_the_image(tmp_path, size, crop):
    config = datasets.get("clevr_with_masks").default_config()
    declaration = datasets.get("clevr_with_masks").declare(config)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / "image.png")
    given = predict._read(tmp_path / "image.png", "data", declaration, (48, 48))
    assert given.crop == crop
    # The model itself makes the training data's crops smaller, as it did in training.
    assert given.seen.shape == ((192, 192, 3) if size == (240, 320) else (48, 48, 3))


def test_background_modes_and_crops_reach_the_result(workdir, images, tmp_path):
    run(workdir, images / "a.png", tmp_path / "none", "--background", "none")
    assert labels(tmp_path / "none" / "a_labels.png").min() >= 1
    run(
        workdir,
        images / "a.png",
        tmp_path / "spread",
        *("--background", "low_confidence", "--threshold", 1.0, "--crop", "5,35,0,30"),
    )
    assert not labels(tmp_path / "spread" / "a_labels.png").any()
    with np.load(tmp_path / "spread" / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["crop"], [5, 35, 0, 30])
    run(workdir, images / "wide.jpg", tmp_path / "whole", "--crop", "none")
    with np.load(tmp_path / "whole" / "wide.npz") as arrays:
        np.testing.assert_array_equal(arrays["crop"], [0, 70, 0, 120])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--crop", "1,2,3"), r"--crop: got '1,2,3'; allowed are"),
        (("--crop", "9,2,0,5"), r"0 <= TOP < BOTTOM"),
        (("--threshold", "7"), r"--threshold: got 7\.0"),
        (("--batch-size", "0"), r"--batch-size: got 0"),
        (("--step", "worst"), r"no checkpoint 'worst'"),
    ],
)
def test_wrong_arguments_are_explained(workdir, images, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        run(workdir, images, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_missing_and_empty_input_and_clashing_names_are_explained(workdir, images, tmp_path):
    with pytest.raises(UserError, match="no file or folder"):
        run(workdir, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no image in"):
        run(workdir, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UserError, match="results of the same name"):
        run(workdir, [images / "a.png", images / "a.png", images / "a.png"], tmp_path / "out")


def test_images_of_one_name_and_two_kinds_both_get_results(workdir, images, tmp_path):
    Image.open(images / "a.png").save(images / "a.bmp")
    run(workdir, images, tmp_path / "out")
    assert (tmp_path / "out" / "a_labels.png").is_file()
    assert (tmp_path / "out" / "a.png_labels.png").is_file()
