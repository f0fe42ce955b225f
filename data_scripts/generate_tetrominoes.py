"""Generates the Tetrominoes data set: python data_scripts/generate_tetrominoes.py.

The file has the arrays of the published data set (image, mask, x, y, shape, color, visibility)
and those that training reads: `segmentation`, a label map, and `num_objects`. Image i of a seed
is the same in files of any size. Files of another size than the default 65,000 images divide them
between training, validation and test in the same proportions.
"""

import argparse

from tqdm import tqdm

from objdisc_jax.cli import int_in_range
from objdisc_jax.data import hdf5_writer, splits
from objdisc_jax.data.datasets import tetrominoes as tetrominoes_set
from objdisc_jax.data.synthetic import tetrominoes
from objdisc_jax.errors import exit_on_user_error

_IMAGES_AT_ONCE = 1024


def main() -> None:
    """Reads the command line and writes the file; exits with status 1 if that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-images", type=int_in_range(3), default=65_000, help="default: 65000")
    parser.add_argument(
        "--seed", type=int_in_range(0, 2**31 - 1), default=0, help="of the images; default: 0"
    )
    parser.add_argument("--output", default="data/tetrominoes.h5", help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    arguments = parser.parse_args()
    with exit_on_user_error():
        generate(**vars(arguments))


def generate(*, output: str, num_images: int, seed: int, overwrite: bool) -> None:
    """Writes `num_images` images of a seed to an HDF5 file, under a progress bar."""
    attributes = {
        "seed": seed,
        "generator": tetrominoes.__name__,
        "generator_version": tetrominoes.VERSION,
        **splits.to_attributes(splits.scaled_splits(tetrominoes_set.SPLITS, num_images)),
    }
    with (
        hdf5_writer.new_file(
            output, num_records=num_images, attributes=attributes, overwrite=overwrite
        ) as writer,
        tqdm(total=num_images, desc=output, unit=" images") as progress,
    ):
        for start in range(0, num_images, _IMAGES_AT_ONCE):
            stop = min(start + _IMAGES_AT_ONCE, num_images)
            writer.write(start, tetrominoes.generate(seed, start, stop))
            progress.update(stop - start)


if __name__ == "__main__":
    main()
