"""Time of converting TFRecords to HDF5, against the published way of writing, side by side.

    python benchmarks/conversion.py

The published way makes every array resizable, compressed by gzip at level 4, chunked by h5py, and
grows it by one record at a time; masks are one plane per entity. Ours is
`objdisc_jax.data.conversion`. Both take turns, once with all of it: reading the same synthetic
TFRecord files with our decoder, and writing; and once with examples that are decoded already, so
that writing alone is compared. The table shows medians over the rounds, and what a full conversion
would take. Below it stands the peak memory of `data_scripts/convert_tfrecords.py` with a file that
makes several parts.
The packages zlib-ng, isal and google-crc32c are used if they are installed.
"""

import argparse
import dataclasses
import importlib.util
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

import h5py
import numpy as np

from objdisc_jax.data import conversion, multi_object, tfrecord
from objdisc_jax.data.synthetic import tetrominoes

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.data import tfrecords  # noqa: E402

# Data set, records here, and in full conversions.
CASES = (
    ("tetrominoes", 2_000, (65_000, 1_000_000)),
    ("clevr_with_masks", 200, (100_000,)),
)

# Standard deviation of the noise: with it records take about as much space as the published ones.
NOISE = 0.4


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    packages = ("zlib_ng", "isal", "google_crc32c")
    installed = [name for name in packages if importlib.util.find_spec(name)]
    print(
        f"{platform.machine()}, {arguments.workers} threads, h5py {h5py.__version__}, with "
        f"{', '.join(installed) or 'no faster packages'}; "
        f"medians of {arguments.rounds} rounds\n"
    )
    print(f"{'ms per record':<27}{'ours':>9}{'published':>11}{'ratio':>7}   full set, ours")
    with tempfile.TemporaryDirectory() as folder:
        for dataset, num_records, full in CASES:
            file = pathlib.Path(folder, f"{dataset}.tfrecords")
            write(file, dataset, num_records)
            compare(file, dataset, num_records, full, arguments)
        print(f"\npeak memory: {peak_memory(file, dataset):.0f} MB ({dataset})")


def write(file: pathlib.Path, dataset: str, num_records: int) -> None:
    """Writes a synthetic file, gzip as the published ones."""
    records = (tetrominoes_records if dataset == "tetrominoes" else clevr_records)(num_records)
    layout = multi_object.layout(dataset)
    tfrecords.write(
        file,
        (
            tfrecords.example({key: records[key][number] for key in layout.features})
            for number in range(num_records)
        ),
        compress=True,
    )


def tetrominoes_records(num_records: int) -> dict[str, np.ndarray]:
    """Generated Tetrominoes."""
    return dict(tetrominoes.generate(0, 0, num_records))


def clevr_records(num_records: int) -> dict[str, np.ndarray]:
    """Shaded balls of up to ten colours on a shaded ground, with the noise of a path tracer."""
    layout = multi_object.layout("clevr_with_masks")
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:240, :320].astype(np.float32)
    ground = 105 + 0.0006 * rows**2 + 12 * np.sin(cols / 120)
    images, planes = [], []
    for _ in range(num_records):
        image = ground[..., None] + np.array([2, 0, -3], np.float32)
        label = np.zeros((240, 320), np.uint8)
        for entity in range(1, rng.integers(4, 12)):
            row, col, radius = rng.uniform((60, 40, 12), (200, 280, 35))
            distance = ((rows - row) ** 2 + (cols - col) ** 2) / radius**2
            inside = distance < 1
            light = 0.4 + 0.6 * np.sqrt(1 - distance[inside])
            image[inside] = light[:, None] * rng.uniform(40, 200, 3)
            label[inside] = entity
        image += rng.normal(0, NOISE, image.shape)
        images.append(image.clip(0, 255).astype(np.uint8))
        planes.append(np.uint8(255) * (label == np.arange(11)[:, None, None]))
    records: dict[str, np.ndarray] = {"image": np.stack(images), "mask": np.stack(planes)}
    for key in layout.features.keys() - records.keys():
        shape, dtype = layout.features[key]
        records[key] = rng.uniform(0, 4, (num_records, *shape)).astype(dtype)
    records["visibility"] = np.asarray(records["mask"].any((2, 3)), np.float32)
    return records


def compare(
    file: pathlib.Path,
    dataset: str,
    num_records: int,
    full: tuple[int, ...],
    arguments: argparse.Namespace,
) -> None:
    """Times both converters in turn and prints a row."""
    layout = multi_object.layout(dataset)
    output = file.with_suffix(".h5")
    from_file = multi_object.source(layout, file, num_records)
    examples = list(decoded(layout, file))
    from_memory = dataclasses.replace(
        from_file,
        items=lambda start: iter(examples[start:]),
        decode=lambda _, items: multi_object.arrange(
            layout, {key: np.stack([item[key] for item in items]) for key in layout.features}
        ),
    )

    def ours(source: conversion.Source) -> None:
        conversion.convert(
            source,
            output,
            attributes=lambda num_records: {},
            overwrite=True,
            workers=arguments.workers,
            show_progress=False,
        )

    for what, mine, theirs in (
        ("all", lambda: ours(from_file), lambda: published(decoded(layout, file), output)),
        ("writing", lambda: ours(from_memory), lambda: published(examples, output)),
    ):
        pairs = [(seconds(mine), seconds(theirs)) for _ in range(arguments.rounds)]
        times = zip(*pairs, strict=True)
        mine_ms, theirs_ms = (1e3 * statistics.median(each) / num_records for each in times)
        ratio = statistics.median(b / a for a, b in pairs)
        full_set = ", ".join(f"{size:,}: {mine_ms * size / 60e3:.1f} min" for size in full)
        print(
            f"{dataset:<18}{what:<9}{mine_ms:>9.3f}{theirs_ms:>11.3f}{ratio:>7.1f}   "
            f"{full_set if what == 'all' else ''}",
            flush=True,
        )


def decoded(layout: multi_object.Layout, file: pathlib.Path) -> Iterator[dict[str, np.ndarray]]:
    """Yields the features of a file's records."""
    for record in tfrecord.read_records(file):
        example = tfrecord.parse_example(record)
        yield {key: np.reshape(example[key], layout.features[key][0]) for key in example}


def published(examples: Iterable[Mapping[str, np.ndarray]], output: pathlib.Path) -> None:
    """Writes examples in the published way."""
    with h5py.File(output, "w") as hdf5:
        for example in examples:
            for key, values in example.items():
                if key in hdf5:
                    array = cast(h5py.Dataset, hdf5[key])
                    array.resize(len(array) + 1, axis=0)
                    array[-1] = values
                else:
                    hdf5.create_dataset(
                        key,
                        data=values[None],
                        maxshape=(None, *values.shape),
                        chunks=True,
                        compression="gzip",
                        compression_opts=4,
                    )


def seconds(run: Callable[[], None]) -> float:
    """Returns the time that something takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_memory(file: pathlib.Path, dataset: str) -> float:
    """Returns the megabytes that the script needs at most, for a file four times as long."""
    longer = file.with_name("longer.tfrecords")
    longer.write_bytes(4 * file.read_bytes())  # gzip files may be strung together
    script = ROOT / "data_scripts" / "convert_tfrecords.py"
    arguments = ["--dataset", dataset, "--input", str(longer), "--output", f"{longer}.h5"]
    # (The operating system's figure for a child would count this process as well.)
    code = f"""
import re, runpy, sys
sys.argv = {[str(script), *arguments]}
runpy.run_path(sys.argv[0], run_name="__main__")
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read()).group(1))
"""
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(ended.stdout.split()[-1]) / 1024


if __name__ == "__main__":
    main()
