"""What predict writes of images, whatever their number, the batch size and the processes."""

import numpy as np
import pytest
import torch
from PIL import Image

from objdisc_jax import config as configs
from objdisc_jax import convert, interop, progress
from objdisc_jax.evaluation import visualization
from objdisc_jax.prediction import results
from tests.conftest import small_config
from tests.prediction.running import ALL, contents, differences, labels, run


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


def test_progress_is_logged_where_there_is_no_terminal(
    workdir, images, tmp_path, caplog, monkeypatch
):
    caplog.set_level("INFO")
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    run(workdir, images, tmp_path / "out")
    assert "2 of 3 images, " in caplog.text
    assert "images/s, 00:00 left." in caplog.text
    assert "Segmented 3 image(s)" in caplog.text


def test_images_of_one_name_and_two_kinds_both_get_results(workdir, images, tmp_path):
    Image.open(images / "a.png").save(images / "a.bmp")
    run(workdir, images, tmp_path / "out")
    assert (tmp_path / "out" / "a_labels.png").is_file()
    assert (tmp_path / "out" / "a.png_labels.png").is_file()
