"""Segments your own images with a trained run.

    python -m objdisc_jax.predict --workdir runs/demo --input photos/ --output segmented/

For every image it writes, under the image's name: `_labels.png` (indexed; 0 is background, i is
slot i), `_overlay.png`, `_panel.png`, and a `.npz` with `masks` [k, h, w], `slots` [k, d] and
`segmentation` at the model's resolution, and the `crop` (top, bottom, left, right) that it saw.
GNM adds `count`, `boxes` in pixels of its resolution (top, bottom, left, right), `z_pres`,
`z_depth`, `foreground` and `background`; SLATE adds `tokens`.
Label map and overlay have the size of the image; what was cropped away is background there.
"""

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from absl.flags import argparse_flags
from PIL import Image

from objdisc_jax import segmentation
from objdisc_jax.cli import run
from objdisc_jax.data.declaration import scaled_box
from objdisc_jax.data.images import NAMES, SUFFIXES, centred_box, read_rgb
from objdisc_jax.data.walk import walk
from objdisc_jax.errors import UserError

CROPS = "data | square | none | TOP,BOTTOM,LEFT,RIGHT"


class _Input(NamedTuple):
    """An image file as read: all of it, and the part of it that the model sees."""

    file: Path
    image: np.ndarray  # uint8 [H, W, 3]
    crop: tuple[int, int, int, int]  # top, bottom, left, right
    seen: np.ndarray  # uint8 [h, w, 3], of the model's or the training data's size


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse_flags.ArgumentParser(
        prog="python -m objdisc_jax.predict", description=(__doc__ or "").split("\n")[0]
    )
    add = parser.add_argument
    add("--workdir", type=Path, required=True, help="the run directory of a trained model")
    add("--input", type=Path, nargs="+", required=True, help="images, or folders of images")
    add(
        "--output",
        type=Path,
        required=True,
        help="folder to write to: label map, overlay and panel of each image, and a .npz with "
        "masks, slots and what else the model says (count, boxes, tokens)",
    )
    add("--step", default="latest", help="checkpoint: latest, best, or a step (default: latest)")
    add(
        "--background",
        choices=segmentation.MODES,
        help="how background is told from objects: the slot that reaches furthest "
        "(largest_segment), pixels where every mask is low (low_confidence), both, or not at all "
        "(none); default: as the run's config says",
    )
    add("--region", choices=segmentation.REGIONS, help="how far a slot reaches")
    add("--threshold", type=float, help="below it masks are low, from 0 to 1")
    add(
        "--crop",
        default="data",
        help=f"{CROPS} (default: like the training data if the aspect ratio matches, otherwise the "
        "largest box of the model's aspect ratio in the centre)",
    )
    add("--batch-size", type=int, default=16, help="images at a time")
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> None:
    """Segments the images that the command line names."""
    broken = segment_files(arguments)
    if broken:
        raise UserError(f"{len(broken)} file(s) could not be read and were skipped; see above.")


def segment_files(arguments: argparse.Namespace) -> list[Path]:
    """Segments files and writes the results; returns the files that could not be read."""
    import jax

    from objdisc_jax import sharding
    from objdisc_jax.data import datasets
    from objdisc_jax.evaluation import visualization
    from objdisc_jax.training import run_dir

    if arguments.threshold is not None and not 0.0 <= arguments.threshold <= 1.0:
        raise UserError(f"--threshold: got {arguments.threshold}; it lies between 0 and 1.")
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size: got {arguments.batch_size}; it is at least 1.")
    crop = _parse_crop(arguments.crop)
    files = _find(arguments.input, arguments.output)
    mesh = sharding.data_mesh()
    trained = run_dir.load_trained(
        arguments.workdir, sharding.replicated(mesh), which=arguments.step
    )
    if further := [name for name in trained.model.fields if name != "image"]:
        raise UserError(
            f"--workdir: the model {trained.config.model.name!r} needs {', '.join(further)} beside "
            "images, so it can only be evaluated on its data: "
            "python -m objdisc_jax.main --mode eval --config CONFIG --workdir RUN"
        )
    declaration = datasets.get(trained.config.data.name).declare(trained.config.data)
    draw = visualization.make_draw(trained.graphdef, trained.config.seed)
    asked = {
        "mode": arguments.background,
        "region": arguments.region,
        "threshold": arguments.threshold,
    }
    background = trained.config.background.to_dict()
    background |= {key: value for key, value in asked.items() if value is not None}
    broken: list[Path] = []
    waiting: dict[tuple[int, ...], list[tuple[str, _Input]]] = {}

    def flush(size: tuple[int, ...]) -> None:
        batch = waiting.pop(size)
        images = np.stack([given.seen for _, given in batch])
        # A full batch, so that one compilation serves all; and one noise, so that a result does
        # not depend on which other images there are.
        images = np.concatenate([images, images[:1].repeat(arguments.batch_size - len(batch), 0)])
        fields = {"image": images, "index": np.zeros(arguments.batch_size, np.int32)}
        rows, prediction = jax.device_get(draw(trained.params, fields, trained.step))
        if prediction.masks is None:
            raise UserError(
                f"--workdir: the model {trained.config.model.name!r} has no masks, and so segments "
                "no images. Name a run of another model."
            )
        labels = segmentation.segment(
            prediction.masks, background=prediction.background, **background
        )
        for i, (name, given) in enumerate(batch):
            row, one = jax.tree.map(lambda x, i=i: x[i : i + 1], (rows, prediction))
            panel = visualization.compose(row, one, background)
            counted = {} if prediction.count is None else {"count": prediction.count[i]}
            arrays = {
                **{name: value[i] for name, value in prediction.extras.items()},
                **counted,
                "masks": prediction.masks[i],
                "slots": prediction.slots[i],
                "segmentation": labels[i],
            }
            _write(arguments.output / name, given, arrays, panel)

    for name, file in files.items():
        try:
            given = _read(file, crop, declaration, tuple(trained.config.model.resolution))
        except UserError as error:
            logging.warning("%s is skipped: %s", file, error)
            broken.append(file)
            continue
        batch = waiting.setdefault(given.seen.shape, [])
        batch.append((name, given))
        if len(batch) == arguments.batch_size:
            flush(given.seen.shape)
    for size in list(waiting):
        flush(size)
    logging.info("Segmented %d image(s) into %s.", len(files) - len(broken), arguments.output)
    return broken


def _find(inputs: list[Path], output: Path) -> dict[str, Path]:
    """Image files by the name that their results get; folders are searched with subfolders.

    What an earlier call wrote below `output` is not searched.
    """
    found: list[tuple[Path, Path]] = []
    left_out: Counter[str] = Counter()
    for entry in inputs:
        if entry.is_dir():
            inside = walk(entry, NAMES, exclude=[output], skip_unreadable=True)
            relative = [Path(os.fsdecode(name)) for name in inside.files]
            found += [(entry / path, path) for path in relative]
            left_out += inside.left_out
        elif entry.is_file():
            found.append((entry, Path(entry.name)))
        else:
            raise UserError(f"--input: there is no file or folder {entry}.")
    others = ", ".join(f"{count} {kind}" for kind, count in left_out.items())
    if not found:
        folders = ", ".join(map(str, inputs))
        raise UserError(
            f"--input: there is no image in {folders} ({' '.join(SUFFIXES)}). Left out: "
            f"{others or 'nothing'}."
        )
    if others:
        logging.info("Left out in the folders: %s.", others)
    names: dict[str, Path] = {}
    for file, relative in found:
        name = str(relative.with_suffix(""))
        if name in names:  # a.png beside a.jpg
            name = str(relative)
        if name in names:
            raise UserError(
                f"--input: {names[name]} and {file} would get results of the same name {name}. "
                "Segment them into two output folders."
            )
        names[name] = file
    return names


def _parse_crop(text: str) -> str | tuple[int, int, int, int]:
    if text in ("data", "square", "none"):
        return text
    try:
        top, bottom, left, right = (int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--crop: got {text!r}; allowed are {CROPS}.") from None
    if not (0 <= top < bottom and 0 <= left < right):
        raise UserError(f"--crop: got {text}; 0 <= TOP < BOTTOM and 0 <= LEFT < RIGHT must hold.")
    return top, bottom, left, right


def _read(file: Path, crop, declaration, resolution: tuple[int, int]) -> _Input:
    """Reads an image file and cuts out what the model is to see of it.

    A crop of the training data's size is left to the model's own resizing; anything else is
    brought to the model's resolution here, with antialiasing.
    """
    image = np.asarray(read_rgb(file))
    height, width = image.shape[:2]
    size = declaration.image_size
    if crop == "data" and size is not None and height * size[1] == width * size[0]:
        box = declaration.crop or ((0, size[0]), (0, size[1]))
        (top, bottom), (left, right) = scaled_box(box, size, (height, width))
    elif crop == "none":
        top, bottom, left, right = 0, height, 0, width
    elif crop in ("data", "square"):
        aspect = resolution[1] / resolution[0] if crop == "data" else 1.0
        left, top, right, bottom = centred_box((width, height), aspect)
    else:
        top, bottom, left, right = crop
        if bottom > height or right > width:
            raise UserError(f"--crop reaches beyond its {height} rows and {width} columns")
    seen = image[top:bottom, left:right]
    if declaration.resize is not None or seen.shape[:2] != declaration.cropped_size:
        rows, columns = resolution
        resized = Image.fromarray(seen).resize((columns, rows), Image.Resampling.BILINEAR)
        seen = np.asarray(resized)
    return _Input(file, image, (top, bottom, left, right), seen)


def _write(stem: Path, given: _Input, arrays: dict[str, np.ndarray], panel: np.ndarray) -> None:
    """Writes the four files of an image."""
    from objdisc_jax import visualize

    top, bottom, left, right = given.crop
    small = Image.fromarray(arrays["segmentation"])
    labels = np.zeros(given.image.shape[:2], np.uint8)
    inside = small.resize((right - left, bottom - top), Image.Resampling.NEAREST)
    labels[top:bottom, left:right] = np.asarray(inside)
    try:
        visualize.save_labels(f"{stem}_labels.png", labels)
        visualize.save_png(f"{stem}_overlay.png", visualize.overlay(given.image, labels))
        visualize.save_png(f"{stem}_panel.png", panel)
        arrays = {"crop": np.array(given.crop), **arrays}
        np.savez_compressed(f"{stem}.npz", allow_pickle=False, **arrays)
    except OSError as error:
        raise UserError(
            f"--output: {stem} cannot be written ({error}). Make room, or name another folder."
        ) from error


if __name__ == "__main__":
    run(main, parse)
