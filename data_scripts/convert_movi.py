r"""Converts the published files of MOVi to HDF5, every frame a record of its own.

    python data_scripts/convert_movi.py --variant e --input data/downloads/movi_e \
        --output data/movi_e.h5

The folder has all files movi_VARIANT-train.tfrecord-* and movi_VARIANT-validation.tfrecord-*. The
videos of the latter are the test split, the last fortieth of the former's is for validation.
Interrupted, the same command continues where it stopped.
"""

import argparse
import os
import pathlib

from objdisc_jax.cli import int_in_range
from objdisc_jax.data import conversion, movi, tfrecord
from objdisc_jax.data.splits import consecutive, to_attributes
from objdisc_jax.errors import exit_on_user_error


def main() -> None:
    """Reads the command line and converts; exits with status 1 if that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", required=True, choices=["c", "d", "e"])
    parser.add_argument("--size", type=int, choices=[128, 256], default=256, help="of the frames")
    parser.add_argument("--input", required=True, help="the folder with the downloaded files")
    parser.add_argument("--output", required=True, help="the HDF5 file")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--workers", type=int_in_range(1), default=os.cpu_count(), help="default: %(default)s"
    )
    arguments = parser.parse_args()
    with exit_on_user_error():
        convert(arguments)


def convert(arguments: argparse.Namespace) -> None:
    """Converts all files in the folder."""
    folder = pathlib.Path(arguments.input).expanduser().absolute()
    parts = [movi.shards(folder, arguments.variant, part) for part in ("train", "validation")]
    counts = [sum(map(tfrecord.count_records, part)) for part in parts]
    validation = max(1, counts[0] // 40)
    videos = consecutive(train=counts[0] - validation, val=validation, test=counts[1])
    frames = {
        name: range(movi.NUM_FRAMES * split.start, movi.NUM_FRAMES * split.stop)
        for name, split in videos.items()
    }
    conversion.convert(
        movi.source([*parts[0], *parts[1]], sum(counts), (arguments.size, arguments.size)),
        arguments.output,
        attributes=lambda _: {
            "dataset": "movi",
            "variant": arguments.variant,
            "converter": movi.__name__,
            "converter_version": conversion.VERSION,
            **to_attributes(frames),
        },
        overwrite=arguments.overwrite,
        workers=arguments.workers,
    )


if __name__ == "__main__":
    main()
