"""What a user sees of new data: facts of the splits, and images with their masks."""

import numpy as np
import pytest
from PIL import Image

from objdisc_jax.data import datasets, inspect, loader
from tests.conftest import tiny_experiment
from tests.test_cli import call


@pytest.fixture
def tetrominoes(tetrominoes_file):
    return tiny_experiment(tetrominoes_file)


def test_every_split_is_described(tetrominoes, tmp_path, capsys):
    inspect.inspect(tetrominoes, tmp_path / "in" / "sheet.png", seconds=0.1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines[2:5]] == [
        ["train", "64", "64", "35x35"],
        ["val", "48", "48", "35x35"],
        ["test", "48", "48", "35x35"],
    ]
    assert all("0..255" in line and "0..3" in line and "mean 3.0" in line for line in lines[2:5])
    assert float(lines[5].split()[1]) > 0
    with Image.open(tmp_path / "in" / "sheet.png") as sheet:
        assert sheet.width > 8 * 100


def test_filter_and_background_show(tmp_path):
    config = datasets.get("objects_room").default_config()
    config.update(path=str(tmp_path / "room.h5"), max_objects=2)
    example = datasets.get("objects_room").write_example(tmp_path / "room.h5", 40)
    dataset = loader.load(config, "train")
    line = inspect.describe(dataset).split()
    assert line[1:3] == [str(len(dataset)), str(len(example.splits["train"]))]
    assert int(line[1]) < int(line[2])
    visible = [len(np.setdiff1d(x, [0, 1, 2, 3])) for x in example.segmentation[dataset.indices]]
    assert f"mean {np.mean(visible):.1f}" in " ".join(line)


@pytest.mark.parametrize("num_images", [3, 21])
def test_sheet_shows_images_above_their_labels(tetrominoes, num_images):
    dataset = loader.load(tetrominoes.data, "train")
    few = loader.Dataset(
        dataset.declaration,
        "train",
        dataset.indices[:num_images],
        dataset.image_size,
        dataset.reader,
    )
    sheet = inspect.contact_sheet(few)
    rows = -(-num_images // 8)
    assert sheet.shape[0] >= rows * 2 * 105
    tile = few.read([0])["image"][0].repeat(3, axis=0).repeat(3, axis=1)
    found = np.lib.stride_tricks.sliding_window_view(sheet[:130, :200], tile.shape)
    assert (found == tile).all(axis=(-3, -2, -1)).any()


def test_unreadable_images_are_counted_and_left_out(tmp_path, capsys):
    config = tiny_experiment("unused").unlock()
    config.data = datasets.get("sketchy").default_config()
    config.data.update(path=str(tmp_path / "sketchy"), num_workers=0)
    datasets.get("sketchy").write_example(tmp_path / "sketchy", 60)
    for file in sorted((tmp_path / "sketchy" / "train").rglob("*.png"))[::2]:
        Image.new("RGB", (128, 128), (200, 200, 200)).save(file)
    for file in sorted((tmp_path / "sketchy" / "train").rglob("*.png"))[1::2]:
        file.write_bytes(file.read_bytes()[:300])
    inspect.inspect(config, tmp_path / "sheet.png", seconds=0.1)
    line = capsys.readouterr().out.splitlines()[2]
    assert "200..200" in line
    assert "25 of 50 looked at" in line
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 2 * 128


def test_other_splits_are_described_where_one_cannot_be_loaded(tmp_path, capsys):
    config = tiny_experiment("unused").unlock()
    config.data = datasets.get("clevr_v1").default_config()
    config.data.update(path=str(tmp_path / "clevr"), max_objects=9, num_workers=0)
    datasets.get("clevr_v1").write_example(tmp_path / "clevr", 12)
    inspect.inspect(config, tmp_path / "sheet.png", seconds=0.1)
    out = capsys.readouterr().out
    assert "test     There is no scene file" in out
    assert "288x288" in out


def test_command_line_errors_are_paragraphs(tmp_path):
    assert call("data.inspect") == (
        2,
        "error: Name an experiment, for example --config configs/demo.py\n",
    )
    status, out = call("data.inspect", "--config", "configs/demo.py", "--config.data.pth=x")
    assert status == 2
    assert "path" in out
    assert "Traceback" not in out
    missing = tmp_path / "none.h5"
    status, out = call(
        "data.inspect", "--config", "configs/demo.py", f"--config.data.path={missing}"
    )
    assert status == 1
    assert str(missing) in out
    assert "Traceback" not in out
