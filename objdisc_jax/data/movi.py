"""What a record of MOVi (Kubric, as TensorFlow Datasets 1.0.0 stores it) holds: one video.

Of its features `video` and `segmentations` are read, a PNG for every frame; the optical flow, most
of a record, is skipped. Frames become records of their own:

    image         uint8 [n, h, w, 3]
    segmentation  uint8 [n, h, w], 0 for the background, otherwise instances from 1 on
    num_objects   uint8 [n], instances in the frame
    video         int32 [n], number of the video within the conversion
    frame         uint8 [n], number of the frame within the video
"""

import io
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from objdisc_jax.data import conversion, tfrecord
from objdisc_jax.data.errors import DataError

NUM_FRAMES = 24
_BLOCK = 16
_SHARD = re.compile(r"movi_([a-z])-(train|validation)\.tfrecord-(\d+)-of-(\d+)")


class Frame(NamedTuple):
    """One frame of a video, as it is stored."""

    image: bytes  # PNG
    segmentation: bytes  # PNG
    video: int
    frame: int
    file: pathlib.Path


def shards(folder: pathlib.Path, variant: str, part: str) -> list[pathlib.Path]:
    """The files of a part, "train" or "validation", in order; a `DataError` if one is missing."""
    found, total = {}, 0
    for file in folder.iterdir() if folder.is_dir() else ():
        match = _SHARD.fullmatch(file.name)
        if match and match[1] == variant and match[2] == part:
            found[int(match[3])], total = file, int(match[4])
    missing = sorted(set(range(total)) - found.keys())
    if not found or missing:
        which = f"{len(missing)} of {total} are missing, number {missing[0]} first" if found else ""
        raise DataError(
            f"The folder {folder} lacks files movi_{variant}-{part}.tfrecord-NUMBER-of-TOTAL"
            f"{which and f': {which}'}. Download all of them, or name another folder with --input."
        )
    return [found[number] for number in range(total)]


def source(
    files: Sequence[pathlib.Path], num_videos: int, size: tuple[int, int]
) -> conversion.Source[Frame]:
    """Returns the frames of the first videos in some files, for `conversion.convert`.

    Args:
        files: shards, of which all videos are taken in order.
        num_videos: how many there are at most.
        size: rows and columns of the frames; others are a `DataError`.
    """
    return conversion.Source(
        identity={
            "dataset": "movi",
            "files": [conversion.identity_of(file) for file in files],
            "num_videos": num_videos,
            "size": list(size),
        },
        num_records=num_videos * NUM_FRAMES,
        items=lambda start: _frames(files, start),
        decode=lambda first, frames: _decoded(frames, size),
        block=_BLOCK,
    )


def _frames(files: Sequence[pathlib.Path], start: int) -> Iterator[Frame]:
    """Yields frames from a number on."""
    skipped, first = divmod(start, NUM_FRAMES)
    video = 0
    for file in files:
        for record in tfrecord.read_records(file):
            video += 1
            if video <= skipped:
                continue
            features = tfrecord.split_example(record)
            lists = []
            for key in ("video", "segmentations"):
                images = tfrecord.feature_values(features[key]) if key in features else None
                if not isinstance(images, list) or len(images) != NUM_FRAMES:
                    count = "no" if images is None else len(images)
                    raise DataError(
                        f"Video {video - 1} of {file} has {count} images in '{key}', but must have "
                        f"{NUM_FRAMES}: it is not of MOVi, or damaged."
                    )
                lists.append(images)
            for number, (image, segmentation) in enumerate(zip(*lists, strict=True)):
                if number >= first:
                    yield Frame(image, segmentation, video - 1, number, file)
            first = 0


def _decoded(frames: Sequence[Frame], size: tuple[int, int]) -> dict[str, np.ndarray]:
    images, segmentations = [], []
    for frame in frames:
        for png, mode, arrays in (
            (frame.image, "RGB", images),
            (frame.segmentation, "L", segmentations),
        ):
            where = f"Frame {frame.frame} of video {frame.video} of {frame.file}"
            try:
                with Image.open(io.BytesIO(png)) as opened:
                    array = np.asarray(opened)
                    found = opened.mode
            except Exception as error:  # decoders raise anything
                raise DataError(f"{where} is damaged ({error}). Download the file anew.") from None
            if found != mode or array.shape[:2] != size:
                raise DataError(
                    f"{where} is an image of mode {found} and {array.shape[0]}x{array.shape[1]} "
                    f"pixels, but must have mode {mode} and {size[0]}x{size[1]}. Choose the size "
                    "with --size."
                )
            arrays.append(array)
    segmentation = np.stack(segmentations)
    return {
        "image": np.stack(images),
        "segmentation": segmentation,
        "num_objects": np.array([np.unique(s[s > 0]).size for s in segmentation], np.uint8),
        "video": np.array([frame.video for frame in frames], np.int32),
        "frame": np.array([frame.frame for frame in frames], np.uint8),
    }
