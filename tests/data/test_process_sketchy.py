"""Raw Sketchy episodes, and the images made of them."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from objdisc_jax.data import sketchy_episodes
from objdisc_jax.data.errors import DataError
from tests.data import tfrecords

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "process_sketchy.py"
SQUARES = ("full", "c0", "c1", "c2", "c3", "c4", "c5")


def _jpeg(columns=960, rows=600, seed=0):
    """A smooth random image."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(small).resize((columns, rows)).save(encoded, "JPEG")
    return encoded.getvalue()


LEFT, RIGHT = _jpeg(seed=1), _jpeg(seed=2)


def _step(left=LEFT, right=RIGHT):
    features = {"reward": np.ones(1, np.float32)}
    for key, frame in (("left", left), ("right", right)):
        if frame is not None:
            features[f"pixels/basket_front_{key}"] = [frame]
    return tfrecords.example(features)


def _write(file, *steps):
    file.parent.mkdir(parents=True, exist_ok=True)
    tfrecords.write(file, steps)


def _run(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def _folders(output):
    return sorted(path.relative_to(output).as_posix() for path in output.glob("*/*"))


def test_first_tenths_are_for_validation_and_test(tmp_path):
    names = [f"{'b' if i % 2 else 'a'}/{i:02d}.tfrecord{'s' if i % 3 else ''}" for i in range(29)]
    for name in (*names, "a/.hidden.tfrecord", "a/README", "a/30.tfrecord.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names.sort()
    episodes = sketchy_episodes.plan(tmp_path)
    assert [episode.source for episode in episodes] == names[4:] + names[:4]
    assert [episode.folder for episode in episodes] == [
        *(f"train/ep{i:06d}" for i in range(25)),
        *(f"valid/ep{i:06d}" for i in range(25, 27)),
        *(f"test/ep{i:06d}" for i in range(27, 29)),
    ]


def test_few_episodes_are_for_training(tmp_path):
    for i in range(9):
        (tmp_path / f"{i}.tfrecords").touch()
    assert {episode.folder[:5] for episode in sketchy_episodes.plan(tmp_path)} == {"train"}


@pytest.mark.parametrize(
    ("folder", "found"), [("there", "there is none"), ("missing", "no such folder")]
)
def test_folder_without_episodes_is_an_error(tmp_path, folder, found):
    (tmp_path / "there").mkdir()
    with pytest.raises(DataError, match=found):
        sketchy_episodes.plan(tmp_path / folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The folder of an episode with two time steps; in the second the views are swapped."""
    root = tmp_path_factory.mktemp("sketchy")
    _write(root / "raw.tfrecords", _step(), _step(left=RIGHT, right=LEFT))
    sketchy_episodes.process(root / "raw.tfrecords", root / "train" / "ep000012")
    assert [*(root / "train").iterdir()] == [root / "train" / "ep000012"]
    return root / "train" / "ep000012"


def test_each_time_step_has_fourteen_images(images):
    assert {path.name for path in images.iterdir()} == {
        f"ep000012_t{step:03d}_{view}_{square}.png"
        for step in range(2)
        for view in ("fl", "fr")
        for square in SQUARES
    }


@pytest.mark.parametrize(("view", "top"), [("fl", 71), ("fr", 91)])
@pytest.mark.parametrize(
    ("square", "row", "column", "edge"),
    [
        ("full", 0, 112, 448),
        ("c0", 0, 0, 352),
        ("c1", 0, 160, 352),
        ("c2", 0, 320, 352),
        ("c3", 96, 0, 352),
        ("c4", 96, 160, 352),
        ("c5", 96, 320, 352),
    ],
)
def test_images_are_the_published_crops(images, view, top, square, row, column, edge):
    for step, jpeg in enumerate([LEFT, RIGHT] if view == "fl" else [RIGHT, LEFT]):
        frame = np.asarray(Image.open(io.BytesIO(jpeg)))
        cut = frame[top + row : top + row + edge, 144 + column : 144 + column + edge]
        expected = Image.fromarray(cut).resize((128, 128), Image.Resampling.BILINEAR)
        written = Image.open(images / f"ep000012_t00{step}_{view}_{square}.png")
        assert written.mode == "RGB"
        np.testing.assert_array_equal(written, expected)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "is empty"),
        ([_step(), _step(right=None)], "step 1: .*'pixels/basket_front_right'.*reward"),
        ([_step(left=_jpeg(columns=640))], r"\(640, 600\) columns and rows"),
        ([_step(left=LEFT[:5000])], "cannot be decoded"),
        ([b"nonsense"], "raw.tfrecords, time step 0: "),
    ],
)
def test_odd_episodes_are_errors_that_leave_nothing_behind(tmp_path, steps, message):
    _write(tmp_path / "raw.tfrecords", *steps)
    with pytest.raises(DataError, match=message):
        sketchy_episodes.process(tmp_path / "raw.tfrecords", tmp_path / "train" / "ep000000")
    assert not [*(tmp_path / "train").iterdir()]


def test_folder_that_cannot_be_written_is_an_error(tmp_path):
    _write(tmp_path / "raw.tfrecords", _step())
    (tmp_path / "train").touch()
    with pytest.raises(DataError, match="could not be written"):
        sketchy_episodes.process(tmp_path / "raw.tfrecords", tmp_path / "train" / "ep000000")


@pytest.fixture
def raw(tmp_path):
    """Ten episodes, one time step each."""
    for i in range(10):
        _write(tmp_path / "raw" / f"{i}.tfrecords", _step())
    return tmp_path / "raw"


def test_script_goes_on_with_what_is_missing(raw, tmp_path):
    output = tmp_path / "new folder" / "processed"
    whole = (raw / "5.tfrecords").read_bytes()
    (raw / "5.tfrecords").write_bytes(whole[:-100])
    expected = sorted([f"train/ep{i:06d}" for i in range(8)] + ["valid/ep000008", "test/ep000009"])

    failed = _run("--input", raw, "--output", output, "--workers", 2)
    assert failed.returncode == 1
    assert "error: 1 of 10 episodes could not be processed" in failed.stderr
    assert str(raw / "5.tfrecords") in failed.stderr
    assert "Traceback" not in failed.stderr
    assert _folders(output) == [name for name in expected if name != "train/ep000003"]

    (raw / "5.tfrecords").write_bytes(whole)
    kept = output / "train" / "ep000000"
    before = kept.stat().st_mtime_ns
    (output / "train" / ".ep000003.partial").mkdir()
    ended = _run("--input", raw, "--output", output, "--workers", 1)
    assert ended.returncode == 0, ended.stderr
    assert "10 episodes: 8 train, 1 valid, 1 test" in ended.stdout
    assert _folders(output) == expected
    assert kept.stat().st_mtime_ns == before
    assert (output / "episodes.txt").read_text().splitlines()[8:] == [
        "valid/ep000008 0.tfrecords",
        "test/ep000009 1.tfrecords",
    ]


@pytest.mark.parametrize("change", ["another episode", "images of unknown origin"])
def test_output_of_other_episodes_is_an_error(raw, tmp_path, change):
    output = tmp_path / "processed"
    if change == "another episode":
        output.mkdir()
        (output / "episodes.txt").write_text("train/ep000000 0.tfrecords\n")
    else:
        (output / "train").mkdir(parents=True)
    before = [*output.rglob("*")]
    ended = _run("--input", raw, "--output", output)
    assert ended.returncode == 1
    assert "images of other episodes" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [*output.rglob("*")] == before


def test_output_that_cannot_be_written_is_an_error(raw, tmp_path):
    (tmp_path / "file").touch()
    ended = _run("--input", raw, "--output", tmp_path / "file")
    assert ended.returncode == 1
    assert "could not be written" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_number_of_workers_must_be_positive(raw):
    ended = _run("--input", raw, "--workers", 0)
    assert ended.returncode == 2
    assert "at least 1" in ended.stderr
