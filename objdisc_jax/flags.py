"""What the entry points share: parsing flags, logging, and reporting errors.

Nothing here or in an entry point imports JAX at module level: data-loading workers import the entry
point again, and must not start a second JAX.
"""

import sys
import time
from collections.abc import Callable, Sequence
from logging import INFO, LogRecord

from absl import app, flags, logging

from objdisc_jax import errors


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs an entry point: `app.run` with short log lines and errors that speak to the user."""

    def reported(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.INFO)
        logging.get_absl_handler().setFormatter(_Formatter())
        logging.get_absl_handler().addFilter(_is_for_users)
        with errors.reported():
            main(argv)

    app.run(reported, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; a config key that doesn't exist is a message, not a traceback."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {error}")
    except errors.UserError as error:  # from a config file
        sys.exit(f"error: {error}")
    except AttributeError as error:
        text = str(error).replace("\\n", " ").replace("\\'", "'").strip("'\"")
        sys.exit(f"error: config: there is no key {text} Keys are listed in the config's blocks.")


class _Formatter(logging.PythonFormatter):
    """Time of day and message."""

    def format(self, record: LogRecord) -> str:
        """Formats one record."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno <= INFO else f"{record.levelname.lower()}: "
        return f"{clock} {level}{record.getMessage()}"


def _is_for_users(record: LogRecord) -> bool:
    """Whether a record is ours or a warning; Orbax tells every step of every save."""
    return record.levelno > INFO or __package__ in record.pathname
