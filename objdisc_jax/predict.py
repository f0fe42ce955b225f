"""Segments your own images with a trained run.

    objdisc predict --workdir runs/demo --input photos/ --output segmented/
    objdisc predict --pretrained sa_clevr6_cpu --input photos/ --output segmented/

For every image it writes, under the image's name, what `--save` lists:

    labels   `_labels.png`, indexed; 0 is background, i is slot i
    overlay  `_overlay.png`
    panel    `_panel.png`: input, reconstruction, masks and what else the model shows
    npz      `.npz`: `masks` [k, h, w], `slots` [k, d] and `segmentation` at the model's resolution,
             and the `crop` (top, bottom, left, right) that it saw. GNM adds `count`, `boxes` in
             pixels of its resolution (top, bottom, left, right), `z_pres`, `z_depth`, `foreground`
             and `background`; SLATE adds `tokens`.

Label map and overlay have the size of the image; what was cropped away is background there.
Transparent images are composited on one colour, black unless `--matte` or the training data's
config says otherwise. The files have a mark by which later calls know and replace them; files that
`predict` did not write are segmented if they are images, and never replaced without `--overwrite`.

Processes, on one machine or on many, share a folder without overlap if each is told which of them
it is, under SLURM for example with

    --process-index $SLURM_PROCID --process-count $SLURM_NTASKS
"""

import argparse
import contextlib
import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from objdisc_jax import config as configs
from objdisc_jax import models, segmentation
from objdisc_jax.cli import Parser, add_trained, int_in_range, run
from objdisc_jax.data import datasets, inputs
from objdisc_jax.data.images import ReadOptions
from objdisc_jax.errors import UserError
from objdisc_jax.names import closest
from objdisc_jax.prediction import OUTPUTS, targets
from objdisc_jax.progress import Progress

CROPS = "data | square | none | TOP,BOTTOM,LEFT,RIGHT"
FEW_FILES = 64
"""Fewer are read in the main process, long before a worker process would have started."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = Parser("objdisc_jax.predict", __doc__)
    add = parser.add_argument
    add_trained(parser)
    add("--input", type=Path, nargs="+", required=True, help="images, or folders of images")
    add("--output", type=Path, default="segmented", help="folder to write to (default: segmented)")
    add(
        "--save",
        default="labels,overlay",
        metavar="WHAT,...",
        help="what to write of each image, separated by commas (default: labels,overlay): "
        + "; ".join(f"{name}: {what}" for name, what in OUTPUTS.items()),
    )
    add("--step", default="latest", help="checkpoint: latest, best, or a step (default: latest)")
    add(
        "--background",
        choices=segmentation.MODES,
        help="how background is told from objects: the slot that reaches furthest "
        "(largest_segment), pixels where every mask is low (low_confidence), both, pixels that the "
        "other slots would paint alike (contrast), or not at all (none); default: as the run's "
        "config says",
    )
    add("--region", choices=segmentation.REGIONS, help="how far a slot reaches")
    add("--threshold", type=float, help="below it masks are low, from 0 to 1")
    add("--min-contrast", type=float, help="below it the background's contrast is, from 0 to 1")
    add(
        "--crop",
        help=f"{CROPS} (default: none, all of the image, for models on features of a vision "
        "transformer; data for others: like the training data if the aspect ratio matches, "
        "otherwise the largest box of the model's aspect ratio in the centre)",
    )
    add(
        "--matte",
        metavar="R,G,B",
        help="colour, 0 to 255 each, on which transparent images are composited (default: as in "
        "training: black, unless data.matte says otherwise)",
    )
    add(
        "--max-pixels",
        type=int_in_range(1),
        help="images of more pixels are skipped (default: as in training: data.max_pixels, or "
        "Pillow's limit, 178956970)",
    )
    add(
        "--num-slots",
        type=int_in_range(1, segmentation.MAX_SLOTS),
        help="into how many slots images are divided at most (default: as in training); not for "
        "models that have learned each slot",
    )
    add(
        "--resolution",
        type=int_in_range(1),
        nargs=2,
        metavar=("ROWS", "COLUMNS"),
        help="the size at which the model sees images (default: as in training); not for models "
        "whose parameters depend on it",
    )
    add(
        "--keep-aspect",
        action="store_true",
        help="models on features of a vision transformer see every image in its own aspect ratio, "
        "in about as many patches as the resolution has, rather than stretched to it",
    )
    add(
        "--backbone",
        metavar="FILE",
        help="where the weights of the frozen vision transformer lie now, a safetensors file",
    )
    add(
        "--batch-size",
        type=int,
        default=16,
        help="images at a time, rounded up to 16 per device, or 4 for models on features (default: "
        "16); makes no difference to the results",
    )
    add(
        "--num-workers",
        type=int_in_range(0),
        help="processes that read images; 0 reads in the main process (default: half as many as "
        f"there are CPU cores, or 0 for fewer than {FEW_FILES} images)",
    )
    add(
        "--overwrite",
        action="store_true",
        help="replace files that predict did not write, too, where they have a result's name; "
        "results of earlier calls are always replaced, and never taken for images",
    )
    add("--process-index", type=int_in_range(0), default=0, help="this process, from 0 on")
    add("--process-count", type=int_in_range(1), default=1, help="processes that share the images")
    return parser.parse_args(argv[1:])


def main(arguments: argparse.Namespace) -> None:
    """Segments the images that the command line names."""
    outputs = _parse_outputs(arguments.save)
    index, count = arguments.process_index, arguments.process_count
    if arguments.threshold is not None and not 0.0 <= arguments.threshold <= 1.0:
        raise UserError(f"--threshold: got {arguments.threshold}; it lies between 0 and 1.")
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size: got {arguments.batch_size}; it is at least 1.")
    if index >= count:
        raise UserError(
            f"--process-index: got {index} with --process-count {count}; the processes are "
            f"numbered from 0 to {count - 1}."
        )
    found = inputs.find(arguments.input)
    own = list(targets.fitting(found[index::count], arguments.output, outputs))
    files = [file for file in own if isinstance(file, inputs.File)]
    targets.check(files, found, arguments.output, outputs, overwrite=arguments.overwrite)
    config = configs.load(arguments.workdir)
    declaration = datasets.get(config.data.name).declare(config.data)
    options = _read_options(arguments, declaration.read_options)
    declaration = dataclasses.replace(declaration, read_options=options)
    crop = arguments.crop and _parse_crop(arguments.crop)
    asked = {
        "num_slots": arguments.num_slots,
        "weights": arguments.backbone,
        "resolution": arguments.resolution,
    }
    changes = {name: value for name, value in asked.items() if value is not None}
    settings = models.changed_settings(config.model, changes)
    cropping = inputs.Cropping(crop, declaration, settings, arguments.keep_aspect)
    num_workers = arguments.num_workers
    if num_workers is None:
        num_workers = 0 if len(files) < FEW_FILES else max(1, _num_cores() // 2)
    # Workers start while the model is loaded.
    images = inputs.read(files, cropping, num_workers=num_workers)
    with contextlib.closing(images), _Progress(len(own)) as progress:
        for file in own:
            if isinstance(file, inputs.Skipped):
                progress.add(file)
        _segment(images, outputs, progress, arguments, options, changes)
    counts = progress.counts
    logging.info("Segmented %d image(s) into %s.", counts[inputs.File], arguments.output)
    failures = {
        "were skipped": counts[inputs.Skipped],
        "could not get all their results written": counts[inputs.Unwritten],
    }
    if any(failures.values()):
        found = ", ".join(f"{number} file(s) {what}" for what, number in failures.items() if number)
        raise UserError(f"{found}; see above.")


def _segment(
    images: Iterable[inputs.Input | inputs.Skipped],
    outputs: frozenset[str],
    progress: "_Progress",
    arguments: argparse.Namespace,
    read_options: ReadOptions,
    settings: Mapping[str, Any],
) -> None:
    """Segments images and writes the results."""
    from objdisc_jax.prediction.results import Writer
    from objdisc_jax.prediction.segmenter import Segmenter

    names = ("background", "region", "threshold", "min_contrast")
    asked = {name: getattr(arguments, name) for name in names}
    asked["mode"] = asked.pop("background")
    segmenter = Segmenter(
        arguments.workdir,
        which=arguments.step,
        background={name: value for name, value in asked.items() if value is not None},
        batch_size=arguments.batch_size,
        details="npz" in outputs,
        panel="panel" in outputs,
        settings=settings,
        keep_aspect=arguments.keep_aspect,
    )
    writer = Writer(
        arguments.output,
        outputs,
        segmenter.background,
        num_threads=_num_cores(),
        read_options=read_options,
        overwrite=arguments.overwrite,
    )

    def readable() -> Iterator[tuple[inputs.Input, Any]]:
        for image in images:
            if isinstance(image, inputs.Skipped):
                progress.add(image)
            else:
                yield image, image.seen

    for outcome in writer(segmenter(readable())):
        progress.add(outcome)


class _Progress(Progress):
    """Counts what has become of files, and tells of it."""

    def __init__(self, total: int):
        super().__init__(total, "images")
        self.counts: Counter[type] = Counter()

    def add(self, outcome: inputs.File | inputs.Skipped | inputs.Unwritten) -> None:
        """Counts what has become of one file."""
        self.counts[type(outcome)] += 1
        if not isinstance(outcome, inputs.File):
            what = "is skipped" if isinstance(outcome, inputs.Skipped) else "is not all written"
            logging.warning("%s %s: %s", outcome.file.path, what, outcome.reason)
        self.update()


def _num_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _parse_outputs(text: str) -> frozenset[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in OUTPUTS:
            raise UserError(
                f"--save: got {name!r}{closest(name, list(OUTPUTS))}; allowed are "
                f"{', '.join(OUTPUTS)}, separated by commas."
            )
    return frozenset(names)


def _read_options(arguments: argparse.Namespace, trained: ReadOptions) -> ReadOptions:
    """What the command line says of reading images; what it leaves open is as in training."""
    matte = trained.matte
    if arguments.matte:
        parts = [int(part) for part in arguments.matte.split(",") if part.strip().isdecimal()]
        if len(parts) != 3 or max(parts) > 255 or arguments.matte.count(",") != 2:
            raise UserError(
                f"--matte: got {arguments.matte!r}; it is red, green and blue, from 0 to 255, as "
                "in 255,255,255."
            )
        matte = (parts[0], parts[1], parts[2])
    return ReadOptions(matte, arguments.max_pixels or trained.max_pixels)


def _parse_crop(text: str) -> inputs.Crop:
    if text == "data" or text == "square" or text == "none":
        return text
    try:
        top, bottom, left, right = (int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--crop: got {text!r}; allowed are {CROPS}.") from None
    return top, bottom, left, right


if __name__ == "__main__":
    run(main, parse)
