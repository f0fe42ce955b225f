"""The command-line options of scripts that render scenes; imports no JAX."""

import argparse
import os

from objdisc_jax.cli import int_in_range


def add_rendering_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of scenes and of how they are rendered."""
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
        help=f"rays per pixel at edges, half as many on metal and patterns; {default}",
    )
    add("--workers", type=int_in_range(1), default=os.cpu_count(), help=f"threads; {default}")
    add("--overwrite", action="store_true", help="replace what is there")
