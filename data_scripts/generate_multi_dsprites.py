"""Generates Multi-dSprites: python data_scripts/generate_multi_dsprites.py.

The file has the arrays that `convert_tfrecords.py` makes of the published records. Image i of a
seed is the same in files of any size. Files of another size than the default 65,000 images divide
them between training, validation and test in the same proportions. Interrupted, the same command
continues where it stopped.
"""

import argparse

from objdisc_jax.cli import int_in_range
from objdisc_jax.data import conversion
from objdisc_jax.data.datasets.tetrominoes import SPLITS
from objdisc_jax.data.synthetic import multi_dsprites
from objdisc_jax.errors import exit_on_user_error


def main() -> None:
    """Reads the command line and writes the file; exits with status 1 if that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    variants = list(multi_dsprites.VARIANTS)
    add("--variant", default="colored_on_grayscale", choices=variants, help="default: %(default)s")
    add("--num-images", type=int_in_range(3), default=65_000, help="default: %(default)s")
    add(
        "--seed",
        type=int_in_range(0, 2**31 - 1),
        default=0,
        help="of the images; default: %(default)s",
    )
    add("--output", help="default: data/multi_dsprites_VARIANT.h5")
    add("--overwrite", action="store_true", help="replace an existing file")
    arguments = parser.parse_args()
    if arguments.output is None:
        arguments.output = f"data/multi_dsprites_{arguments.variant}.h5"
    with exit_on_user_error():
        generate(**vars(arguments))


def generate(*, output: str, variant: str, num_images: int, seed: int, overwrite: bool) -> None:
    """Writes `num_images` images of a seed to an HDF5 file, under a progress bar."""
    conversion.generate(
        output,
        num_images,
        lambda first, items: multi_dsprites.generate(variant, seed, first, first + len(items)),
        made_by={
            "generator": multi_dsprites.__name__,
            "generator_version": multi_dsprites.VERSION,
            "variant": variant,
            "seed": seed,
        },
        splits=SPLITS,
        block=256,
        overwrite=overwrite,
    )


if __name__ == "__main__":
    main()
