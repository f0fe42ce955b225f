"""How entry points start: flags, log lines, and errors that speak to the user.

Nothing here or in an entry point imports JAX at module level: data-loading workers import the entry
point again, and must not start a second JAX.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from logging import INFO, LogRecord
from typing import Any

from absl import app, flags, logging

from objdisc_jax import errors

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def parse_absl(argv: Sequence[str]) -> Sequence[str]:
    """Parses absl flags; a bad config or a config key that doesn't exist is a message."""
    try:
        rest = flags.FLAGS(argv)
        if "config" in flags.FLAGS and flags.FLAGS["config"].value is not None:
            flags.FLAGS["config"].value.keys()  # a file that is missing shows only now
        return rest
    except (flags.Error, errors.UserError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: --config: {error}\nThe experiments of this project are in configs/.")
    except AttributeError as error:  # config_flags lets ConfigDict's own error through
        unknown_key = str(error).strip("'\"").replace("\\'", "'").split("\\n")
        sys.exit(
            f"error: config: there is no key {' '.join(unknown_key)} The keys are those of the "
            "model's and the data set's default_config() and of objdisc_jax/settings.py."
        )


def run(main: Callable[[Any], None], parse: Callable[[Sequence[str]], Any] = parse_absl) -> None:
    """Runs an entry point: `app.run` with readable logs, and `UserError`s as messages.

    Args:
        main: is called with what `parse` returns.
        parse: makes that of the command line, program name first.
    """

    def reported(arguments: Any) -> None:
        logging.set_verbosity(logging.INFO)
        handler = logging.get_absl_handler()
        handler.setFormatter(_Formatter())
        handler.addFilter(_is_for_users)
        with errors.exit_on_user_error():
            main(arguments)

    app.run(reported, flags_parser=parse)


def int_in_range(least: int, most: int | None = None) -> Callable[[str], int]:
    """Returns a `type` for an argument of argparse: a whole number within bounds, both included."""

    def parsed(text: str) -> int:
        bounds = f"at least {least}" if most is None else f"{least} to {most}"
        if not text.lstrip("+-").isdecimal() or not least <= int(text) <= (most or int(text)):
            raise argparse.ArgumentTypeError(f"is {text}, but must be a whole number, {bounds}")
        return int(text)

    return parsed


def add_rendering_options(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that scripts share which render scenes of objects."""
    add = parser.add_argument
    default = "default: %(default)s"
    add("--seed", type=int_in_range(0, 2**31 - 1), default=0, help=f"of the scenes; {default}")
    add("--max-objects", type=int_in_range(3, 10), default=10, help=f"3 to 10; {default}")
    add(
        "--resolution",
        type=int_in_range(16, 4096),
        nargs=2,
        default=[240, 320],
        metavar=("ROWS", "COLUMNS"),
    )
    add(
        "--samples",
        type=int_in_range(1, 64),
        default=8,
        help=f"rays a pixel at edges, half as many on metal and patterns; {default}",
    )
    add("--workers", type=int_in_range(1), default=os.cpu_count(), help=f"threads; {default}")
    add("--overwrite", action="store_true", help="replace what is there")


class _Formatter(logging.PythonFormatter):
    """Time of day and message."""

    def format(self, record: LogRecord) -> str:
        """Formats one record."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno <= INFO else f"{record.levelname.lower()}: "
        return f"{clock} {level}{record.getMessage()}"


def _is_for_users(record: LogRecord) -> bool:
    """Whether a record is ours or a warning.

    Orbax tells every step of every save, and warns of checkpoints without a score, which are meant.
    """
    if record.pathname.startswith(_PACKAGE):
        return True
    return record.levelno > INFO and "tracked_metric" not in record.getMessage()
