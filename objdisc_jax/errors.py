"""Errors that are the user's to mend, and how entry points report them."""

import contextlib
import sys
from collections.abc import Iterator


class UserError(ValueError):
    """Something in the user's hands is wrong: a setting, a file, a folder.

    The message is one complete paragraph: what was found, what is allowed, what to do next. Entry
    points print it without a traceback.
    """


class ConfigError(UserError):
    """A config, or one of its settings, cannot be used."""


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Ends the program with status 1 and the message alone where a `UserError` is raised.

    Ctrl-C ends it with status 130.
    """
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
