"""Run directories, and the groups of those that differ in the seed alone."""

import dataclasses
import itertools
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from objdisc_jax import config as configs
from objdisc_jax import run_files
from objdisc_jax.config import defaults
from objdisc_jax.errors import UserError
from objdisc_jax.names import flatten
from objdisc_jax.visualize import read_metrics

_NO_SCORES = ("step", "num_images")


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run directory tells."""

    folder: Path
    config: ConfigDict
    scores: dict[str, float]  # of the split asked for; empty if it was not scored there
    scored_at: int  # the step that they are of; 0 if there are none
    scored_with: dict[str, str]  # settings that scoring had otherwise than training
    records: list[dict[str, Any]]  # the lines of its metrics.jsonl
    environment: dict[str, Any]  # versions and hardware; empty where it tells none
    split: str  # that was asked for
    repeats: Path | None = None  # a run with the same seed that counts already

    @property
    def step(self) -> int:
        """The last step that it is known to have reached."""
        return max((record["step"] for record in self.records), default=self.scored_at)

    @property
    def seconds(self) -> float:
        """How long it was trained, until its last line of metrics."""
        return max((record["seconds"] for record in self.records), default=0.0)

    @property
    def problem(self) -> str | None:
        """Why its scores don't count, if they don't."""
        if not self.records and not self.scores:
            return f"not trained here: there is no {run_files.METRICS}"
        if self.step < self.config.num_train_steps:
            return f"stopped at step {self.step:,} of {self.config.num_train_steps:,}"
        if not self.scores:
            return f"not scored on {self.split} (objdisc eval --split {self.split} --workdir ...)"
        if self.scored_at < self.step:
            return f"scored at step {self.scored_at:,}, trained to step {self.step:,}"
        bad = [name for name, value in self.scores.items() if not math.isfinite(value)]
        if bad:
            return f"not finite: {', '.join(bad)}"
        return f"{self.repeats} has the same seed" if self.repeats else None

    @property
    def hardware(self) -> str:
        """The devices that it was trained on last."""
        known = self.environment
        return f"{known['num_devices']} x {known['device']}" if "device" in known else "unknown"

    @property
    def panel(self) -> Path | None:
        """Its newest panel of images."""
        panels = list((self.folder / run_files.VISUALIZATIONS).glob("*.png"))
        return max(panels, key=lambda file: file.stat().st_mtime, default=None)


class Summary(NamedTuple):
    """A score of several runs."""

    mean: float
    sd: float | None  # over the runs; None for a single one
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + ("" if self.sd is None else f" ± {self.sd:.4f}")


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs whose configs differ in the seed alone."""

    name: str
    runs: list[Run]

    @property
    def counted(self) -> list[Run]:
        """The runs that were finished and scored."""
        return [run for run in self.runs if run.problem is None]

    @property
    def hardware(self) -> str:
        """The devices of its runs."""
        return ", ".join(sorted({run.hardware for run in self.runs}))

    def summary(self, metric: str) -> Summary | None:
        """Mean and standard deviation of a score over the runs that count."""
        values = [run.scores[metric] for run in self.counted if metric in run.scores]
        if not values:
            return None
        sd = statistics.stdev(values) if len(values) > 1 else None
        return Summary(statistics.fmean(values), sd, len(values))


def read(folder: Path, split: str) -> Run:
    """Reads a run directory.

    Raises:
        UserError: it holds no run, or a file of it cannot be read.
    """
    config = configs.load(folder)
    metrics = folder / run_files.METRICS
    try:
        records = read_metrics(metrics) if metrics.is_file() else []
    except ValueError as error:
        raise UserError(str(error)) from error
    measured = run_files.read_json(folder / run_files.scores(split))
    scores = {
        name: float(value)
        for name, value in measured.items()
        if isinstance(value, int | float) and name not in _NO_SCORES
    }
    step, changes = measured.get("step", 0), measured.get("differs_from_training", {})
    environment = run_files.read_json(folder / run_files.ENVIRONMENT)
    return Run(folder, config, scores, step, changes, records, environment, split)


def group(runs: Iterable[Run]) -> list[Group]:
    """Groups of runs, in the order of their first ones; within a group by seed."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(json.dumps(_but_seed(run.config), sort_keys=True), []).append(run)
    groups = [_each_seed_once(runs) for runs in alike.values()]
    names = [_name([run.folder for run in runs]) for runs in groups]
    return [
        Group(name if names.count(name) == 1 else str(runs[0].folder), runs)
        for name, runs in zip(names, groups, strict=True)
    ]


def _each_seed_once(runs: Iterable[Run]) -> list[Run]:
    """Runs by seed, of which those that repeat one that counts say so."""
    counted: dict[int, Path] = {}
    found = []
    for run in sorted(runs, key=lambda run: run.config.seed):
        if run.problem is None and counted.setdefault(run.config.seed, run.folder) != run.folder:
            run = dataclasses.replace(run, repeats=counted[run.config.seed])
        found.append(run)
    return found


def differences(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """The keys of the configs at which groups differ, with the value of each group."""
    flat = [flatten(_but_seed(group.runs[0].config)) for group in groups]
    keys = {key: None for values in flat for key in values}
    rows = {key: [values.get(key, "-") for values in flat] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def metrics(groups: Iterable[Group], wanted: Sequence[str] | None) -> list[str]:
    """The names of the scores to show, as asked for or all.

    Raises:
        UserError: no run has a score that was asked for.
    """
    known = {name: None for group in groups for run in group.runs for name in run.scores}
    for name in wanted or ():
        if name not in known:
            raise UserError(f"--metrics: no run has {name!r}; there are {', '.join(known)}.")
    return list(wanted or known)


def _but_seed(config: ConfigDict) -> dict[str, Any]:
    """A config without the seed, and without what may change while a run is trained."""
    values = configs.to_dict(config)
    free = [key for key in defaults.MUTABLE if key != "num_train_steps"]
    for key in ["seed", *free]:
        *path, last = key.split(".")
        block: Mapping[str, Any] = values
        for name in path:
            block = block.get(name, {})
        if isinstance(block, dict):
            block.pop(last, None)
    return values


def _name(folders: Sequence[Path]) -> str:
    """What the names of folders begin with, less the word for a seed."""
    if len(folders) == 1:
        return folders[0].name
    letters = zip(*(folder.name for folder in folders), strict=False)
    alike = itertools.takewhile(lambda several: len(set(several)) == 1, letters)
    common = "".join(first for first, *_ in alike).rstrip("0123456789_-. ")
    return common.removesuffix("seed").rstrip("_-. ") or folders[0].name
