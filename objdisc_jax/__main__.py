"""Unsupervised object discovery: one command for all of it.

    objdisc train --config configs/demo.py
    objdisc eval --workdir runs/demo
    objdisc predict --pretrained sa_clevr6_cpu --input photos/ --output segmented/
    objdisc compare runs/a_seed0 runs/a_seed1 --html report.html

`objdisc COMMAND --help` tells the options of a command. What `objdisc COMMAND` does,
`python -m objdisc_jax.MODULE` does as well.
"""

import runpy
import sys
from typing import NamedTuple

from objdisc_jax import __version__, cli
from objdisc_jax.names import closest


class Command(NamedTuple):
    """What a command runs."""

    module: str  # in this package
    summary: str
    arguments: tuple[str, ...] = ()  # that come before the user's


COMMANDS = {
    "train": Command("main", "train an experiment, or go on with it"),
    "eval": Command("main", "score a trained model on a split of a data set", ("--mode=eval",)),
    "predict": Command("predict", "segment your own images"),
    "explore": Command("explore", "try a trained model out in the browser"),
    "compare": Command("compare", "put runs beside each other"),
    "convert": Command("convert", "take weights to PyTorch and back, make pretrained models"),
    "inspect": Command("data.inspect", "look at a data set and measure how fast it is read"),
    "features": Command("features", "compute a data set's features once, with a frozen model"),
    "launch": Command("launch", "train on several processes of this machine"),
}


def main() -> None:
    """Runs the command that the command line names."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(_usage())
    elif name == "--version":
        print(f"objdisc_jax {__version__}")
    elif name not in COMMANDS:
        print(
            f"error: there is no command {name!r}{closest(name, COMMANDS)}.\n\n{_usage()}",
            file=sys.stderr,
        )
        sys.exit(2)
    else:
        module, _, arguments = COMMANDS[name]
        cli.called_as = f"objdisc {name}"
        sys.argv = [cli.called_as, *arguments, *rest]
        # As `python -m` does: worker processes find the module by its name.
        runpy.run_module(f"objdisc_jax.{module}", run_name="__main__", alter_sys=True)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"    {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return f"{(__doc__ or '').strip()}\n\nCommands:\n\n" + "\n".join(lines)


if __name__ == "__main__":
    main()
