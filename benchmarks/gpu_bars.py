"""Which of the project's bars for an H100 or H200 the results of gpu.sh meet.

    python benchmarks/gpu_bars.py gpu_results

Reads `speed.csv`, `scenes.log` and the logs of training in that folder. Exits with 1 if a measured
bar is missed; what was not measured is said and counts neither way.
"""

import argparse
import csv
import datetime
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CHIPS = ("H100", "H200")


class Bar(NamedTuple):
    """A number that was measured, or None, and what it has to be."""

    name: str
    found: float | None
    limit: float | None  # None: measured for the record
    unit: str = ""
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Whether it is met."""
        if self.found is None:
            return "not measured"
        if self.limit is None:
            return ""
        met = self.found >= self.limit if self.at_least else self.found <= self.limit
        return "met" if met else "MISSED"


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="what gpu.sh wrote")
    folder: Path = parser.parse_args().folder
    chip, rows = measured(folder / "speed.csv")
    print(f"hardware: {chip or 'unknown, speed.csv has no rows'}")
    if not any(name in chip for name in CHIPS):
        print(f"The bars are for {' or '.join(CHIPS)}.")
    bars = list(all_bars(folder, rows))
    print(f"{'':<64}{'found':>10}{'bar':>12}")
    for bar in bars:
        found = "" if bar.found is None else f"{bar.found:.4g}"
        limit = "" if bar.limit is None else f"{'≥' if bar.at_least else '≤'} {bar.limit:g}"
        print(f"{bar.name:<64}{found:>10}{limit:>12} {bar.unit:<9}{bar.verdict}")
    return int(any(bar.verdict == "MISSED" for bar in bars))


def all_bars(folder: Path, rows: dict[tuple[str, ...], dict[str, str]]) -> Iterator[Bar]:
    """The bars, with what was found."""

    def step(model: str, side: str, precision: str, column: str = "step_ms") -> float | None:
        text = rows.get((model, side, precision), {}).get(column, "")
        return float(text) if text else None

    def ratio(model: str, precision: str, side: str) -> float | None:
        ours, theirs = step(model, "jax", precision), step(model, side, precision)
        return ours / theirs if ours and theirs else None

    sa = "slot_attention"
    yield Bar(
        "Slot Attention, bfloat16, of torch.compile's step",
        ratio(sa, "bfloat16", "torch-compile"),
        0.75,
    )
    yield Bar("Slot Attention, tf32, of PyTorch's step", ratio(sa, "tf32", "torch"), 1.0)
    yield Bar(
        "Slot Attention, tf32, peak memory", step(sa, "jax", "tf32", "peak_memory_gib"), 16, "GiB"
    )
    for precision in ("tf32", "bfloat16"):
        yield Bar(f"GNM, {precision}, of PyTorch's step", ratio("gnm", precision, "torch"), 0.3)
    for model in ("slate", "iodine"):
        for precision in ("tf32", "bfloat16"):
            for side in ("torch", "torch-compile"):
                yield Bar(
                    f"{model}, {precision}, of {side}'s step", ratio(model, precision, side), None
                )
    for log in sorted(folder.glob("train_*.log")):
        first, *later = seconds_to_first_step(log.read_text())
        yield Bar(f"{log.stem}: start to first step", first, None, "s")
        warm = min((s for s in later if s is not None), default=None)
        yield Bar(f"{log.stem}: the same, warm cache", warm, 60, "s")
    scenes = folder / "scenes.log"
    rates = re.findall(r"^rendered ([\d.]+) images/s", read(scenes), re.MULTILINE)
    yield Bar(
        "scenes rendered", float(rates[-1]) if rates else None, 3000, "images/s", at_least=True
    )


def read(file: Path) -> str:
    """The text of a file, or nothing where there is none."""
    return file.read_text() if file.exists() else ""


def measured(file: Path) -> tuple[str, dict[tuple[str, ...], dict[str, str]]]:
    """The chip of a file's last row of published size, and its rows by model, side, precision."""
    found = [row for row in csv.DictReader(read(file).splitlines()) if row["settings"] == "{}"]
    chip = found[-1]["hardware"] if found else ""
    case = ("model", "side", "precision")
    return chip, {tuple(row[key] for key in case): row for row in found if row["hardware"] == chip}


def seconds_to_first_step(log: str) -> list[float | None]:
    """Seconds from each start in a log to its first step; None where there was no step."""
    times: list[float | None] = []
    begun = None
    for clock, text in re.findall(r"^(\d\d:\d\d:\d\d) (.*)$", log, re.MULTILINE):
        now = datetime.datetime.strptime(clock, "%H:%M:%S")
        if text == "start":
            begun = now
            times.append(None)
        elif text.startswith("The first step took") and begun is not None:
            times[-1] = float((now - begun).seconds)  # past midnight, too
            begun = None
    return times or [None]


if __name__ == "__main__":
    sys.exit(main())
