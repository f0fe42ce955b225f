"""Generates Multi-dSprites: python data_scripts/generate_multi_dsprites.py.

The file has the arrays that `convert_tfrecords.py` makes of the published records. Picture i of a
seed is the same in files of any size. Files of another size than the default 65,000 pictures divide
them between training, validation and test in the same proportions. Interrupted, the same command
goes on where it was.
"""

import argparse
from typing import Any

from objdisc_jax.data import conversion, splits
from objdisc_jax.data.datasets.tetrominoes import SPLITS
from objdisc_jax.data.synthetic import multi_dsprites
from objdisc_jax.errors import reported
from objdisc_jax.cli import int_in_range

_IMAGES_AT_ONCE = 256


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
        help="of the pictures; default: %(default)s",
    )
    add("--output", help="default: data/multi_dsprites_VARIANT.h5")
    add("--overwrite", action="store_true", help="replace an existing file")
    arguments = parser.parse_args()
    with reported():
        generate(
            arguments.output or f"data/multi_dsprites_{arguments.variant}.h5",
            variant=arguments.variant,
            num_images=arguments.num_images,
            seed=arguments.seed,
            overwrite=arguments.overwrite,
        )


def generate(path: str, *, variant: str, num_images: int, seed: int, overwrite: bool) -> None:
    """Writes `num_images` pictures of a seed to an HDF5 file, under a progress bar."""
    made_by = {
        "generator": multi_dsprites.__name__,
        "generator_version": multi_dsprites.VERSION,
        "variant": variant,
        "seed": seed,
    }
    scaled = splits.scaled_splits(SPLITS, num_images)

    def attributes(_: int) -> dict[str, Any]:
        return {**made_by, **splits.to_attributes(scaled)}

    conversion.convert(
        conversion.generated(
            made_by,
            num_images,
            lambda first, items: multi_dsprites.generate(variant, seed, first, first + len(items)),
            _IMAGES_AT_ONCE,
        ),
        path,
        attributes=attributes,
        overwrite=overwrite,
    )


if __name__ == "__main__":
    main()
