"""How entry points start: command lines, log lines, and errors as messages.

Nothing here or in an entry point imports JAX at module level: data-loading workers import the entry
point again, and must not start a second JAX.
"""

import argparse
import io
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from logging import INFO, LogRecord
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging
from absl.flags import argparse_flags
from tqdm import tqdm

from objdisc_jax import errors, experiment_file, pretrained

called_as: str | None = None
"""The command that stands for `python -m objdisc_jax.MODULE`, such as "objdisc predict", if any."""
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


USAGE = 2
"""The exit status where the command line is wrong, as argparse has it."""


def parse_absl(argv: Sequence[str]) -> Sequence[str]:
    """Parses absl flags, of which --help tells; returns the name of the program.

    What is wrong with them, with the config, or with a key of it, is a message.
    """
    if not {"-h", "--help"}.isdisjoint(argv):
        print(_help(), end="")
        sys.exit(0)
    if "config" in flags.FLAGS:  # ml_collections would execute files of any kind
        parser: Any = flags.FLAGS["config"].parser
        parser.parse = experiment_file.load
    try:
        program, *rest = flags.FLAGS([argv[0], *_spelled(argv[1:], "-", "_")])
    except (flags.Error, errors.UserError) as error:
        if (of_config := _user_error(error)) is not None:
            sys.exit(f"error: {of_config}")
        exit_on_usage(str(error))
    except (AttributeError, KeyError) as error:  # config_flags lets ConfigDict's own through
        if (said := experiment_file.unknown_key(error)) is None:
            raise
        exit_on_usage(f"config: {said}")
    if rest:
        exit_on_usage(f"Unknown arguments: {' '.join(rest)}. Options begin with --.")
    return [program]


def exit_on_usage(message: str) -> NoReturn:
    """Ends the program with the message, because the command line is wrong."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(USAGE)


def _help() -> str:
    """The help of an entry point with absl flags, in the form of the others."""
    main = sys.modules["__main__"]
    parser = Parser(main.__spec__.name if main.__spec__ else sys.argv[0], main.__doc__)
    return re.sub(r"--\w+", lambda option: option[0].replace("_", "-"), parser.format_help())


def _user_error(error: BaseException | None) -> errors.UserError | None:
    """The error of ours that a parser of flags has wrapped into one of its own, if any."""
    while error is not None and not isinstance(error, errors.UserError):
        error = error.__cause__ or error.__context__
    return error


def run(main: Callable[[Any], None], parse: Callable[[Sequence[str]], Any] = parse_absl) -> None:
    """Runs an entry point: `app.run` with readable logs, and `UserError`s as messages.

    Args:
        main: is called with what `parse` returns.
        parse: makes that of the command line, program name first.
    """
    _use_huge_pages()

    def with_messages(arguments: Any) -> None:
        logging.set_verbosity(logging.INFO)
        handler = logging.get_absl_handler()
        handler.python_handler.setStream(_BesideBars())
        handler.setFormatter(_Formatter())
        handler.addFilter(_is_for_users)
        with errors.exit_on_user_error():
            main(arguments)

    app.run(with_messages, flags_parser=parse)


def _use_huge_pages() -> None:
    """Starts this program again with its memory in pages of 2 MiB, where Linux has to be asked.

    Otherwise every training step on a CPU gets its memory anew in pages of 4 KiB, and up to a third
    of its time is spent there. The C library is asked through the environment, when it is loaded;
    whoever sets GLIBC_TUNABLES, be it to nothing, has decided.
    """
    setting = "/sys/kernel/mm/transparent_hugepage/enabled"
    if "GLIBC_TUNABLES" in os.environ or "jax" in sys.modules or not os.path.exists(setting):
        return
    with open(setting) as file:
        if "[madvise]" not in file.read():
            return
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


class Parser(argparse_flags.ArgumentParser):
    """Parses the command line of an entry point; in names of options _ and - are the same.

    Args:
        module: the entry point, as `python -m` takes it.
        doc: its docstring, which --help shows.
    """

    def __init__(self, module: str, doc: str | None):
        formatter = argparse.RawDescriptionHelpFormatter
        prog = called_as or f"python -m {module}"
        super().__init__(prog=prog, description=doc, formatter_class=formatter)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses what is known of a command line."""
        args = sys.argv[1:] if args is None else args
        return super().parse_known_args(_spelled(args, "_", "-"), namespace)


def _spelled(argv: Sequence[str], old: str, new: str) -> list[str]:
    """A command line with one separator in names of options; keys of configs stay."""
    option = re.compile(r"--[A-Za-z][\w-]*(?==|$)")
    rest = list(argv)
    end = rest.index("--") if "--" in rest else len(rest)
    spelled = [option.sub(lambda m: "--" + m[0][2:].replace(old, new), x) for x in rest[:end]]
    return spelled + rest[end:]


def add_trained(parser: argparse.ArgumentParser) -> None:
    """Adds --workdir and --pretrained, one of which must name a trained model, as `workdir`."""

    def find(source: str) -> Path:
        try:
            return pretrained.find(source)
        except errors.UserError as error:
            exit_on_usage(str(error))

    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--workdir", type=Path, help="the run directory of a trained model")
    group.add_argument(
        "--pretrained",
        dest="workdir",
        type=find,
        metavar="NAME",
        help=f"a trained model that comes along ({', '.join(pretrained.names())}), a folder, or "
        "OWNER/NAME on the Hugging Face Hub",
    )


def int_in_range(least: int, most: int | None = None) -> Callable[[str], int]:
    """Returns a `type` for an argument of argparse: a whole number within bounds, both included."""

    def parsed(text: str) -> int:
        bounds = f"at least {least}" if most is None else f"{least} to {most}"
        if not text.lstrip("+-").isdecimal() or not least <= int(text) <= (most or int(text)):
            raise argparse.ArgumentTypeError(f"is {text}, but must be a whole number, {bounds}")
        return int(text)

    return parsed


class _BesideBars(io.TextIOBase):
    """The standard error stream, whose lines do not run into the progress bars there."""

    def write(self, text: str) -> int:
        tqdm.write(text, file=sys.stderr, end="")
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _Formatter(logging.PythonFormatter):
    """Time of day and message."""

    def format(self, record: LogRecord) -> str:
        """Formats one record."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno <= INFO else f"{record.levelname.lower()}: "
        return f"{clock} {level}{record.getMessage()}"


def _is_for_users(record: LogRecord) -> bool:
    """Whether a record is ours or a warning.

    Orbax logs every step of every save, and warns of checkpoints without a score, which are meant.
    """
    if record.pathname.startswith(_PACKAGE):
        return True
    return record.levelno > INFO and "tracked_metric" not in record.getMessage()
