"""Turns raw Sketchy episodes into the images that training reads.

    python data_scripts/process_sketchy.py --input data/downloads/sketchy

The input is a folder with the TFRecord files of episodes, in it or below. An episode's folder of
images appears when it is complete; the same command continues after an interruption. `episodes.txt`
in the output says which file became which episode.
"""

import argparse
import collections
import multiprocessing
import os
import pathlib
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool

from tqdm import tqdm

from objdisc_jax.cli import int_in_range
from objdisc_jax.data import outputs, sketchy_episodes
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.sketchy_episodes import Episode
from objdisc_jax.errors import exit_on_user_error
from objdisc_jax.files import write_atomically


def main() -> None:
    """Reads the command line and processes; exits with status 1 if that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", required=True, help="folder with TFRecord files")
    parser.add_argument("--output", default="data/sketchy/processed", help="default: %(default)s")
    parser.add_argument(
        "--workers", type=int_in_range(1), default=os.cpu_count(), help="default: %(default)s"
    )
    arguments = parser.parse_args()
    with exit_on_user_error():
        process(
            pathlib.Path(arguments.input).expanduser().absolute(),
            pathlib.Path(arguments.output).expanduser().absolute(),
            workers=arguments.workers,
        )


def process(raw: pathlib.Path, output: pathlib.Path, *, workers: int) -> None:
    """Processes all episodes in a folder that have not been, under a progress bar."""
    episodes = sketchy_episodes.plan(raw)
    _record(episodes, output)
    sizes = collections.Counter(episode.folder.split("/")[0] for episode in episodes)
    print(f"{len(episodes)} episodes:", ", ".join(f"{n} {split}" for split, n in sizes.items()))
    waiting = [episode for episode in episodes if not (output / episode.folder).exists()]
    failures = []
    progress = tqdm(total=len(episodes), initial=len(episodes) - len(waiting), unit=" episodes")
    with (
        futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool,
        progress,
    ):
        try:
            running = [
                pool.submit(sketchy_episodes.process, raw / episode.source, output / episode.folder)
                for episode in waiting
            ]
            for done in futures.as_completed(running):
                try:
                    done.result()
                except DataError as error:
                    failures.append(error)
                progress.update()
        except BrokenProcessPool:
            raise DataError(
                "A worker process was killed, perhaps for lack of memory. Run this again, which "
                f"goes on with what is missing, with less than --workers {workers}."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
    if failures:
        raise DataError(
            f"{len(failures)} of {len(episodes)} episodes could not be processed. Mend the cause "
            f"and run this again: it does only those. The first failure:\n{failures[0]}"
        )


def _record(episodes: list[Episode], output: pathlib.Path) -> None:
    """Writes which file becomes which episode; an error if the folder was begun with others."""
    file = output / "episodes.txt"
    content = "".join(f"{episode.folder} {episode.source}\n" for episode in episodes)
    begun = file.read_text() if file.exists() else None
    if begun is None and (output / "train").exists():
        begun = ""
    if begun not in (None, content):
        raise DataError(
            f"The output {output} has images of other episodes than those in the input: "
            f"{file} does not list the same. Split and number of an episode depend on all of them: "
            "restore the input, or write elsewhere with --output FOLDER."
        )
    with outputs.explained(output):
        write_atomically(file, content)


if __name__ == "__main__":
    main()
