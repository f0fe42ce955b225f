"""Rendered CLEVR scenes: images per second, and how near they are to the published images.

    python benchmarks/scenes.py --num-images 640

Rendering and writing are timed apart: rendering on all devices, as far as the arrays in memory, and
then writing those to a file in a temporary folder. Medians of background and objects and numbers of
visible pixels stand beside those of genuine images. With a GPU, images are compared with the
CPU's, too.
"""

import argparse
import json
import os
import tempfile
import time
from concurrent import futures
from pathlib import Path

import jax
import numpy as np
from step_time import describe

from objdisc_jax.cli import int_in_range
from objdisc_jax.data import conversion
from objdisc_jax.render import blocks, clevr

LOOK = Path(__file__).parents[1] / "tests" / "golden" / "clevr_look.json"


def main() -> None:
    """Renders, writes, compares and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--num-images", type=int_in_range(16), default=640)
    add("--seed", type=int_in_range(0), default=0)
    add("--workers", type=int_in_range(1), default=len(os.sched_getaffinity(0)), help="threads")
    arguments = parser.parse_args()
    on_cpu = jax.default_backend() == "cpu"
    print(json.dumps(describe("cpu" if on_cpu else "cuda", arguments.workers)))

    key = jax.random.key(arguments.seed)
    renderer = blocks.BlockRenderer(lambda number, key: clevr.record(key, number), key)
    arrays = render(renderer, arguments.num_images, arguments.workers)
    write(arrays, renderer.size, arguments.workers)
    if not on_cpu:
        compare_backends(arrays, key, 16)
    compare(arrays, json.loads(LOOK.read_text()))


def render(renderer: blocks.BlockRenderer, num_images: int, workers: int) -> dict[str, np.ndarray]:
    """Returns the records, and prints how fast they were made."""

    def block(first: int) -> dict[str, np.ndarray]:
        return clevr.arrays(*renderer(first, min(renderer.size, num_images - first)))

    begun = time.perf_counter()
    for turn in range(jax.local_device_count()):
        renderer(turn * renderer.size, 1)
    print(f"compiled in {time.perf_counter() - begun:.1f} s")
    with futures.ThreadPoolExecutor(workers) as pool:
        begun, used = time.perf_counter(), time.process_time()
        parts = list(pool.map(block, range(0, num_images, renderer.size)))
        passed, used = time.perf_counter() - begun, time.process_time() - used
    print(
        f"rendered {num_images / passed:.1f} images/s, {1e3 * used / num_images:.1f} ms of "
        "processor time each"
    )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def write(arrays: dict[str, np.ndarray], block: int, workers: int) -> None:
    """Writes the records as render_clevr.py does, and prints how fast."""
    num_images = len(arrays["image"])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scenes.h5"
        begun = time.perf_counter()
        conversion.generate(
            file,
            num_images,
            lambda first, numbers: {
                name: values[first : first + len(numbers)] for name, values in arrays.items()
            },
            made_by={},
            block=block,
            workers=workers,
            show_progress=False,
        )
        passed = time.perf_counter() - begun
        size = file.stat().st_size / num_images
    print(f"wrote {num_images / passed:.1f} images/s, {size / 1e3:.0f} kB each")


def compare_backends(arrays: dict[str, np.ndarray], key: jax.Array, count: int) -> None:
    """Prints how far the first images are from those that the CPU makes."""
    cpu = jax.devices("cpu")[0]
    records = jax.jit(lambda key, i: jax.lax.map(lambda number: clevr.record(key, number), i))
    numbers = np.arange(count, dtype=np.int32)
    expected = clevr.arrays(*records(*jax.device_put((key, numbers), cpu)))
    away = np.abs(arrays["image"][:count].astype(int) - expected["image"]).max(-1)
    other = arrays["segmentation"][:count] != expected["segmentation"]
    print(
        f"beside the CPU: pixels more than 1 grey level away {np.mean(away > 1):.2e}, largest "
        f"difference {away.max()}, other labels {np.mean(other):.2e}"
    )


def compare(arrays: dict[str, np.ndarray], look: dict) -> None:
    """Prints medians beside those of genuine images."""
    image, labels = arrays["image"], arrays["segmentation"]
    differences = []
    print("\nbackground: rendered (genuine)")
    for row, levels in look["background"]["rows"].items():
        cells = []
        for column, level in zip(look["background"]["columns"], levels, strict=True):
            free = labels[:, int(row), column] == 0
            median = np.median(image[free, int(row), column].mean(-1))
            differences.append(abs(median - level))
            cells.append(f"{median:4.0f} ({level})")
        print(f"  row {row:>3}  " + "  ".join(cells))
    print(f"  largest difference {max(differences):.1f}")

    differences = []
    print("\nobjects: rendered (genuine)")
    for color, medians in look["colors"].items():
        for material, expected in medians.items():
            wanted = (arrays["color"] == 1 + list(clevr.COLORS).index(color)) & (
                arrays["material"] == 1 + clevr.MATERIALS.index(material)
            )
            pixels = [image[i][labels[i] == k] for i, k in np.argwhere(wanted)]
            if not pixels:
                continue
            median = np.median(np.concatenate(pixels), axis=0)
            differences.append(np.abs(median - expected).max())
            print(f"  {color:7s}{material:7s}{median} ({expected})")
    print(f"  largest difference {max(differences):.1f}")

    print("\nvisible pixels of an object at 5, 50 and 95 %: rendered (genuine)")
    for code, size in enumerate(clevr.SIZES, start=1):
        counts = arrays["visible_pixels"][arrays["size"] == code]
        found = np.quantile(counts, (0.05, 0.5, 0.95)).round()
        print(f"  {size}  {found} ({look['visible_pixels'][size]})")


if __name__ == "__main__":
    main()
