"""Reads data sets that are folders of images."""

import functools
import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Int64
from PIL import Image

from objdisc_jax.data import cache, images
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import BadImageError, DataError
from objdisc_jax.data.splits import consecutive
from objdisc_jax.data.walk import Walk, walk

Names = np.ndarray  # bytes [n]: paths relative to the folder, encoded as the file system does


class FolderReader:
    """Reads the images in a declared folder and its subfolders.

    The folder is listed once; the list is kept in the user's cache until a folder in it changes.
    The declaration's source `image` is a regular expression that the names of images match; those
    of the splits are their subfolders, unless a subclass arranges them otherwise.

    Attributes:
        declaration: the data set; all methods raise a `DataError` if its folder is missing or not
            as declared.
        skips_unreadable: whether folders below its folder that cannot be read are left out, with a
            warning, instead.
    """

    skips_unreadable = False

    def __init__(self, declaration: DatasetDeclaration):
        self.declaration = declaration

    def arrange(self, names: Names) -> tuple[Names, Mapping[str, range]]:
        """Puts the images, sorted by path, into the order of the records; returns the splits."""
        prefixes = {s: f"{self.declaration.source(s)}/" for s in self.declaration.splits}
        parts = {s: names[np.char.startswith(names, p.encode())] for s, p in prefixes.items()}
        sizes = {split: len(part) for split, part in parts.items()}
        return np.concatenate([*parts.values()]), consecutive(**sizes)

    def segmentation_file(self, image: Path) -> Path:
        """Returns the file with an image's segmentation; for sets that declare masks."""
        raise NotImplementedError

    def object_counts(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the number of objects in each record; for sets that declare the largest."""
        raise NotImplementedError

    def field(self, name: str, image: Path) -> np.ndarray:
        """Reads a field of the record with that image; sets that declare others override it."""
        if name == "image":
            size, resample = self.declaration.resize, Image.Resampling.BILINEAR
            pixels = images.read_rgb(image, self.declaration.read_options)
            return self._fitted(pixels, image, size, resample)
        if name == "segmentation":
            file = self.segmentation_file(image)
            return self.fitted_labels(images.read_labels(file), file)
        raise NotImplementedError(
            f"Data set '{self.declaration.name}' declares the field '{name}', but "
            f"{type(self).__name__} does not read it: override its method `field`."
        )

    def splits(self) -> Mapping[str, range]:
        """Returns the splits of the images that are there."""
        return self._indexed[1]

    def image_size(self) -> tuple[int, int]:
        """Returns rows and columns of the images that `read` returns."""
        size = self.declaration.resize or self.declaration.cropped_size
        assert size is not None, "images of different sizes are resized"
        return size

    def read(self, record: int, names: Collection[str]) -> dict[str, np.ndarray]:
        """Returns the fields of a record that are asked for."""
        return {name: self.field(name, self.path(record)) for name in names}

    def path(self, record: int) -> Path:
        """Returns the absolute path of a record's image."""
        return self.declaration.absolute_path / os.fsdecode(self.names()[record])

    def names(self) -> Names:
        """Returns the paths of all images, relative to the folder, in the order of records."""
        return self._indexed[0]

    def times(self) -> np.ndarray:
        """Returns when the folder and those in it last changed."""
        return self._indexed[2]

    @functools.cached_property
    def _indexed(self) -> tuple[Names, Mapping[str, range], np.ndarray]:
        folder, pattern = self.declaration.existing("folder"), self.declaration.source("image")
        found = list_images(folder, pattern, skip_unreadable=self.skips_unreadable)
        left_out = found.describe_left_out() or "nothing"
        if not found.files:
            raise DataError(
                f"The folder {folder} of data set '{self.declaration.name}' has no image whose "
                f"name matches {pattern} in it or below. Left out: {left_out}. "
                f"{self.declaration.how_to_fix()}"
            )
        _tell_once(logging.INFO, f"{len(found.files)} images in {folder}. Left out: {left_out}.")
        if found.unreadable:
            folders = ", ".join(found.unreadable)
            _tell_once(logging.WARNING, f"{folder} has folders that cannot be read: {folders}.")
        times = np.array([*found.times.values()], np.int64)
        return *self.arrange(np.array(found.files, np.bytes_)), times

    def fitted_labels(self, labels: Image.Image, file: Path) -> np.ndarray:
        """Returns the declared crop of a label map, at the declared size."""
        size = self.declaration.mask_size or self.declaration.resize
        return self._fitted(labels, file, size, Image.Resampling.NEAREST)

    def _fitted(
        self,
        image: Image.Image,
        file: Path,
        size: tuple[int, int] | None,
        resample: Image.Resampling,
    ) -> np.ndarray:
        """Returns the declared crop of an image, resized to rows and columns if there are any."""
        declared = self.declaration
        columns, rows = image.size
        if declared.image_size not in (None, (rows, columns)):
            setting = ", or set data.image_size" if declared.any_size else ""
            raise BadImageError(
                f"The image {file} has {rows} rows and {columns} columns, but images of data "
                f"set '{declared.name}' have {declared.image_size}. Restore it{setting}."
            )
        if declared.crop is not None:
            (top, bottom), (left, right) = declared.crop
            image = image.crop((left, top, right, bottom))
        if size is not None:
            height, width = size
            if declared.crop is None:
                image = image.crop(images.centred_box(image.size, width / height))
            image = image.resize((width, height), resample)
        return np.asarray(image)


@functools.cache
def _tell_once(level: int, text: str) -> None:
    """Logs what readers of the same folder, one for each split, would repeat."""
    logging.log(level, "%s", text)


def list_images(root: Path, pattern: str, *, skip_unreadable: bool = False) -> Walk:
    """Returns what `walk` finds, from the cache as long as no folder has changed.

    Raises:
        DataError: a folder cannot be read.
    """

    def compute() -> cache.Arrays:
        found = walk(root, pattern, skip_unreadable=skip_unreadable)
        return {
            "names": np.array(found.files, np.bytes_),
            "folders": np.array([*found.times], np.bytes_),
            "times": np.array([*found.times.values()], np.int64),
            "kinds": np.array([*found.left_out], np.str_),
            "counts": np.array([*found.left_out.values()], np.int64),
        }

    def is_current(arrays: cache.Arrays) -> bool:
        folders = zip(arrays["folders"].tolist(), arrays["times"].tolist(), strict=True)
        return all((root / os.fsdecode(f)).stat().st_mtime_ns == time for f, time in folders)

    try:
        key = ("images", str(root), pattern, skip_unreadable)
        lists = {
            name: array.tolist() for name, array in cache.cached(key, compute, is_current).items()
        }
    except OSError as error:
        raise DataError(
            f"The folder {os.fsdecode(error.filename or str(root))} cannot be read: "
            f"{error.strerror or error}. See to its permissions."
        ) from None
    times = dict(zip(lists["folders"], lists["times"], strict=True))
    left_out = Counter(dict(zip(lists["kinds"], lists["counts"], strict=True)))
    return Walk(lists["names"], times, left_out)
