import json
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from objdisc_jax.visualize import plot_curves
from objdisc_jax.visualize.curves import _curve, read_metrics


def draw(tmp_path, lines):
    """The image of some metrics, as an array."""
    metrics, output = tmp_path / "metrics.jsonl", tmp_path / "images" / "curves.png"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plot_curves(metrics, output)
    with Image.open(output) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count(image, color):
    return (abs(image - color).sum(-1) < 8).sum()


BLUE, ORANGE = (0x2C, 0x51, 0xC6), (0xD9, 0x5F, 0x20)


def training(num_lines):
    return [{"step": n, "seconds": n / 9, "train/loss": 2.0 / (n + 1)} for n in range(num_lines)]


def test_both_curves_are_drawn(tmp_path):
    validation = [
        {"step": n, "seconds": n / 9, "val/loss": 0.3, "val/fg_ari": n / 90} for n in (0, 40, 80)
    ]
    image = draw(tmp_path, training(90) + validation)
    assert image.shape[0] > 600
    assert image.shape[1] > 1000
    top, bottom = np.array_split(image, 2)
    assert count(top, BLUE) > 300
    assert count(top, ORANGE) > 300
    assert count(bottom, ORANGE) > 300
    assert count(bottom, BLUE) == 0


@pytest.mark.parametrize(
    "lines",
    [
        [],
        training(1),
        [{"step": 5, "seconds": 1.0, "throughput": 3}],
        [{"step": n, "seconds": n, "train/loss": -n} for n in range(5)],
        [{"step": 0, "seconds": 0, "train/loss": float("nan"), "val/fg_ari": None}],
        [{"step": n, "seconds": 9000 * n, "val/fg_ari": 0.5} for n in range(3)],
    ],
    ids=["empty", "one point", "other keys", "negative loss", "not finite", "hours"],
)
def test_sparse_metrics_are_drawn(tmp_path, lines):
    assert draw(tmp_path, lines).shape[2] == 3


def test_later_line_of_a_step_counts_and_unfinished_last_line_is_left_out(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 10, "seconds": 1.0, "train/loss": 1.0},
        {"step": 20, "seconds": 2.0, "train/loss": 0.5},
        {"step": 20, "seconds": 2.1, "val/fg_ari": 0.5},
        {"step": 10, "seconds": 3.0, "train/loss": 0.9},
    ]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 30, "sec')
    curve = _curve(read_metrics(metrics), "train/loss")
    np.testing.assert_array_equal(curve, [[10, 3, 0.9], [20, 2, 0.5]])


def test_broken_line_is_an_error(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1, "seconds": 1}\n{"step": 2}\n{"step": 3, "seconds": 3}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*Remove the line"):
        plot_curves(metrics, tmp_path / "curves.png")


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"metrics_file: there is no .*metrics\.jsonl"):
        plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")


def test_plotting_does_not_touch_pyplot():
    program = "import sys, objdisc_jax.visualize; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(("sign", "scale"), [(1, "log"), (-1, "linear")])
def test_loss_has_a_logarithmic_axis_where_it_is_positive(tmp_path, monkeypatch, sign, scale):
    scales, save = [], Figure.savefig

    def spy(figure, *arguments, **settings):
        scales.extend(axis.get_yscale() for axis in figure.axes)
        return save(figure, *arguments, **settings)

    monkeypatch.setattr(Figure, "savefig", spy)
    ari = [{"step": n, "seconds": n / 9, "val/fg_ari": 0.5} for n in (1, 2)]
    draw(tmp_path, [line | {"train/loss": sign * line["train/loss"]} for line in training(9)] + ari)
    assert scales == [scale, scale, "linear", "linear"]  # the loss above, FG-ARI below
