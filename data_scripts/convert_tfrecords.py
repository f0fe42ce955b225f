r"""Converts a TFRecord file of DeepMind's Multi-Object Datasets to HDF5.

    python data_scripts/convert_tfrecords.py --dataset tetrominoes \
        --input tetrominoes_train.tfrecords --output data/tetrominoes.h5

The file has the arrays of the records, with a label map (`segmentation`) in place of the mask
planes, and the number of objects (`num_objects`). Of the millions of records as many are taken as
the splits use. Interrupted, the same command continues where it stopped. Three packages are used if
they are installed (pip install -e '.[data]'): google-crc32c, which finds damage, and zlib-ng and
isal, which halve the time.
"""

import argparse
import os
import pathlib

from objdisc_jax.cli import int_in_range
from objdisc_jax.data import conversion, multi_object, splits, tfrecord
from objdisc_jax.errors import exit_on_user_error


def main() -> None:
    """Reads the command line and converts; exits with status 1 if that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    datasets = sorted({layout.dataset for layout in multi_object.LAYOUTS})
    parser.add_argument("--dataset", required=True, help=" | ".join(datasets))
    parser.add_argument("--variant", default="", help="of multi_dsprites and objects_room")
    parser.add_argument("--input", required=True, help="the TFRecord file, as downloaded")
    parser.add_argument("--output", required=True, help="the HDF5 file")
    parser.add_argument(
        "--num-records", type=int_in_range(1), help="default: as many as the splits use"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--workers", type=int_in_range(1), default=os.cpu_count(), help="default: %(default)s"
    )
    arguments = parser.parse_args()
    with exit_on_user_error():
        convert(
            multi_object.layout(arguments.dataset, arguments.variant),
            pathlib.Path(arguments.input).expanduser().absolute(),
            arguments.output,
            num_records=arguments.num_records,
            overwrite=arguments.overwrite,
            workers=arguments.workers,
        )


def convert(
    layout: multi_object.Layout,
    path: pathlib.Path,
    output: str,
    *,
    num_records: int | None,
    overwrite: bool,
    workers: int,
) -> None:
    """Converts the first records of a file, by default as many as the declared splits use."""
    declared = conversion.declared(layout.dataset, layout.variant).splits
    published = max(split.stop for split in declared.values())
    wanted = num_records or published
    splits.scaled_splits(declared, wanted)  # an error, if there are too few to divide

    if not tfrecord.CHECKS_DATA:
        print("The package google-crc32c is missing: damage to the data may go unnoticed.")

    def attributes(num_converted: int) -> dict[str, object]:
        return {
            "dataset": layout.dataset,
            "variant": layout.variant,
            "source": path.name,
            "source_records": [0, num_converted],
            "converter": conversion.__name__,
            "converter_version": conversion.VERSION,
            **splits.to_attributes(splits.scaled_splits(declared, min(num_converted, published))),
        }

    num_converted = conversion.convert(
        multi_object.source(layout, path, wanted),
        output,
        attributes=attributes,
        overwrite=overwrite,
        workers=workers,
    )
    if num_converted < wanted:
        print(f"{path.name} holds {num_converted} records, not {wanted}: all were converted.")


if __name__ == "__main__":
    main()
