"""Reads data sets that are folders of pictures."""

import abc
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from objdisc_jax.data import cache, pictures
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import BadImageError, DataError

Names = np.ndarray  # bytes [n]: paths relative to the folder, encoded as the file system does


class Listing(NamedTuple):
    """The pictures in a folder.

    Attributes:
        names: of the pictures, sorted.
        times: int64 [m], when the folder and those in it last changed, in nanoseconds.
    """

    names: Names
    times: np.ndarray


class FolderReader(abc.ABC):
    """Reads the pictures in a declared folder and its subfolders.

    The folder is listed once; the list is kept in the user's cache until a folder in it changes.
    The declaration's field `image` is a regular expression that the names of pictures match.

    Attributes:
        declaration: the data set; all methods raise a `DataError` if its folder is missing or not
            as declared.
    """

    def __init__(self, declaration: DatasetDeclaration):
        self.declaration = declaration
        self._index: tuple[Names, Mapping[str, range], np.ndarray] | None = None

    @abc.abstractmethod
    def arrange(self, names: Names) -> tuple[Names, Mapping[str, range]]:
        """Puts the pictures, sorted by path, into the order of the records; returns the splits."""

    def segmentation_file(self, picture: Path) -> Path:
        """Returns the file with a picture's segmentation; for sets that declare masks."""
        raise NotImplementedError

    def object_counts(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the number of objects in each record; for sets that declare the largest."""
        raise NotImplementedError

    def splits(self) -> Mapping[str, range]:
        """Returns the splits of the pictures that are there."""
        return self._indexed()[1]

    def image_size(self) -> tuple[int, int]:
        """Returns rows and columns of the images that `read` returns."""
        size = self.declaration.resize or self.declaration.cropped_size
        assert size is not None, "pictures of different sizes are resized"
        return size

    def read(
        self, record: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"] | None]:
        """Returns a record's cropped image and segmentation (None if the set has no masks)."""
        file = self.path(record)
        image = self._fitted(pictures.read_rgb(file), file, Image.Resampling.BILINEAR)
        if not self.declaration.has_masks:
            return image, None
        file = self.segmentation_file(file)
        return image, self._fitted(pictures.read_labels(file), file, Image.Resampling.NEAREST)

    def path(self, record: int) -> Path:
        """Returns the absolute path of a record's picture."""
        return self.declaration.absolute_path / os.fsdecode(self.names()[record])

    def names(self) -> Names:
        """Returns the paths of all pictures, relative to the folder, in the order of records."""
        return self._indexed()[0]

    def times(self) -> np.ndarray:
        """Returns when the folder and those in it last changed."""
        return self._indexed()[2]

    def _indexed(self) -> tuple[Names, Mapping[str, range], np.ndarray]:
        if self._index is None:
            folder, pattern = self.declaration.folder(), self.declaration.fields["image"]
            found, times = list_pictures(folder, pattern)
            if not len(found):
                raise DataError(
                    f"The folder {folder} of data set '{self.declaration.name}' has no picture "
                    f"whose name matches {pattern} in it or below. {self.declaration.how_to_fix()}"
                )
            self._index = (*self.arrange(found), times)
        return self._index

    def _fitted(self, picture: Image.Image, file: Path, resample: Image.Resampling) -> Any:
        """Returns the declared crop of a picture, resized if declared."""
        declared = self.declaration
        columns, rows = picture.size
        if declared.image_size not in (None, (rows, columns)):
            setting = ", or set data.image_size" if declared.any_size else ""
            raise BadImageError(
                f"The picture {file} has {rows} rows and {columns} columns, but pictures of data "
                f"set '{declared.name}' have {declared.image_size}. Restore it{setting}."
            )
        if declared.crop is not None:
            (top, bottom), (left, right) = declared.crop
            picture = picture.crop((left, top, right, bottom))
        elif declared.resize is not None:
            height, width = declared.resize
            picture = picture.crop(pictures.centred_box(picture.size, width / height))
        if declared.resize is not None:
            height, width = declared.resize
            picture = picture.resize((width, height), resample)
        return np.asarray(picture)


def list_pictures(root: Path, pattern: str) -> Listing:
    """Lists the files below a folder whose names match a regular expression.

    Hidden files and folders are left out; links are followed.

    Raises:
        DataError: a folder cannot be read.
    """

    def compute() -> cache.Arrays:
        names, folders = _walk(root, re.compile(os.fsencode(pattern)))
        return {
            "names": np.array(sorted(names), np.bytes_),
            "folders": np.array([folder for folder, _ in folders], np.bytes_),
            "times": np.array([time for _, time in folders], np.int64),
        }

    def is_current(arrays: cache.Arrays) -> bool:
        base = os.fsencode(root)
        times = (os.stat(os.path.join(base, folder)).st_mtime_ns for folder in arrays["folders"])
        return all(a == b for a, b in zip(times, arrays["times"].tolist(), strict=True))

    try:
        arrays = cache.cached(("pictures", str(root), pattern), compute, is_current)
    except OSError as error:
        raise DataError(
            f"The folder {error.filename or root} cannot be read: {error.strerror or error}. See "
            "to its permissions."
        ) from None
    return Listing(arrays["names"], arrays["times"])


def by_subfolder(names: Names, subfolders: Mapping[str, str]) -> tuple[Names, Mapping[str, range]]:
    """Puts the pictures of one subfolder after those of another; each is a split.

    Args:
        names: paths, sorted.
        subfolders: the splits' subfolders.
    """
    parts, splits, start = [], {}, 0
    for split, subfolder in subfolders.items():
        prefix = os.fsencode(f"{subfolder}/")
        part = names[np.char.startswith(names, prefix)]
        parts.append(part)
        splits[split] = range(start, start + len(part))
        start += len(part)
    return np.concatenate(parts), splits


def _walk(root: Path, pattern: re.Pattern[bytes]) -> tuple[list[bytes], list[tuple[bytes, int]]]:
    """Returns the files, and all folders with the times of their last changes before the look."""
    base = os.fsencode(root)
    names, folders, waiting, seen = [], [], [b""], set()
    while waiting:
        folder = waiting.pop()
        status = os.stat(os.path.join(base, folder))
        if (status.st_dev, status.st_ino) in seen:
            continue  # a link in a circle
        seen.add((status.st_dev, status.st_ino))
        folders.append((folder, status.st_mtime_ns))
        with os.scandir(os.path.join(base, folder)) as entries:
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                if entry.is_dir():
                    waiting.append(os.path.join(folder, entry.name))
                elif pattern.fullmatch(entry.name):
                    names.append(os.path.join(folder, entry.name))
    return names, folders
