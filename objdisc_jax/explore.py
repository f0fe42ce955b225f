"""Opens a page in the browser on which a trained model is tried out.

    objdisc explore --pretrained sa_clevr6_cpu
    objdisc explore --workdir runs/demo --port 7861 --no-browser

Images are segmented as `predict` does it; slots can be switched off, recolored, saved, and, where
the model paints slots, exchanged between two images. Only this machine reaches the page unless
--host says otherwise. What visitors send stays in a temporary folder, which goes when the program
ends.
"""

import argparse
import os
import signal
import tempfile
from collections.abc import Sequence

from absl import logging

from objdisc_jax.cli import Parser, add_trained, int_in_range, run
from objdisc_jax.errors import UserError


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = Parser("objdisc_jax.explore", __doc__)
    add_trained(parser)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: every machine may come")
    add("--port", type=int_in_range(1, 65535), help="default: the first free one from 7860 on")
    add(
        "--max-pixels",
        type=int_in_range(1),
        default=24_000_000,
        metavar="N",
        help="images of more are refused (default: 24 million)",
    )
    add(
        "--max-megabytes",
        type=int_in_range(1),
        default=20,
        metavar="N",
        help="larger files are refused (default: 20)",
    )
    add("--no-browser", action="store_true", help="do not open the page")
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> None:
    """Serves the page until it is interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing is left behind
    with tempfile.TemporaryDirectory(prefix="objdisc_explore_", ignore_cleanup_errors=True) as temp:
        # Gradio reads them when it is imported, and whenever it keeps a file. It would sum up how
        # long events took after every single one.
        os.environ.update(
            GRADIO_TEMP_DIR=temp,
            GRADIO_ANALYTICS_ENABLED="False",
            GRADIO_ANALYTICS_CACHE_FREQUENCY="1000000",
        )
        try:
            from objdisc_jax.exploration import page
        except ImportError as error:
            raise UserError(
                f"The page needs Gradio, which cannot be imported ({error}). Install it: pip "
                "install 'objdisc_jax[explore]'"
            ) from error
        from objdisc_jax.exploration.explorer import Explorer

        logging.info("Loading and compiling the model.")
        explorer = Explorer(arguments.workdir, max_pixels=arguments.max_pixels)
        page.serve(
            explorer,
            host=arguments.host,
            port=arguments.port,
            max_megabytes=arguments.max_megabytes,
            browser=not arguments.no_browser,
        )


if __name__ == "__main__":
    run(main, parse)
