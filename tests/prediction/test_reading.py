"""Images that cannot be read, and how the others are read."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from objdisc_jax import config as configs
from objdisc_jax import convert, interop
from objdisc_jax.data import datasets, inputs
from objdisc_jax.data.errors import DataError
from objdisc_jax.errors import UserError
from objdisc_jax.prediction import results
from objdisc_jax.settings import Settings
from tests.conftest import small_config
from tests.prediction.running import contents, labels, run


def test_broken_file_is_skipped_and_reported(workdir, images, tmp_path, caplog):
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:80])
    (images / "fake.jpg").write_text("no image")
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"2 file\(s\) were skipped; see above"):
        run(workdir, images, out)
    assert "broken.png cannot be read" in caplog.text
    assert "fake.jpg cannot be read" in caplog.text
    assert (out / "a_labels.png").is_file()
    assert (out / "sub" / "alpha_labels.png").is_file()


def test_no_kind_of_bad_file_ends_the_run(workdir, images, tmp_path, caplog, monkeypatch):
    (images / "empty.png").touch()
    Image.fromarray(np.zeros((200, 210, 3), np.uint8)).save(images / "bomb.png")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(images / "odd.bmp")
    os.symlink(tmp_path / "nowhere", images / "gone.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    monkeypatch.setattr(inputs, "read_rgb", odd := _raising(inputs.read_rgb, "odd", KeyError("x")))
    with pytest.raises(UserError, match=r"^4 file\(s\) were skipped; see"):
        run(workdir, images, tmp_path / "out")
    assert odd
    for text in (
        r"empty.png cannot be read",
        "bomb.png is too large (Image size (42000 pixels) exceeds limit of 40000 pixels). Make it",
        "There is no file",
        "odd.bmp is skipped: The image cannot be read (KeyError: 'x')",
    ):
        assert text in caplog.text
    assert len(contents(tmp_path / "out")) == 6


def _raising(read_rgb, name, error):
    def read(path, options):
        if path.stem == name:
            raise error
        return read_rgb(path, options)

    return read


def test_image_that_goes_or_changes_while_it_is_segmented_is_reported(
    workdir, images, tmp_path, caplog, monkeypatch
):
    read_rgb = results.read_rgb

    def read(path, options):
        if path.stem == "a":
            path.unlink()
        return read_rgb(images / "a.jpg" if path.stem == "wide" else path, options)

    Image.new("RGB", (30, 20)).save(images / "a.jpg")
    monkeypatch.setattr(results, "read_rgb", read)
    with pytest.raises(UserError, match=r"^2 file\(s\) were skipped"):
        run(workdir, [images / "a.png", images / "wide.jpg", images / "sub"], tmp_path / "out")
    assert "There is no file" in caplog.text
    assert "wide.jpg changed while it was segmented" in caplog.text
    assert (tmp_path / "out" / "alpha_overlay.png").is_file()


def test_transparent_images_are_composited_as_in_training_or_as_asked(workdir, images, tmp_path):
    pixels = np.asarray(Image.open(images / "a.png"))
    hidden = np.dstack([np.full_like(pixels, 255), np.zeros(pixels.shape[:2], np.uint8)])
    Image.fromarray(hidden).save(tmp_path / "hidden.png")
    for matte, value in ((None, 0), ("255,255,255", 255)):
        output = tmp_path / str(value)
        Image.new("RGB", (35, 35), (value,) * 3).save(tmp_path / f"{value}.png")
        more = () if matte is None else ("--matte", matte)
        inputs_here = [tmp_path / "hidden.png", tmp_path / f"{value}.png"]
        run(workdir, inputs_here, output, *more, "--background", "none")
        for what in ("labels", "overlay"):
            np.testing.assert_array_equal(
                labels(output / f"hidden_{what}.png"), labels(output / f"{value}_{what}.png")
            )


def test_colour_below_transparent_images_is_by_default_that_of_training(tmp_path):
    config = small_config("gnm")
    config.data = datasets.get("image_folder").default_config()
    config.data.update(matte=(255, 255, 255), resolution=(16, 16))
    weights = interop.create(configs.to_dict(config)["model"]).state_dict()
    torch.save(weights, tmp_path / "gnm.pt")
    convert.from_torch(tmp_path / "gnm.pt", config, tmp_path / "gnm")
    Image.new("RGBA", (16, 16)).save(tmp_path / "hidden.png")
    Image.new("RGB", (16, 16), (255, 255, 255)).save(tmp_path / "white.png")
    run(tmp_path / "gnm", [tmp_path / "hidden.png", tmp_path / "white.png"], tmp_path / "out")
    found = contents(tmp_path / "out")
    assert found["hidden_overlay.png"] == found["white_overlay.png"]
    assert found["hidden_labels.png"] == found["white_labels.png"]


def test_limit_of_pixels_can_be_set(workdir, images, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(UserError, match=r"^1 file\(s\) were skipped"):
        run(workdir, images, tmp_path / "out")
    assert "wide.jpg is too large" in caplog.text
    run(workdir, images, tmp_path / "out", "--max-pixels", 8400)
    assert (tmp_path / "out" / "wide_overlay.png").is_file()


class _Deadly(inputs.Cropping):
    def read(self, file):
        os._exit(1)


def test_dead_worker_is_an_error_that_says_what_to_do(images):
    declaration = datasets.get("tetrominoes").declare(datasets.get("tetrominoes").default_config())
    files = [file for file in inputs.find([images]) if isinstance(file, inputs.File)]
    found = inputs.read(files, _Deadly("data", declaration, (35, 35)), num_workers=1)
    with pytest.raises(DataError, match=r"worker process died .*memory.*: --num-workers 0 reads"):
        list(found)


@pytest.mark.parametrize(
    ("size", "crop"),
    [((240, 320), (29, 221, 64, 256)), ((480, 640), (58, 442, 128, 512)), ((64, 64), (0, 64) * 2)],
)
def test_crop_of_the_data_scales_with_the_image(tmp_path, size, crop):
    config = datasets.get("clevr_with_masks").default_config()
    declaration = datasets.get("clevr_with_masks").declare(config)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / "image.png")
    given = inputs.Cropping("data", declaration, Settings(resolution=(48, 48))).read(
        inputs.File("image", tmp_path / "image.png")
    )
    assert given.crop == crop
    # The model itself makes the training data's crops smaller, as it did in training.
    assert given.seen.shape == ((192, 192, 3) if size == (240, 320) else (48, 48, 3))


def test_missing_and_empty_input_and_clashing_names_are_explained(workdir, images, tmp_path):
    with pytest.raises(UserError, match="no file or folder"):
        run(workdir, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(UserError, match=r"no file or folder .*x \(File name too long\)"):
        run(workdir, tmp_path / ("x" * 300), tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no image in"):
        run(workdir, tmp_path / "empty", tmp_path / "out")


def test_only_the_image_whose_results_have_no_name_left_is_skipped(
    workdir, images, tmp_path, caplog
):
    for folder in ("b", "c", "d"):
        (images / folder).mkdir()
        (images / folder / "a.png").write_bytes((images / "a.png").read_bytes())
    files = [images / folder / "a.png" for folder in ("b", "c", "d", "b")]
    with pytest.raises(UserError, match=r"^1 file\(s\) were skipped"):
        run(workdir, [*files, images / "c" / ".." / "c" / "a.png"], tmp_path / "out")
    assert (
        f"{files[2]} is skipped: its results would have the name a.png, as those of {files[1]}"
        in (caplog.text)
    )
    assert sorted(contents(tmp_path / "out")) == sorted(
        f"{name}_{what}.png" for name in ("a", "a.png") for what in ("labels", "overlay")
    )
