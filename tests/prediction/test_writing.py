"""Where results go: what is never replaced, what cannot be written, and when."""

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
from PIL import Image

from objdisc_jax import predict
from objdisc_jax.data import inputs
from objdisc_jax.errors import UserError
from objdisc_jax.prediction import results, segmenter
from tests.prediction.running import ALL, contents, run


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
    for i in range(1000):  # none is the last before the signal comes
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
    _, errors = process.communicate(timeout=300)  # what is being compiled is ended first
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.endswith("interrupted\n")
    written = list((tmp_path / "out").iterdir())
    assert not [file for file in written if file.name.startswith(".")]
    for file in written:
        if file.suffix == ".png":
            Image.open(file).load()
