"""Renders a look-alike of 3D Shapes: python data_scripts/render_shapes3d.py.

By default all 480,000 combinations of the six factors, in the published order; with fewer images,
that many of them, sampled by the seed. The file has the published arrays, `images` and `labels`,
and `segmentation`, which is 1 where the object is. Interrupted, the same command continues where it
stopped.
"""

import argparse
import os

from objdisc_jax.cli import int_in_range
from objdisc_jax.data import conversion
from objdisc_jax.errors import exit_on_user_error

NUM_COMBINATIONS = 480_000


def main() -> None:
    """Reads the command line and writes the file; exits with status 1 if that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--num-images",
        type=int_in_range(3, NUM_COMBINATIONS),
        default=NUM_COMBINATIONS,
        help="default: all %(default)s",
    )
    add(
        "--seed",
        type=int_in_range(0, 2**31 - 1),
        default=0,
        help="of the choice, if not all; default: %(default)s",
    )
    add("--output", default="data/3dshapes.h5", help="default: %(default)s")
    add(
        "--workers",
        type=int_in_range(1),
        default=os.cpu_count(),
        help="threads; default: %(default)s",
    )
    add("--overwrite", action="store_true", help="replace an existing file")
    arguments = parser.parse_args()
    with exit_on_user_error():
        generate(**vars(arguments))


def generate(*, output: str, num_images: int, seed: int, workers: int, overwrite: bool) -> None:
    """Writes `num_images` images to an HDF5 file, under a progress bar."""
    import numpy as np

    from objdisc_jax.data.datasets import shapes3d as shapes3d_set
    from objdisc_jax.render import blocks, shapes3d

    numbers = np.arange(num_images)
    if num_images < shapes3d.NUM_IMAGES:
        numbers = np.random.default_rng(seed).permutation(shapes3d.NUM_IMAGES)[:num_images]
    chosen = shapes3d.factors(numbers).astype(np.int32)
    renderer = blocks.BlockRenderer(lambda i, table: shapes3d.render(table[i]), chosen, size=512)

    def decode(first: int, items: list[int]) -> dict[str, np.ndarray]:
        images, segmentation = renderer(first, len(items))
        block = numbers[first : first + len(items)]
        return {
            "images": images,
            "segmentation": segmentation,
            "labels": shapes3d.labels(block),
        }

    conversion.generate(
        output,
        num_images,
        decode,
        made_by={
            "generator": shapes3d.__name__,
            "generator_version": shapes3d.VERSION,
            "seed": seed,
        },
        attributes={"label_names": list(shapes3d.FACTORS)},
        splits=None if num_images == shapes3d.NUM_IMAGES else shapes3d_set.SPLITS,
        block=renderer.size,
        images=("images", "segmentation"),
        overwrite=overwrite,
        workers=workers,
    )


if __name__ == "__main__":
    main()
