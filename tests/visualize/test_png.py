import numpy as np
import pytest
from PIL import Image

from objdisc_jax.visualize import colorize, images, png, save_labels, save_png
from tests import typechecker


def test_image_comes_back_equal(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    save_png(tmp_path / "new" / "folder" / "a.png", image)
    with Image.open(tmp_path / "new" / "folder" / "a.png") as written:
        np.testing.assert_array_equal(written, image)


@pytest.mark.parametrize("with_isal", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 400), (301, 257)])
def test_image_comes_back_equal_with_and_without_isal(tmp_path, monkeypatch, size, with_isal):
    if with_isal:
        pytest.importorskip("isal")
    else:
        monkeypatch.setattr(png, "isal_zlib", None)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    image[:, ::2] //= 64
    save_png(tmp_path / "a.png", image)
    with Image.open(tmp_path / "a.png") as written:
        assert written.mode == "RGB"
        np.testing.assert_array_equal(written, image)


def test_images_are_compressed(tmp_path):
    save_png(tmp_path / "a.png", np.full((512, 512, 3), 77, np.uint8))
    save_labels(tmp_path / "b.png", np.eye(512, dtype=np.uint8))
    assert all(file.stat().st_size < 20_000 for file in tmp_path.iterdir())


def test_labels_come_back_equal_and_are_seen_in_their_colours(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    save_labels(tmp_path / "a.png", labels)
    with Image.open(tmp_path / "a.png") as written:
        np.testing.assert_array_equal(written, labels)
        np.testing.assert_array_equal(written.convert("RGB"), colorize(labels))


def test_failed_write_leaves_the_old_image(tmp_path, monkeypatch):
    image = np.zeros((4, 4, 3), np.uint8)
    save_png(tmp_path / "a.png", image)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(images.Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_png(tmp_path / "a.png", image + 1)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    with Image.open(tmp_path / "a.png") as written:
        np.testing.assert_array_equal(written, image)


@typechecker.off()
def test_wrong_arrays_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"image: got float64 \(4, 4, 3\)"):
        save_png(tmp_path / "a.png", np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match=r"labels: got uint8 \(1, 4, 4\)"):
        save_labels(tmp_path / "a.png", np.zeros((1, 4, 4), np.uint8))
