"""How fast data is read: index of ClevrTex, layouts of HDF5, worker processes.

    python benchmarks/data_reading.py [index] [layouts] [workers]

`index` makes 50,000 ClevrTex scenes of tiny files and times the list of images and the filter by
objects, cold (a new cache) and cached. `layouts` reads the same CLEVR-with-masks images at random
from the published layout and from ours, in turn. `workers` reads a gzip-bound file with one and
with two worker processes, in turn. All files are temporary.
"""

import argparse
import contextlib
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
from conversion import clevr_records

from objdisc_jax.data import datasets, hdf5_writer, loader, multi_object

ROUNDS = 5
NUM_SCENES = 50_000
LAYERS = ("", "_flat", "_depth_0001", "_albedo_0001", "_shadow_0001", "_normal_0001")
NUM_IMAGES = 192
BATCH_SIZE = 32
ATTRIBUTES = {"split_train": [0, NUM_IMAGES], "split_val": [0, 0], "split_test": [0, 0]}


def main() -> None:
    """Runs the parts that the command line names, or all."""
    parts: dict[str, Callable[[Path], None]] = {
        "index": index,
        "layouts": layouts,
        "workers": workers,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="default: all")
    for name in parser.parse_args().parts or parts:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
            parts[name](Path(folder))


def index(folder: Path) -> None:
    """Times the index of 50,000 scenes."""
    relations = {side: [list(range(6))] * 7 for side in ("left", "right", "front", "behind")}
    thing = {"shape": "cube", "size": "large", "rotation": 17.25, "3d_coords": [0.25, 1.5, 0.7]}
    for number in range(NUM_SCENES):
        stem = folder / "data" / f"{number // 1000}" / f"CLEVRTEX_full_{number:06d}"
        if number % 1000 == 0:
            stem.parent.mkdir(parents=True)
        count = 3 + number % 8
        scene = {"num_objects": count, "objects": [thing] * count, "relationships": relations}
        Path(f"{stem}.json").write_text(json.dumps(scene))
        for layer in LAYERS:
            Path(f"{stem}{layer}.png").touch()
    config = datasets.get("clevrtex").default_config()
    config.path = str(folder / "data")
    for name, max_objects in {"all": None, "at most 6 objects": 6}.items():
        config.max_objects = max_objects
        for state in ("cold", "cached"):
            cold = state == "cold" and drop_page_cache()
            start = time.perf_counter()
            found = len(loader.load(config, "train"))
            seconds = time.perf_counter() - start
            note = " (page cache dropped)" if cold else ""
            print(f"index, {name}, {state}{note}: {seconds:.2f} s for {found} images", flush=True)


def layouts(folder: Path) -> None:
    """Compares random reads of the published layout with those of ours."""
    records = clevr_records(NUM_IMAGES)
    files = {"published": folder / "published.h5", "ours": folder / "ours.h5"}
    write_published(files["published"], records)
    segmentation = multi_object.label_map(records["mask"])
    images = {"image": records["image"], "segmentation": segmentation}
    with hdf5_writer.new_file(
        files["ours"], num_records=NUM_IMAGES, attributes=ATTRIBUTES
    ) as writer:
        writer.write(0, images)
    for num_workers in (0, 2):
        speed = functools.partial(images_per_second, num_workers=num_workers)
        found = in_turn({name: functools.partial(speed, file) for name, file in files.items()})
        report(f"{num_workers} workers", found)


def workers(folder: Path) -> None:
    """Compares two workers with one where unpacking takes the time."""
    file = folder / "published.h5"
    write_published(file, clevr_records(NUM_IMAGES))
    report(
        "gzip-bound file",
        in_turn(
            {
                f"{count} worker(s)": functools.partial(images_per_second, file, count)
                for count in (1, 2)
            }
        ),
    )


def write_published(file: Path, records: Mapping[str, np.ndarray]) -> None:
    """Writes images and masks in the chunks of the published file."""
    chunks = {"image": (1, 60, 80, 2), "mask": (1, 3, 60, 80, 1)}
    with h5py.File(file, "w") as hdf5:
        for key, chunk in chunks.items():
            shape = (NUM_IMAGES, *multi_object.layout("clevr_with_masks").features[key][0])
            hdf5.create_dataset(
                key,
                data=records[key].reshape(shape),
                chunks=chunk,
                compression="gzip",
                compression_opts=4,
            )
        hdf5.attrs.update(ATTRIBUTES)


def report(what: str, found: Mapping[str, list[float]]) -> None:
    """Prints the medians of two series of measurements, and of their ratios."""
    (first, slow), (second, fast) = found.items()
    ratios = [b / a for a, b in zip(slow, fast, strict=True)]
    print(
        f"{what}: {first} {statistics.median(slow):.0f} images/s, "
        f"{second} {statistics.median(fast):.0f} images/s, "
        f"ratio {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}",
        flush=True,
    )


def in_turn(measures: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measures in turn, so that whatever else the machine does meets all alike."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(ROUNDS):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def images_per_second(file: Path, num_workers: int) -> float:
    """Images per second of training batches; starting the workers and their read-ahead left out."""
    config = datasets.get("clevr_with_masks").default_config()
    config.path = str(file)
    dataset = loader.load(config, "train")
    batches = loader.train_batches(
        dataset,
        fields=("image", "segmentation"),
        batch_size=BATCH_SIZE,
        seed=0,
        num_workers=num_workers,
    )
    with contextlib.closing(batches):
        for _ in range(1 + 2 * num_workers):
            next(batches)
        start, count = time.perf_counter(), 0
        while count < 6 or time.perf_counter() - start < 2:
            next(batches)
            count += 1
        return count * BATCH_SIZE / (time.perf_counter() - start)


def drop_page_cache() -> bool:
    """Makes the system forget what it has read; needs root. Returns whether it did."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
