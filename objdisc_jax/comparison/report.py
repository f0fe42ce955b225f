"""Groups of runs as a table on the console, a CSV file, and a page of HTML that stands alone."""

import base64
import csv
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from objdisc_jax import visualize
from objdisc_jax.comparison.runs import Group, Run, differences
from objdisc_jax.files import write_atomically

_COLUMNS = ("runs", "seeds", "steps", "time per run", "hardware")
_CURVES = ("val/fg_ari", "val/ari", "val/loss", "train/loss")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem;
  color: #1d1d22; background: #fff }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .8rem; text-align: left; border-bottom: 1px solid #e3e3e8;
  white-space: nowrap }
th { color: #5c5c66; font-weight: 600 }
.remark { color: #b3261e }
figure { margin: 0 0 1.5rem } figcaption { color: #5c5c66; margin-bottom: .3rem }
.panels { display: flex; gap: 1.5rem; overflow-x: auto } .panels img { max-width: 36rem }
svg { max-width: 100%; height: auto }
"""


def table(groups: Sequence[Group], metrics: Sequence[str]) -> str:
    """The groups, a line each, and a line for each run that does not count."""
    rows = [["", *_COLUMNS, *metrics], *(_row(group, metrics) for group in groups)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *_remarks(groups)])


def write_csv(file: Path, groups: Iterable[Group], metrics: Sequence[str]) -> None:
    """Writes a line for every run.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "run", "seed", "step", "seconds", "hardware", "problem", *metrics])
    for group in groups:
        for run in group.runs:
            told = [group.name, run.folder, run.config.seed, run.step, round(run.seconds, 1)]
            scores = [run.scores.get(metric, "") for metric in metrics]
            writer.writerow([*told, run.hardware, run.problem or "", *scores])
    write_atomically(file, text.getvalue())


def write_html(
    file: Path, groups: Sequence[Group], metrics: Sequence[str], split: str, panels_of: int = 3
) -> None:
    """Writes a page with everything in it: scores, differing settings, curves, panels.

    Args:
        file: the page.
        groups: what it tells of.
        metrics: the scores shown.
        split: that they are of.
        panels_of: how many runs of each group have their panel shown.

    Raises:
        OSError: the file cannot be written.
    """
    curves = {group.name: [run.records for run in group.runs] for group in groups}
    logged = {key for group in groups for run in group.runs for line in run.records for key in line}
    keys = [key for key in _CURVES if key in logged]
    settings = differences(groups)
    parts = [
        f"<h1>Comparison of {sum(len(group.runs) for group in groups)} runs</h1>",
        f"<p>Scores of the split “{html.escape(split)}”: mean ± standard deviation over the runs "
        "that differ in the seed alone.</p>",
        _table(["", *_COLUMNS, *metrics], [_row(group, metrics) for group in groups]),
        *(f'<p class="remark">{html.escape(remark)}</p>' for remark in _remarks(groups)),
        "<h2>Runs</h2>",
        _table(
            ["run", "seed", *metrics],
            [
                [str(run.folder), str(run.config.seed), *_scores(run, metrics)]
                for group in groups
                for run in group.runs
            ],
        ),
    ]
    if settings:
        header = ["setting", *(group.name for group in groups)]
        rows = [[key, *map(str, values)] for key, values in settings.items()]
        parts += ["<h2>Settings that differ</h2>", _table(header, rows)]
    if keys:
        image = visualize.overlay_curves(curves, keys).decode()
        parts += ["<h2>Curves</h2>", image[image.index("<svg") :]]
    shown = [(group, run) for group in groups for run in group.runs[:panels_of] if run.panel]
    if shown:
        figures = [
            _figure(run, f"{group.name}, seed {run.config.seed}")
            for group, run in tqdm(shown, unit=" panels", disable=None)
        ]
        parts += ["<h2>Images</h2>", f'<div class="panels">{"".join(figures)}</div>']
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1"><title>Comparison of runs</title>'
        f"<style>{_STYLE}</style></head><body>"
    )
    write_atomically(file, "\n".join([head, *parts, "</body></html>\n"]))


def _row(group: Group, metrics: Sequence[str]) -> list[str]:
    """The cells of a group."""
    counted, runs = group.counted, group.runs
    times = [run.seconds for run in counted or runs]
    steps = sorted({run.step for run in counted or runs})
    number = str(len(runs)) if len(counted) == len(runs) else f"{len(counted)} of {len(runs)}"
    return [
        group.name,
        number,
        ", ".join(str(run.config.seed) for run in runs),
        ", ".join(f"{step:,}" for step in steps),
        tqdm.format_interval(sum(times) / len(times)),
        group.hardware,
        *(str(group.summary(metric) or "-") for metric in metrics),
    ]


def _scores(run: Run, metrics: Sequence[str]) -> list[str]:
    return [f"{run.scores[metric]:.4f}" if metric in run.scores else "-" for metric in metrics]


def _remarks(groups: Iterable[Group]) -> list[str]:
    """Runs that do not count, and those that were scored otherwise than they were trained."""
    remarks = []
    for run in (run for group in groups for run in group.runs):
        if run.problem is not None:
            remarks.append(f"{run.folder} does not count: {run.problem}.")
        if run.scored_with:
            changes = ", ".join(f"{key} {change}" for key, change in run.scored_with.items())
            remarks.append(f"{run.folder} was scored with other settings: {changes}.")
    return remarks


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>{line(header, "th")}{body}</table></div>'


def _figure(run: Run, caption: str) -> str:
    """A run's panel with its caption, the image inside the page."""
    assert run.panel is not None
    content = io.BytesIO()
    with Image.open(run.panel) as image:
        image.convert("RGB").save(content, "WEBP", quality=85)
    encoded = base64.b64encode(content.getvalue()).decode()
    text = html.escape(caption)
    return (
        f'<figure><figcaption>{text}</figcaption><img alt="Images of {text}" loading="lazy" '
        f'src="data:image/webp;base64,{encoded}"></figure>'
    )
