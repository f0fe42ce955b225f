r"""Repacks a published HDF5 file so that training reads it many times faster.

    python data_scripts/repack_hdf5.py --dataset shapes3d \
        --input downloads/3dshapes.h5 --output data/3dshapes.h5

For the HDF5 files of clevr_with_masks, tetrominoes, boxworld, shapes3d and ravens (its training and
its test file, one at a time): each image becomes a chunk of its own, and mask planes become a
label map. Interrupted, the same command continues where it stopped.
"""

import argparse

from objdisc_jax.cli import int_in_range
from objdisc_jax.data import conversion, repacking
from objdisc_jax.errors import exit_on_user_error


def main() -> None:
    """Reads the command line and repacks; exits with status 1 if that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True, help="name of the data set")
    parser.add_argument("--variant", default="", help="if the data set has variants")
    parser.add_argument("--input", required=True, help="the published HDF5 file")
    parser.add_argument("--output", required=True, help="the new HDF5 file")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--workers", type=int_in_range(1), default=2, help="threads; default: %(default)s"
    )
    arguments = parser.parse_args()
    with exit_on_user_error():
        repacking.repack(
            conversion.declared(arguments.dataset, arguments.variant),
            arguments.input,
            arguments.output,
            overwrite=arguments.overwrite,
            workers=arguments.workers,
        )


if __name__ == "__main__":
    main()
