"""Training curves from a run's metrics.jsonl: loss and FG-ARI over steps and wall-clock time."""

import io
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.ndimage import median_filter

from objdisc_jax.files import write_atomically

PLOTS = {
    "loss": {"training": "train/loss", "validation": "val/loss"},
    "FG-ARI": {"training": "train/fg_ari", "validation": "val/fg_ari"},
}
COLORS = {"training": "#2c51c6", "validation": "#d95f20"}
TIME_UNITS = {"seconds": 1, "minutes": 60, "hours": 3600}
SMOOTHED_FROM = 60
"""Curves of so many points or more are drawn faintly, under their running median."""


def plot_curves(metrics_file: str | os.PathLike[str], output_png: str | os.PathLike[str]) -> None:
    """Draws loss (logarithmic where it is positive) and FG-ARI over steps and over time.

    A quantity the run hasn't logged leaves its plot empty, with a word that says so. Values that
    aren't finite are left out, and so is a last line that a killed run left incomplete. Where a
    resumed run logged a step again, the later line counts.

    Args:
        metrics_file: JSON lines, each with `step`, `seconds` since the start of training, and any
            of `train/loss`, `val/loss`, `train/fg_ari`, `val/fg_ari`.
        output_png: image to write or replace.

    Raises:
        ValueError: if the metrics file is missing, or a line other than the last is broken.
    """
    records = read_metrics(Path(metrics_file))
    figure = Figure(figsize=(10, 6.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(PLOTS), 2, sharex="col", sharey="row")
    unit = _time_unit(records)
    for (over_steps, over_time), (title, keys) in zip(axes, PLOTS.items(), strict=True):
        curves = {label: _curve(records, key) for label, key in keys.items()}
        curves = {label: curve for label, curve in curves.items() if len(curve)}
        for label, (steps, seconds, values) in ((k, c.T) for k, c in curves.items()):
            _draw(over_steps, steps, values, label)
            _draw(over_time, seconds / TIME_UNITS[unit], values, label)
        over_steps.set_ylabel(title)
        if curves and min(curve[:, 2].min() for curve in curves.values()) > 0 and title == "loss":
            over_steps.set_yscale("log")
    for row, title in zip(axes, PLOTS, strict=True):
        for axis in row:  # losses fall and scores rise: where neither goes, the legend has room
            _dress(axis, legend="upper right" if title == "loss" else "lower right")
    axes[-1, 0].set_xlabel("step")
    axes[-1, 1].set_xlabel(f"wall clock ({unit})")
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_atomically(Path(output_png), image.getvalue())


def overlay_curves(
    runs: Mapping[str, Sequence[list[dict[str, Any]]]], keys: Sequence[str]
) -> bytes:
    """Draws quantities over steps, all runs of a name in one colour, as an SVG image.

    Args:
        runs: what `read_metrics` returned of each run, by name.
        keys: of the lines, as in "val/fg_ari".
    """
    figure = Figure(figsize=(9, 3.2 * len(keys)), layout="constrained")
    colors = matplotlib.color_sequences["tab10"]
    for axis, key in zip(np.atleast_1d(figure.subplots(len(keys))), keys, strict=True):
        for color, (name, several) in zip(itertools.cycle(colors), runs.items(), strict=False):
            curves = [_curve(records, key) for records in several]
            for label, curve in zip([name, *[None] * len(curves)], curves, strict=False):
                if len(curve):
                    axis.plot(curve[:, 0], curve[:, 2], color=color, label=label, alpha=0.8)
        axis.set_ylabel(key)
        axis.set_xlabel("step")
        _dress(axis, legend="upper right" if "loss" in key else "lower right")
    image = io.BytesIO()
    figure.savefig(image, format="svg")
    return image.getvalue()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, without an incomplete last one.

    Raises:
        ValueError: if the file is missing, or a line other than the last is broken.
    """
    if not path.is_file():
        raise ValueError(
            f"metrics_file: there is no {path}; a run writes metrics.jsonl into its workdir. "
            "Give the path of one."
        )
    lines, records = path.read_text().splitlines(), []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            records.append({key: record[key] for key in ("step", "seconds", *record)})
        except (ValueError, TypeError, KeyError):
            if number < len(lines):
                raise ValueError(
                    f"metrics_file: line {number} of {path} is no JSON object with 'step' and "
                    f"'seconds': {line[:80]!r}. Remove the line."
                ) from None
    return records


def _curve(records: list[dict[str, Any]], key: str) -> Float[np.ndarray, "n 3"]:
    """Step, seconds and value of every finite value logged under a key."""
    points = {
        record["step"]: (record["step"], record["seconds"], record[key])
        for record in records
        if record.get(key) is not None and math.isfinite(record[key])
    }
    return np.array([points[step] for step in sorted(points)], np.float64).reshape(-1, 3)


def _time_unit(records: list[dict[str, Any]]) -> str:
    """The largest unit in which the run took more than three."""
    duration = max((record["seconds"] for record in records), default=0)
    return [unit for unit, size in TIME_UNITS.items() if duration > 3 * size or size == 1][-1]


def _draw(axis: Axes, x: np.ndarray, values: np.ndarray, label: str) -> None:
    color = COLORS[label]
    if len(values) >= SMOOTHED_FROM:
        axis.plot(x, values, color=color, alpha=0.25, linewidth=0.8)
        window = max(5, len(values) // 40)
        axis.plot(x, median_filter(values, window, mode="nearest"), color=color, label=label)
    else:
        marker = "o" if len(values) <= 30 else ""
        axis.plot(x, values, color=color, marker=marker, markersize=3.5, label=label)


def _dress(axis: Axes, legend: Literal["upper right", "lower right"]) -> None:
    axis.locator_params(axis="x", nbins=6)
    axis.grid(True, color="#e3e3e8", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.lines:
        axis.legend(frameon=False, loc=legend)
    else:
        axis.text(0.5, 0.5, "not logged", transform=axis.transAxes, ha="center", color="#85858f")
