"""Renders a look-alike of ClevrTex: python data_scripts/render_clevrtex.py --variant full.

Camera, lights, sizes, distances and file layout are the published ones; textures are procedural,
and shapes partly others (`objdisc_jax/render/clevrtex.py` says which). Below the output it makes
`clevrtex_VARIANT/{number // 1000}/CLEVRTEX_VARIANT_{number}` with `.png`, `_flat.png` (a palette
mask, index = object) and `.json`. Image i of a seed is the same in sets of any size, made on any
number of devices. Until all images are there the folder's name begins with a dot and readers ignore
it; interrupted, the same command continues where it stopped.
"""

import argparse
import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from objdisc_jax import files
from objdisc_jax.cli import int_in_range
from objdisc_jax.data import conversion, outputs
from objdisc_jax.data.datasets.clevrtex import NUM_IMAGES
from objdisc_jax.data.errors import DataError
from objdisc_jax.errors import exit_on_user_error
from objdisc_jax.render.options import add_rendering_options


def main() -> None:
    """Reads the command line and writes the files; exits with status 1 if that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--variant", default="full", choices=list(NUM_IMAGES), help="default: %(default)s")
    add(
        "--num-images",
        type=int_in_range(3, 10**6),
        help="default: as many as the published variant has",
    )
    add("--output", default="data/clevrtex", help="the folder; default: %(default)s")
    add_rendering_options(parser)
    arguments = parser.parse_args()
    if arguments.num_images is None:
        arguments.num_images = NUM_IMAGES[arguments.variant]
    with exit_on_user_error():
        generate(**vars(arguments))


def generate(
    *,
    output: str,
    variant: str,
    num_images: int,
    seed: int,
    max_objects: int,
    resolution: Sequence[int],
    samples: int,
    workers: int,
    overwrite: bool,
) -> None:
    """Writes `num_images` images of a seed, with masks and scene files, under a progress bar.

    Raises:
        DataError: the variant's folder exists, or holds another interrupted set, or cannot be
            written, or another process writes it.
    """
    import dataclasses
    from functools import partial

    import jax

    from objdisc_jax.render import clevr, clevrtex
    from objdisc_jax.render.blocks import BlockRenderer

    folder = pathlib.Path(output).expanduser().absolute() / f"clevrtex_{variant}"
    rows, columns = resolution
    identity = {
        "generator": clevrtex.__name__,
        "generator_version": clevrtex.VERSION,
        "variant": variant,
        "seed": seed,
        "num_images": num_images,
        "max_objects": max_objects,
        "resolution": [rows, columns],
        "samples": samples,
    }
    material = clevrtex.VARIANTS[variant]
    settings = dataclasses.replace(
        clevrtex.SETTINGS, shapes=material.shapes, resolution=(rows, columns), samples=samples
    )
    sample = partial(clevrtex.sample_scene, material)
    renderer = BlockRenderer(
        lambda number, key: clevr.record(key, number, settings, max_objects, sample),
        jax.random.key(seed, impl="threefry2x32"),  # whatever the user's default is
        resolution=settings.resolution,
    )
    numbers = range(num_images)
    blocks = [numbers[n : n + renderer.size] for n in numbers[:: renderer.size]]
    with outputs.restartable(folder, identity, parts="*/*.json", overwrite=overwrite) as partial:

        def write(block: range) -> int:
            """Renders and writes a block; a scene file is the sign that its record is complete."""
            scenes, renderings = renderer(block.start, len(block))
            for i, number in enumerate(block):
                scene, rendering = jax.tree.map(lambda x, i=i: x[i], (scenes, renderings))
                description = clevrtex.describe(scene, rendering, number, variant)
                _write_record(partial, description, rendering)
            return len(block)

        _check_free(folder, overwrite)
        todo = [block for block in blocks if not _is_done(partial, variant, block)]
        done = num_images - sum(map(len, todo))
        with tqdm(total=num_images, initial=done, desc=folder.name, unit=" images") as progress:
            for count in conversion.in_order(write, todo, workers):
                progress.update(count)
        _replace(folder, partial)


def _check_free(folder: pathlib.Path, overwrite: bool) -> None:
    """Raises a `DataError` if there is a folder that is to stay, or was not rendered here."""
    outputs.check_free(folder, overwrite)
    if folder.exists() and not (folder / outputs.MANIFEST).is_file():
        raise DataError(
            f"The output {folder} has no {outputs.MANIFEST}: this program has not made it, and "
            "does not overwrite it. Remove it yourself, or write elsewhere with --output FOLDER."
        )


def _replace(folder: pathlib.Path, partial: pathlib.Path) -> None:
    """Gives the finished folder its name; an old one is removed only when the new one is there."""
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        files.remove(old)
        folder.rename(old)
    partial.rename(folder)
    files.remove(old)


def _stem(folder: pathlib.Path, variant: str, number: int) -> pathlib.Path:
    return folder / str(number // 1000) / f"CLEVRTEX_{variant}_{number:06d}"


def _is_done(folder: pathlib.Path, variant: str, block: range) -> bool:
    return all(_stem(folder, variant, n).with_suffix(".json").exists() for n in block)


def _write_record(folder: pathlib.Path, description: dict[str, Any], rendering: Any) -> None:
    """Writes an image's three files, the scene last and at once."""
    from PIL import Image

    from objdisc_jax.render import clevrtex

    stem = _stem(folder, description["split"], description["image_index"])
    stem.parent.mkdir(exist_ok=True)
    mask = Image.fromarray(rendering.segmentation).convert("P")
    mask.putpalette(clevrtex.PALETTE)
    for image, ending in ((Image.fromarray(rendering.image), ".png"), (mask, "_flat.png")):
        buffer = io.BytesIO()
        image.save(buffer, "png", compress_level=1)
        stem.with_name(stem.name + ending).write_bytes(buffer.getvalue())
    files.write_atomically(stem.with_suffix(".json"), json.dumps(description))


if __name__ == "__main__":
    main()
