"""Segmenting a folder of images."""

import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from objdisc_jax import config as configs
from objdisc_jax import convert, features, interop, predict, progress, segmentation
from objdisc_jax.data import datasets, inputs
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.synthetic import tetrominoes
from objdisc_jax.errors import UserError
from objdisc_jax.evaluation import visualization
from objdisc_jax.prediction import results, segmenter
from objdisc_jax.training import loop
from tests.backbones import write_tiny
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


ALL = ("--save", "labels,overlay,panel,npz")


def labels(file):
    return np.asarray(Image.open(file))


def contents(folder):
    """What every file below a folder holds, by its path there; of arrays, what they are."""
    found = {}
    for file in folder.rglob("*"):
        if file.suffix == ".npz":
            with np.load(file) as arrays:
                found |= {f"{file.relative_to(folder)}/{k}": v.tobytes() for k, v in arrays.items()}
        elif file.is_file():
            found[str(file.relative_to(folder))] = file.read_bytes()
    return found


def differences(found, expected):
    """What differs, by name: of floats by how much, of others whether it is there."""
    return {
        name: (
            np.abs(np.subtract(*(np.frombuffer(c[name], np.float32) for c in (found, expected))))
            if ".npz/" in name and name in found and name in expected
            else (name in found, name in expected)
        )
        for name in found | expected
        if found.get(name) != expected.get(name)
    }


def test_every_image_gets_its_four_files_at_its_own_size(workdir, images, tmp_path):
    out = tmp_path / "out"
    run(workdir, images, out, *ALL)
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
    run(tmp_path / "gnm", images / "a.png", tmp_path / "out", "--save", "npz")
    with np.load(tmp_path / "out" / "a.npz") as arrays:
        assert arrays["boxes"].shape == (4, 4)
        assert arrays["background"].shape == (16, 16, 3)
        assert arrays["count"] == (arrays["z_pres"] > 0.5).sum()
        assert arrays["segmentation"].shape == (16, 16)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Images of two sizes, one that the model resizes itself and one that is resized for it."""
    folder = tmp_path_factory.mktemp("many")
    for i, scene in enumerate(tetrominoes.generate(1, 0, 70)["image"]):
        image = Image.fromarray(scene)
        if i % 3 == 0:
            image = image.resize((70, 50))
        image.save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def expected(workdir, many, tmp_path_factory):
    run(workdir, many, tmp_path_factory.getbasetemp() / "expected", *ALL, "--num-workers", 0)
    return contents(tmp_path_factory.getbasetemp() / "expected")


@pytest.mark.parametrize("more", [("--batch-size", 200), ("--num-workers", 2), ()])
def test_neither_batch_size_nor_workers_change_a_bit(workdir, many, expected, tmp_path, more):
    run(workdir, many, tmp_path / "out", *ALL, *more)
    assert not differences(contents(tmp_path / "out"), expected)


def test_processes_share_the_images_without_overlap(workdir, many, expected, tmp_path):
    parts = []
    for index in range(3):
        out = tmp_path / str(index)
        run(workdir, many, out, *ALL, "--process-index", index, "--process-count", 3)
        parts.append(contents(out))
    assert sum(map(len, parts)) == len(expected)
    assert not differences(parts[0] | parts[1] | parts[2], expected)


def test_process_without_images_has_nothing_to_do(workdir, images, tmp_path):
    run(workdir, images, tmp_path / "out", "--process-index", 4, "--process-count", 5)
    assert not contents(tmp_path / "out")


def test_result_does_not_depend_on_the_other_images(workdir, many, expected, tmp_path):
    run(workdir, many / "07.png", tmp_path / "one", *ALL)
    one = contents(tmp_path / "one")
    assert {"07_overlay.png", "07.npz/masks"} <= one.keys()
    assert one.items() <= expected.items()


def test_only_what_is_asked_for_is_computed_and_written(workdir, images, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise AssertionError

    run(workdir, images / "a.png", tmp_path / "all", *ALL)
    monkeypatch.setattr(visualization, "draw", fail)
    monkeypatch.setattr(visualization, "compose", fail)
    monkeypatch.setattr(results, "_encode_npz", fail)
    run(workdir, images / "a.png", tmp_path / "default")
    assert sorted(contents(tmp_path / "default")) == ["a_labels.png", "a_overlay.png"]
    assert contents(tmp_path / "default").items() <= contents(tmp_path / "all").items()
    monkeypatch.setattr(results, "read_rgb", fail)
    run(workdir, images / "a.png", tmp_path / "labels", "--save", "labels")
    assert sorted(contents(tmp_path / "labels")) == ["a_labels.png"]


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


def test_file_that_cannot_be_written_is_reported_and_the_others_are_written(
    workdir, images, tmp_path, caplog
):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").touch()  # where a folder would have to be
    with pytest.raises(UserError, match=r"^1 file\(s\) could not get all their results written; s"):
        run(workdir, images, tmp_path / "out")
    assert "alpha.png is not all written" in caplog.text
    names = {f"{image}_{what}.png" for image in ("a", "wide") for what in ("labels", "overlay")}
    assert contents(tmp_path / "out").keys() == names | {"sub"}


@pytest.mark.parametrize("batch_size", [1, 16])
def test_names_are_as_long_as_the_file_system_has_them(
    workdir, tmp_path, images, caplog, batch_size
):
    """In bytes, not in characters; what is written aside has a shorter name."""
    fits, too_long = "\u00e4" * 121 + "m", "\u00e4" * 122  # of 243 and 244 bytes
    for name in (fits, too_long):
        (images / f"{name}.png").write_bytes((images / "a.png").read_bytes())
    with pytest.raises(UserError, match=r"^1 file\(s\) were skipped"):
        run(workdir, images, tmp_path / "out", "--batch-size", batch_size)
    assert f"{too_long}.png is skipped: its name leaves no room for _overlay.png" in caplog.text
    written = contents(tmp_path / "out")
    assert {f"{fits}_overlay.png", "wide_labels.png", "sub/alpha_overlay.png"} <= written.keys()
    assert len(written) == 8
    more = ("--save", "labels", "--batch-size", batch_size)
    run(workdir, images, tmp_path / "labels", *more)
    assert f"{too_long}_labels.png" in contents(tmp_path / "labels")


@pytest.mark.parametrize("above", [False, True])
def test_results_among_the_images_are_known_and_replaced(workdir, images, tmp_path, caplog, above):
    """The user's own image is segmented, though it has a result's name."""
    caplog.set_level("INFO")
    (images / "wide.jpg").rename(images / "wide_labels.png")
    output, folder = (tmp_path, "in/") if above else (images, "")
    for save in ("labels,overlay", ",".join(predict.OUTPUTS), "labels,overlay,panel"):
        run(workdir, images, output, "--save", save)
        before = contents(output)
        assert "Segmented 3 image(s)" in caplog.text
        caplog.clear()
    run(workdir, [images / "sub", *images.glob("*.png")], output, "--save", "labels")
    assert "Segmented 3 image(s)" in caplog.text
    names = {"a", "wide_labels", "sub/alpha"}
    suffixes = {f"_{what}.png" for what in ("labels", "overlay", "panel")}
    expected = {f"{name}{suffix}" for name in names for suffix in suffixes}
    found = {name for name in before if ".npz" not in name}
    inputs_there = {f"{folder}{name}.png" for name in names}
    assert found == expected | (inputs_there if above else {f"{name}.png" for name in names})


@pytest.mark.parametrize(
    ("name", "save"),
    [("a_labels.png", "labels"), ("a.npz", "npz"), ("sub/alpha_panel.png", "panel")],
)
@pytest.mark.parametrize("into", ["in", "out"])
def test_what_predict_did_not_write_is_never_replaced(workdir, images, tmp_path, name, save, into):
    own = tmp_path / into / name
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_bytes((images / "a.png").read_bytes())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=rf"--output: .*{name} cannot be replaced: predict did not"):
        run(workdir, images, tmp_path / into, "--save", f"overlay,{save}")
    assert sorted(tmp_path.rglob("*")) == before
    # Where another result is asked for, it is no obstacle.
    run(workdir, images, tmp_path / into, "--save", "overlay")
    assert own.read_bytes() == (images / "a.png").read_bytes()
    more = ("--save", save, "--overwrite")
    if into == "in" and own.suffix == ".png":  # it is itself an input
        with pytest.raises(UserError, match=rf"{name} cannot be replaced: it is to be segmented"):
            run(workdir, images, tmp_path / into, *more)
        assert own.read_bytes() == (images / "a.png").read_bytes()
    else:
        run(workdir, images, tmp_path / into, *more)
        assert own.read_bytes() != (images / "a.png").read_bytes()


def test_file_that_comes_while_images_are_segmented_is_not_replaced(
    workdir, images, tmp_path, monkeypatch, caplog
):
    encode = results.visualize.encode_labels

    def interrupted(labels):
        (tmp_path / "out" / "a_labels.png").write_text("mine")
        return encode(labels)

    monkeypatch.setattr(results.visualize, "encode_labels", interrupted)
    with pytest.raises(UserError, match=r"^1 file\(s\) could not get all their results written"):
        run(workdir, images / "a.png", tmp_path / "out")
    assert "There is a file that predict did not write" in caplog.text
    assert (tmp_path / "out" / "a_labels.png").read_text() == "mine"


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


def test_full_disk_is_one_error(workdir, images, tmp_path, monkeypatch):
    def full(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(results, "write_atomically", full)
    with pytest.raises(UserError, match=r"out cannot be written \(No space left.*\)\. Make room"):
        run(workdir, images, tmp_path / "out")
    assert not contents(tmp_path / "out")


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error", "x"), ValueError("x")])
def test_other_errors_of_writing_cost_one_image(
    workdir, images, tmp_path, monkeypatch, caplog, error
):
    write = results.write_atomically

    def fail(path, content):
        if path.name.startswith("a_"):
            raise error
        write(path, content)

    monkeypatch.setattr(results, "write_atomically", fail)
    with pytest.raises(UserError, match=r"^1 file\(s\) could not get all their results written"):
        run(workdir, images, tmp_path / "out")
    assert "a.png is not all written: " in caplog.text
    assert len(contents(tmp_path / "out")) == 4


def test_folder_where_a_result_goes_is_named(workdir, images, tmp_path, caplog):
    (tmp_path / "out" / "a_labels.png").mkdir(parents=True)
    with pytest.raises(UserError, match="could not get all their results written"):
        run(workdir, images, tmp_path / "out", "--overwrite")
    assert f"Is a directory ({tmp_path / 'out' / 'a_labels.png'})" in caplog.text


def test_output_that_is_no_folder_is_explained(workdir, images, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match=r"--output: .*out cannot be written \(File exists\)\. N"):
        run(workdir, images, tmp_path / "out")


class _Deadly(inputs.Cropping):
    def read(self, file):
        os._exit(1)


def test_dead_worker_is_an_error_that_says_what_to_do(images):
    declaration = datasets.get("tetrominoes").declare(datasets.get("tetrominoes").default_config())
    files = [file for file in inputs.find([images]) if isinstance(file, inputs.File)]
    found = inputs.read(files, _Deadly("data", declaration, (35, 35)), num_workers=1)
    with pytest.raises(DataError, match=r"worker process died .*memory.*: --num-workers 0 reads"):
        list(found)


def test_progress_is_logged_where_there_is_no_terminal(
    workdir, images, tmp_path, caplog, monkeypatch
):
    caplog.set_level("INFO")
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    run(workdir, images, tmp_path / "out")
    assert "2 of 3 images, " in caplog.text
    assert "images/s, 00:00 left." in caplog.text
    assert "Segmented 3 image(s)" in caplog.text


def _results(count, size=(8, 8)):
    """Results of images that need not exist as long as no overlay is drawn."""
    labels = np.ones((4, 4), np.uint8)
    found = segmenter.Segmented(labels, np.ones((1, 4, 4), np.float32), {}, {}, None)
    crop = (0, size[0], 0, size[1])
    for i in itertools.count() if count is None else range(count):
        file = inputs.File(str(i), Path(f"{i}.png"))
        yield inputs.Input(file, size, crop, np.zeros((4, 4, 3), np.uint8)), found


def test_few_results_wait_for_slow_writing(tmp_path):
    taken = itertools.count()
    endless = ((next(taken) and result) or result for result in _results(None))
    write = results.Writer(tmp_path, {"labels"}, {}, num_threads=2)
    for number, file in enumerate(itertools.islice(write(endless), 50)):
        assert file.name == str(number)
    assert next(taken) <= 50 + 2 + 4 * 2


def test_large_images_are_written_one_after_another(tmp_path, monkeypatch):
    now, most = [], []
    encode = results.visualize.encode_labels

    def slow(labels):
        now.append(labels)
        most.append(len(now))
        time.sleep(0.02)
        now.pop()
        return encode(labels)

    monkeypatch.setattr(results.visualize, "encode_labels", slow)
    monkeypatch.setattr(results, "_PIXELS_PER_THREAD", 100)
    for size, together in (((8, 12), 4), ((16, 20), 1), ((50, 50), 1)):
        list(results.Writer(tmp_path, {"labels"}, {}, num_threads=4)(_results(12, size)))
        assert max(most) == together
        most.clear()
    assert threading.active_count() < 20


@pytest.mark.slow
def test_ctrl_c_ends_cleanly(workdir, many, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(300):
        os.symlink(many / f"{i % 70:02}.png", tmp_path / "in" / f"{i}.png")
    command = [sys.executable, "-m", "objdisc_jax.predict", "--workdir", workdir, *ALL]
    command += ["--input", tmp_path / "in", "--output", tmp_path / "out", "--num-workers", "1"]
    process = subprocess.Popen(
        [str(part) for part in command], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(tmp_path.glob("out/*.npz")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.endswith("interrupted\n")
    written = list((tmp_path / "out").iterdir())
    assert not [file for file in written if file.name.startswith(".")]
    for file in written:
        if file.suffix == ".png":
            Image.open(file).load()


@pytest.mark.parametrize(
    ("size", "crop"),
    [((240, 320), (29, 221, 64, 256)), ((480, 640), (58, 442, 128, 512)), ((64, 64), (0, 64) * 2)],
)
def test_crop_of_the_data_scales_with_the_image(tmp_path, size, crop):
    config = datasets.get("clevr_with_masks").default_config()
    declaration = datasets.get("clevr_with_masks").declare(config)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / "image.png")
    given = inputs.Cropping("data", declaration, (48, 48)).read(
        inputs.File("image", tmp_path / "image.png")
    )
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
        *("--background", "low_confidence", "--threshold", 1.0, "--crop", "5,35,0,30", *ALL),
    )
    assert not labels(tmp_path / "spread" / "a_labels.png").any()
    with np.load(tmp_path / "spread" / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["crop"], [5, 35, 0, 30])
    run(workdir, images / "wide.jpg", tmp_path / "whole", "--crop", "none", *ALL)
    with np.load(tmp_path / "whole" / "wide.npz") as arrays:
        np.testing.assert_array_equal(arrays["crop"], [0, 70, 0, 120])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--crop", "1,2,3"), r"--crop: got '1,2,3'; allowed are"),
        (("--crop", "9,2,0,5"), r"crop: got \(9, 2, 0, 5\).* 0 <= top < bottom"),
        (("--threshold", "7"), r"--threshold: got 7\.0"),
        (("--batch-size", "0"), r"--batch-size: got 0"),
        (("--step", "worst"), r"no checkpoint 'worst'"),
        (("--matte", "1,2"), r"--matte: got '1,2'; it is red, green and blue, from 0 to 255"),
        (("--matte", "1,2,256"), r"--matte: got '1,2,256'"),
        (
            ("--save", "labels,masks"),
            r"--save: got 'masks'.*; allowed are labels, overlay, pan",
        ),
        (("--process-index", 2, "--process-count", 2), r"--process-index: got 2 .*from 0 to 1"),
    ],
)
def test_wrong_arguments_are_explained(workdir, images, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        run(workdir, images, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


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


def test_images_of_one_name_and_two_kinds_both_get_results(workdir, images, tmp_path):
    Image.open(images / "a.png").save(images / "a.bmp")
    run(workdir, images, tmp_path / "out")
    assert (tmp_path / "out" / "a_labels.png").is_file()
    assert (tmp_path / "out" / "a.png_labels.png").is_file()


@pytest.fixture(scope="module")
def spectral(tmp_path_factory, tetrominoes_file):
    """A run of a model on features of patches, which were stored for its training, and these."""
    folder = tmp_path_factory.mktemp("spectral")
    config = small_config("spectral")
    config.data.update(path=str(tetrominoes_file), num_workers=0)
    config.data.features = str(folder / "features.h5")
    config.model.update(weights=str(write_tiny(folder / "tiny.safetensors")), cached=True)
    config.update(batch_size=8, num_train_steps=1)
    features.write(config)
    loop.train(config, folder / "run")
    return folder


def test_photographs_are_seen_whole_and_divided_smoothly(spectral, tmp_path):
    image = np.zeros((300, 480, 3), np.uint8)
    image[90:210, 160:] = (255, 200, 0)
    Image.fromarray(image).save(tmp_path / "wide.png")
    more = ("--save", "labels,npz", "--background", "none")
    run(spectral / "run", tmp_path / "wide.png", tmp_path / "out", *more)
    found = labels(tmp_path / "out" / "wide_labels.png")
    assert found.shape == (300, 480)
    stored = np.load(tmp_path / "out" / "wide.npz")
    assert stored["crop"].tolist() == [0, 300, 0, 480]
    expected = segmentation.segment_enlarged(stored["masks"], (300, 480))
    np.testing.assert_array_equal(found, expected)
    # 24 pixels to 480: the borders of copied pixels would all lie at multiples of 20.
    borders = np.flatnonzero((found[:, 1:] != found[:, :-1]).any(0)) + 1
    assert len(borders)
    assert (borders % 20).any()


def test_number_of_slots_may_be_another_than_in_training(spectral, workdir, images, tmp_path):
    for run_directory, most in ((spectral / "run", 3), (workdir, 3)):
        for asked in (None, 2):
            more = () if asked is None else ("--num-slots", asked)
            output = tmp_path / f"{most}{asked}{run_directory.name}"
            run(run_directory, images, output, "--save", "npz", *more)
            assert len(np.load(output / "a.npz")["masks"]) == (asked or most)


def test_slots_that_were_learned_stay_as_many(images, tetrominoes_file, tmp_path):
    config = tiny_experiment(tetrominoes_file)
    config.model.gradient = "bo_qsa"
    loop.train(changed(config, num_train_steps=1), tmp_path / "run")
    with pytest.raises(UserError, match=r"do not fit (?s:.)*slots_init"):
        run(tmp_path / "run", images, tmp_path / "out", "--num-slots", 2)


def test_models_without_slots_or_backbone_refuse_the_options(images, tetrominoes_file, tmp_path):
    config = small_config("gnm")
    config.data.update(path=str(tetrominoes_file), num_workers=0)
    config.update(batch_size=8, num_train_steps=1)
    loop.train(config, tmp_path / "run")
    for flag, value in (("--num-slots", 2), ("--backbone", "file")):
        with pytest.raises(UserError, match=r"the model 'gnm' has no setting"):
            run(tmp_path / "run", images, tmp_path / "out", flag, value)


def test_backbone_may_have_moved_but_must_be_the_same(spectral, images, tmp_path):
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes((spectral / "tiny.safetensors").read_bytes())
    (spectral / "tiny.safetensors").rename(spectral / "gone.safetensors")
    try:
        with pytest.raises(UserError, match=r"tiny\.safetensors, but there is no such file"):
            run(spectral / "run", images, tmp_path / "out")
        run(spectral / "run", images, tmp_path / "out", "--backbone", moved)
        write_tiny(moved, gain=1.0)
        with pytest.raises(UserError, match=r"is not the one that the run"):
            run(spectral / "run", images, tmp_path / "out", "--backbone", moved)
    finally:
        (spectral / "gone.safetensors").rename(spectral / "tiny.safetensors")
    assert len(list((tmp_path / "out").glob("*_labels.png"))) == 2
