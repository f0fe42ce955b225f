"""Renders a look-alike of CLEVR with masks: python data_scripts/render_clevr.py.

The scenes are sampled as by the published generator and seen by the same camera under the same
lights, but rendered by `objdisc_jax/render`, dozens per second on two cores. The file has the
arrays of the published data, with a label map (`segmentation`) in place of the mask planes. Image i
of a seed is the same in files of any size, made on any number of devices. Interrupted, the same
command continues where it stopped. Splits are in the published proportions.

All cores are used, or all GPUs that JAX finds. Images of another size than 240x320 are read with
--config.data.image_size='(ROWS, COLUMNS)'.
"""

import argparse
from collections.abc import Sequence

from objdisc_jax.cli import int_in_range
from objdisc_jax.data import conversion
from objdisc_jax.errors import exit_on_user_error
from objdisc_jax.render.options import add_rendering_options


def main() -> None:
    """Reads the command line and writes the file; exits with status 1 if that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--num-images", type=int_in_range(3), default=100_000, help="default: %(default)s")
    add("--output", default="data/clevr_with_masks.h5", help="default: %(default)s")
    add_rendering_options(parser)
    arguments = parser.parse_args()
    with exit_on_user_error():
        generate(**vars(arguments))


def generate(
    *,
    output: str,
    num_images: int,
    seed: int,
    max_objects: int,
    resolution: Sequence[int],
    samples: int,
    workers: int,
    overwrite: bool,
) -> None:
    """Writes `num_images` images of a seed to an HDF5 file, under a progress bar."""
    import dataclasses

    import jax
    import numpy as np

    from objdisc_jax.data.datasets import clevr_with_masks
    from objdisc_jax.render import blocks, clevr

    rows, columns = resolution
    settings = dataclasses.replace(clevr.SETTINGS, resolution=(rows, columns), samples=samples)
    renderer = blocks.BlockRenderer(
        lambda number, key: clevr.record(key, number, settings, max_objects),
        jax.random.key(seed, impl="threefry2x32"),  # whatever the user's default is
        resolution=settings.resolution,
    )

    def decode(first: int, numbers: list[int]) -> dict[str, np.ndarray]:
        return clevr.arrays(*renderer(first, len(numbers)))

    conversion.generate(
        output,
        num_images,
        decode,
        made_by={
            "generator": clevr.__name__,
            "generator_version": clevr.VERSION,
            "seed": seed,
            "max_objects": max_objects,
            "samples": samples,
            "resolution": [rows, columns],
        },
        attributes={
            "shape_names": list(clevr.SHAPES),
            "size_names": list(clevr.SIZES),
            "color_names": list(clevr.COLORS),
            "material_names": list(clevr.MATERIALS),
        },
        splits=clevr_with_masks.SPLITS,
        block=renderer.size,
        overwrite=overwrite,
        workers=workers,
    )


if __name__ == "__main__":
    main()
