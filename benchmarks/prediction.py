"""How fast `predict` segments photographs, as a whole and step by step.

    python benchmarks/prediction.py --workdir RUN [--num-images 200] [--size 1024] [OPTIONS]

OPTIONS go to `predict`. The images are JPEGs of textures with the spectrum of photographs. "Whole"
is one command and holds its start; times of a step are those of one thread.
"""

import argparse
import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from objdisc_jax import visualize
from objdisc_jax.data.images import read_rgb


def main() -> None:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, help="the run directory of a trained model")
    parser.add_argument("--num-images", type=int, default=200)
    parser.add_argument("--size", type=int, default=1024, help="of the images, in pixels")
    given, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "in"
        images.mkdir()
        for number, pixels in enumerate(textures(8, given.size)):
            for copy in range(number, given.num_images, 8):
                Image.fromarray(pixels).save(images / f"{copy:06}.jpg", quality=92)
        steps(images / "000000.jpg", Path(folder) / "step.png")
        command = [sys.executable, "-m", "objdisc_jax.predict", "--workdir", given.workdir]
        command += ["--input", str(images), "--output", f"{folder}/out", *options]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
    print(f"whole: {seconds:.1f} s, {given.num_images / seconds:.1f} images/s")


def textures(count: int, size: int) -> list[np.ndarray]:
    """Random images, uint8 [size, size, 3], whose amplitudes fall with 1 / frequency."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    spectrum = 1 / np.maximum(frequency, 1 / size)
    found = []
    for _ in range(count):
        phases = np.exp(2j * np.pi * rng.random((3, *spectrum.shape)))
        waves = np.fft.irfft2(spectrum * phases, s=(size, size)).transpose(1, 2, 0)
        grey = 128 + 45 * (0.4 * waves + 1.4 * waves.mean(-1, keepdims=True)) / waves.std()
        found.append(np.clip(grey + rng.normal(0, 2.5, waves.shape), 0, 255).astype(np.uint8))
    return found


def steps(photo: Path, scratch: Path) -> None:
    """Times what is done with every image, beside the model."""
    image = read_rgb(photo)
    pixels = np.asarray(image)
    labels = np.asarray(
        Image.fromarray(np.arange(1, 10, dtype=np.uint8).reshape(3, 3) % 6).resize(image.size, 0)
    )
    overlay = visualize.overlay(pixels, labels)
    measured: dict[str, Callable[[], object]] = {
        "decode": functools.partial(read_rgb, photo),
        "resize": functools.partial(image.resize, (128, 128), Image.Resampling.BILINEAR),
        "write labels": functools.partial(visualize.save_labels, scratch, labels),
        "draw overlay": functools.partial(visualize.overlay, pixels, labels),
        "write overlay": functools.partial(visualize.save_png, scratch, overlay),
    }
    for name, step in measured.items():
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < 0.5:
            step()
            count += 1
        print(f"{name}: {1000 * (time.perf_counter() - start) / count:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
