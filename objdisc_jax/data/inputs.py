"""A user's own images: found, cropped as a model knows its images, read by worker processes.

What is kept of an image is its file and what the model sees of it, however large it is.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import UInt8
from PIL import Image

from objdisc_jax.data.declaration import DatasetDeclaration, scaled_box
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.images import NAMES, SUFFIXES, centred_box, read_rgb
from objdisc_jax.data.walk import walk

_FILES = 8
"""Files that a worker is asked for at a time."""
_PREFETCH = 8
"""So many times these it may be ahead."""


Crop = Literal["data", "square", "none"] | tuple[int, int, int, int]
"""`data`: as the training data's, where the aspect ratio matches, otherwise the largest box of the
model's in the centre; `square`: the largest square in the centre; `none`: all of the image; or top,
bottom, left and right."""


class File(NamedTuple):
    """An image file."""

    name: str  # that its results get: its path below the folder that was searched, without suffix
    path: Path


class Input(NamedTuple):
    """What is known of an image file that was read."""

    file: File
    size: tuple[int, int]  # rows and columns of all of it
    crop: tuple[int, int, int, int]  # top, bottom, left, right of what the model sees
    seen: UInt8[np.ndarray, "h w 3"]  # that, of the model's or the training data's size


class Skipped(NamedTuple):
    """A file that could not be read."""

    file: File
    reason: str


class Unwritten(NamedTuple):
    """A file whose results could not be written, or not all."""

    file: File
    reason: str


def find(inputs: Sequence[Path], output: Path) -> list[File]:
    """Returns the image files among `inputs` and, with subfolders, in the folders among them.

    They are sorted within each folder. What lies below `output`, say results of an earlier call, is
    left out.

    Raises:
        DataError: there is no such file, no image at all, or two would have one name.
    """
    found: list[tuple[str, Path]] = []
    left_out: Counter[str] = Counter()
    for entry in inputs:
        if entry.is_dir():
            inside = walk(entry, NAMES, exclude=[output], skip_unreadable=True)
            found += [(name, entry / name) for name in map(os.fsdecode, inside.files)]
            left_out += inside.left_out
        elif entry.is_file():
            found.append((entry.name, entry))
        else:
            raise DataError(f"--input: there is no file or folder {entry}.")
    others = ", ".join(f"{count} {kind}" for kind, count in left_out.items())
    if not found:
        folders = ", ".join(map(str, inputs))
        raise DataError(
            f"--input: there is no image in {folders} ({' '.join(SUFFIXES)}). Left out: "
            f"{others or 'nothing'}."
        )
    if others:
        logging.info("Left out in the folders: %s.", others)
    paths: dict[str, Path] = {}
    for relative, path in found:
        name = os.path.splitext(relative)[0]
        if name in paths:  # a.png beside a.jpg
            name = relative
        if name in paths:
            raise DataError(
                f"--input: {paths[name]} and {path} would get results of the same name {name}. "
                "Segment them into two output folders."
            )
        paths[name] = path
    return [File(name, path) for name, path in paths.items()]


@dataclasses.dataclass(frozen=True)
class Cropping:
    """How a model gets to see images.

    A crop of the training data's size is left to the model's own resizing; anything else is brought
    to the model's resolution here, with antialiasing.
    """

    crop: Crop  # what is cropped
    declaration: DatasetDeclaration  # the data set that the model was trained on
    resolution: tuple[int, int]  # rows and columns, the model's

    def box(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        """Returns what is cropped out of an image of so many rows and columns.

        Raises:
            DataError: the image is too small for it.
        """
        size = self.declaration.image_size
        if isinstance(self.crop, tuple):
            _, bottom, _, right = self.crop
            if bottom > rows or right > columns:
                raise DataError(f"--crop reaches beyond its {rows} rows and {columns} columns")
            return self.crop
        if self.crop == "none":
            return 0, rows, 0, columns
        if self.crop == "data" and size is not None and rows * size[1] == columns * size[0]:
            box = self.declaration.crop or ((0, size[0]), (0, size[1]))
            (top, bottom), (left, right) = scaled_box(box, size, (rows, columns))
            return top, bottom, left, right
        aspect = self.resolution[1] / self.resolution[0] if self.crop == "data" else 1.0
        left, top, right, bottom = centred_box((columns, rows), aspect)
        return top, bottom, left, right

    def read(self, file: File) -> Input:
        """Reads an image file.

        Raises:
            DataError: it is no image, damaged, or too small for the crop.
        """
        image = read_rgb(file.path)
        size = image.height, image.width
        top, bottom, left, right = crop = self.box(*size)
        if crop != (0, size[0], 0, size[1]):
            image = image.crop((left, top, right, bottom))
        kept = (image.height, image.width) == self.declaration.cropped_size
        if self.declaration.resize is not None or not kept:
            rows, columns = self.resolution
            image = image.resize((columns, rows), Image.Resampling.BILINEAR)
        return Input(file, size, crop, np.asarray(image))

    def __getitems__(self, files: Sequence[File]) -> list[Input | Skipped]:
        """Reads what can be read of files, as worker processes do."""
        return [self._read_or_skip(file) for file in files]

    def _read_or_skip(self, file: File) -> Input | Skipped:
        try:
            return self.read(file)
        except DataError as error:
            return Skipped(file, str(error))
        except Exception as error:  # a decoder may raise anything on a damaged file
            return Skipped(file, f"The image cannot be read ({type(error).__name__}: {error}).")


def read(
    files: Sequence[File], cropping: Cropping, *, num_workers: int
) -> Generator[Input | Skipped, None, None]:
    """Returns the images of files, in their order; reading begins at once.

    Args:
        files: which.
        cropping: what the model sees of them.
        num_workers: worker processes that read ahead; 0 reads in this process.

    Raises:
        DataError: while iterating, if a worker process dies.
    """
    from objdisc_jax.data import loader  # imports torch

    starts = range(0, len(files), _FILES)
    batches = loader.read_ahead(
        cropping,
        [files[start : start + _FILES] for start in starts],
        num_workers=min(num_workers, len(starts)),
        in_process="--num-workers 0",
        prefetch=_PREFETCH,
    )
    return (image for batch in batches for image in batch)
