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

from objdisc_jax.data import marks
from objdisc_jax.data.declaration import DatasetDeclaration, scaled_box
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.images import NAMES, SUFFIXES, centred_box, read_rgb
from objdisc_jax.data.walk import walk
from objdisc_jax.settings import Settings

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
    """A file that is not segmented: it could not be read, or its results have no name."""

    file: File
    reason: str


class Unwritten(NamedTuple):
    """A file whose results could not be written, or not all."""

    file: File
    reason: str


def find(inputs: Sequence[Path]) -> list[File | Skipped]:
    """Returns the image files among `inputs` and, with subfolders, in the folders among them.

    They are sorted within each folder. Results of earlier calls are left out, and so is what is
    named twice. A file whose results would have the name of another's is skipped.

    Raises:
        DataError: there is no such file, a folder cannot be read, or there is no image at all.
    """
    found: dict[str, tuple[str, Path]] = {}  # names and paths, by absolute paths
    left_out: Counter[str] = Counter()
    unreadable: list[str] = []

    def add(name: str, path: Path) -> None:
        found.setdefault(os.path.abspath(path), (name, path))

    for entry in inputs:
        if os.path.isdir(entry):
            try:
                inside = walk(entry, NAMES, skip_unreadable=True)
            except OSError as error:
                raise DataError(
                    f"--input: the folder {entry} cannot be read: {error.strerror or error}. See "
                    "to its permissions."
                ) from None
            for name in map(os.fsdecode, inside.files):
                add(name, entry / name)
            left_out += inside.left_out
            unreadable += [os.path.join(entry, folder) for folder in inside.unreadable]
        elif not os.path.isfile(entry):
            raise DataError(f"--input: there is no file or folder {entry}{_why_not_found(entry)}.")
        elif marks.is_result(entry):
            left_out["results of predict"] += 1
        else:
            add(entry.name, entry)
    if unreadable:
        logging.warning("Folders that cannot be read: %s.", ", ".join(unreadable))
    others = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
    if not found:
        folders = ", ".join(map(str, inputs))
        raise DataError(
            f"--input: there is no image in {folders} ({' '.join(SUFFIXES)}). Left out: "
            f"{others or 'nothing'}."
        )
    if others:
        logging.info("Left out: %s.", others)
    files: dict[str, File] = {}
    return [_named(name, path, files) for name, path in found.values()]


def _why_not_found(path: Path) -> str:
    """What else than that a file is missing keeps it from being found, as in " (reason)"."""
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        return f" ({error.strerror or error})"
    return ""


def _named(relative: str, path: Path, files: dict[str, File]) -> File | Skipped:
    """Names a file's results unlike those of the others, which it joins."""
    name = os.path.splitext(relative)[0]
    if name in files:  # a.png beside a.jpg
        name = relative
    file = File(name, path)
    if name in files:
        return Skipped(
            file,
            f"its results would have the name {name}, as those of {files[name].path} have. Segment "
            "it into another folder.",
        )
    files[name] = file
    return file


@dataclasses.dataclass(frozen=True)
class Cropping:
    """How a model gets to see images.

    A crop of the training data's size is left to the model's own resizing; anything else is brought
    to the model's resolution here, with antialiasing.
    """

    crop: Crop | None  # what is cropped; None: "none" for models with coarse masks, else "data"
    declaration: DatasetDeclaration  # the data set that the model was trained on
    settings: Settings  # the model's
    keep_aspect: bool = False  # models on features see a crop in its own aspect ratio

    def __post_init__(self) -> None:
        if self.keep_aspect and self.settings.fitted(1, 1) is None:
            rows, columns = self.settings.resolution
            raise DataError(
                f"keep_aspect: the model sees every image in {rows} rows and {columns} columns. "
                "Leave it out: models on features of a vision transformer alone see others."
            )
        if self.crop is None:
            crop = "none" if self.settings.has_coarse_masks else "data"
            object.__setattr__(self, "crop", crop)
        if isinstance(self.crop, tuple) and len(self.crop) == 4:
            top, bottom, left, right = self.crop
            is_allowed = 0 <= top < bottom and 0 <= left < right
        else:
            is_allowed = self.crop in ("data", "square", "none")
        if not is_allowed:
            raise DataError(
                f"crop: got {self.crop!r}; allowed are 'data', 'square', 'none', and (top, bottom, "
                "left, right) with 0 <= top < bottom and 0 <= left < right."
            )

    def box(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        """Returns what is cropped out of an image of so many rows and columns.

        Raises:
            DataError: the image is too small for it.
        """
        size = self.declaration.image_size
        if isinstance(self.crop, tuple):
            _, bottom, _, right = self.crop
            if bottom > rows or right > columns:
                raise DataError(f"crop: it reaches beyond its {rows} rows and {columns} columns")
            return self.crop
        if self.crop == "none":
            return 0, rows, 0, columns
        if self.crop == "data" and size is not None and rows * size[1] == columns * size[0]:
            box = self.declaration.crop or ((0, size[0]), (0, size[1]))
            (top, bottom), (left, right) = scaled_box(box, size, (rows, columns))
            return top, bottom, left, right
        height, width = self.settings.resolution
        aspect = width / height if self.crop == "data" else 1.0
        left, top, right, bottom = centred_box((columns, rows), aspect)
        return top, bottom, left, right

    def read(self, file: File) -> Input:
        """Reads an image file.

        Raises:
            DataError: it is no image, damaged, or too small for the crop.
        """
        image = read_rgb(file.path, self.declaration.read_options)
        return Input(file, (image.height, image.width), *self.see(image))

    def see(
        self, image: Image.Image
    ) -> tuple[tuple[int, int, int, int], UInt8[np.ndarray, "h w 3"]]:
        """Returns what a model sees of an RGB image: the box, and its pixels.

        Raises:
            DataError: it is too small for the crop.
        """
        size = image.height, image.width
        top, bottom, left, right = crop = self.box(*size)
        if crop != (0, size[0], 0, size[1]):
            image = image.crop((left, top, right, bottom))
        kept = (image.height, image.width) == self.declaration.cropped_size
        if self.declaration.resize is not None or not kept or self.keep_aspect:
            rows, columns = self._resolution(image.height, image.width)
            image = image.resize((columns, rows), Image.Resampling.BILINEAR)
        return crop, np.asarray(image)

    def _resolution(self, rows: int, columns: int) -> tuple[int, int]:
        """The resolution at which the model sees a crop."""
        fitted = self.settings.fitted(rows, columns) if self.keep_aspect else None
        return fitted or self.settings.resolution

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
