"""Turns raw Sketchy episodes into images: two camera views of a time step, seven crops of each.

    train/ep000000/ep000000_t000_fl_full.png     the view's middle square
    train/ep000000/ep000000_t000_fl_c0.png       to _c5.png: smaller squares, in two rows of three

These are the images on which GENESIS-V2 was trained. Its files of robot states are not made.
"""

import dataclasses
import io
import os
import pathlib

from PIL import Image

from objdisc_jax import files
from objdisc_jax.data import outputs, tfrecord
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.walk import walk

RESOLUTION = 128
FRAME_SIZE = (960, 600)
"""Columns and rows of a camera frame."""
CAMERAS = {"fl": "pixels/basket_front_left", "fr": "pixels/basket_front_right"}
"""The feature with the frames of each view."""
# Left, top, right, bottom: what is cut out of a frame, and then the squares cut out of that.
_VIEWS = {"fl": (144, 71, 816, 519), "fr": (144, 91, 816, 539)}
_SQUARES = {
    "full": (112, 0, 560, 448),
    "c0": (0, 0, 352, 352),
    "c1": (160, 0, 512, 352),
    "c2": (320, 0, 672, 352),
    "c3": (0, 96, 352, 448),
    "c4": (160, 96, 512, 448),
    "c5": (320, 96, 672, 448),
}


@dataclasses.dataclass(frozen=True)
class Episode:
    """A file of raw data and the folder that its images go to."""

    source: str  # a TFRecord file, one time step per record, relative to the folder of raw data
    folder: str  # `SPLIT/epNNNNNN`, relative to the folder of images


def plan(raw: pathlib.Path) -> list[Episode]:
    """Divides the TFRecord files in a folder and its subfolders between the splits.

    In alphabetical order the first tenth of them (rounded down) is for validation, the second for
    test, the rest for training. Episodes are numbered through all splits: train, valid, test.
    """
    files = walk(raw, r".+\.tfrecords?").files if raw.is_dir() else []
    sources = [os.fsdecode(name) for name in files]
    if not sources:
        found = "there is none" if raw.is_dir() else "there is no such folder"
        raise DataError(
            f"The input {raw} must be a folder with Sketchy episodes, NAME.tfrecord or "
            f"NAME.tfrecords, in it or below, but {found}. Name it with --input FOLDER."
        )
    tenth = len(sources) // 10
    splits = ["train"] * (len(sources) - 2 * tenth) + ["valid"] * tenth + ["test"] * tenth
    ordered = zip(sources[2 * tenth :] + sources[: 2 * tenth], splits, strict=True)
    return [Episode(source, f"{split}/ep{i:06d}") for i, (source, split) in enumerate(ordered)]


def process(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes the images of an episode to a folder, which takes its name when it is complete.

    Raises:
        DataError: the episode is damaged or not as expected, or there is no space.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with outputs.explained(folder), files.replacing(folder, partial=partial):
        partial.mkdir()
        steps = 0
        for steps, record in enumerate(tfrecord.read_records(source), start=1):
            for name, image in _images(record, f"{source}, time step {steps - 1}").items():
                image.save(partial / f"{folder.name}_t{steps - 1:03d}_{name}.png")
        if not steps:
            raise DataError(f"The episode {source} is empty. Fetch it again.")


def _images(record: bytes, where: str) -> dict[str, Image.Image]:
    """Returns the images of a time step by the ends of their names: `fl_full`, `fl_c0`, ..."""
    try:
        example = tfrecord.parse_example(record)
        views = {name: _frame(example, key) for name, key in CAMERAS.items()}
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return {
        f"{view}_{square}": frame.crop(_VIEWS[view])
        .crop(box)
        .resize((RESOLUTION, RESOLUTION), Image.Resampling.BILINEAR)
        for view, frame in views.items()
        for square, box in _SQUARES.items()
    }


def _frame(example: dict[str, tfrecord.Feature], key: str) -> Image.Image:
    """Decodes a camera frame."""
    values = example.get(key)
    if not isinstance(values, list) or len(values) != 1:
        raise DataError(
            f"There is no single image '{key}' among {', '.join(sorted(example))}. "
            "Is this a Sketchy episode?"
        )
    try:
        frame = Image.open(io.BytesIO(values[0])).convert("RGB")
    except Exception as error:  # decoders raise anything
        raise DataError(
            f"The image '{key}' cannot be decoded ({error}). Fetch the file again."
        ) from None
    if frame.size != FRAME_SIZE:
        raise DataError(
            f"The image '{key}' has {frame.size} columns and rows, but must have {FRAME_SIZE}. "
            "Is this a Sketchy episode?"
        )
    return frame
