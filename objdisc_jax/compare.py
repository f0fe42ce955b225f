"""Compares runs: those that differ in the seed alone are one line, with mean and spread.

    objdisc compare runs/a runs/b_seed0 runs/b_seed1 --html report.html

Runs are compared by what `objdisc eval` measured on a split. A run that has not reached its last
step, has not been scored there, or repeats the seed of another, is named and does not count.
`--csv` writes a line for every run; `--html` a page that stands alone, with the settings that
differ, curves over each other, and images beside each other.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from objdisc_jax.cli import Parser, run
from objdisc_jax.errors import UserError


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = Parser("objdisc_jax.compare", __doc__)
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="run directories")
    add("--split", default="test", help="the split that was scored (default: test)")
    add("--metrics", metavar="NAME,...", help="scores to show (default: all)")
    add("--csv", type=Path, metavar="FILE", help="write a line for every run there")
    add("--html", type=Path, metavar="FILE", help="write a report there")
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> None:
    """Compares the runs that the command line names."""
    from objdisc_jax.comparison import report, runs

    folders = dict.fromkeys(arguments.runs)
    groups = runs.group(runs.read(folder, arguments.split) for folder in folders)
    wanted = [name.strip() for name in arguments.metrics.split(",")] if arguments.metrics else None
    metrics = runs.metrics(groups, wanted)
    print(report.table(groups, metrics))
    try:
        if arguments.csv:
            report.write_csv(arguments.csv, groups, metrics)
        if arguments.html:
            report.write_html(arguments.html, groups, metrics, arguments.split)
    except OSError as error:
        raise UserError(
            f"{error.filename or arguments.html or arguments.csv} cannot be written "
            f"({error.strerror}). Name another file."
        ) from error


if __name__ == "__main__":
    run(main, parse)
