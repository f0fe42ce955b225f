"""What a data set is: a frozen, picklable declaration, and the reader that it names."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Int64

from objdisc_jax.data.errors import DataError

Box = tuple[tuple[int, int], tuple[int, int]]


def scaled_box(box: Box, size: tuple[int, int], new_size: tuple[int, int]) -> Box:
    """Returns the region of an image of `new_size` that a box is of one of `size`, rounded."""
    (rows, columns) = (
        (round(start * new / old), round(stop * new / old))
        for (start, stop), old, new in zip(box, size, new_size, strict=True)
    )
    return rows, columns


@dataclasses.dataclass(frozen=True)
class Field:
    """What a batch has of every example under one name.

    Attributes:
        dtype: of its values, as NumPy calls it: "float32".
        shape: of one example's values.
    """

    dtype: str
    shape: tuple[int, ...]


class Reader(Protocol):
    """Reads the records of one data set; sent to worker processes by pickling.

    A reader opens its files when it first reads and never sends open files along.
    """

    def splits(self) -> Mapping[str, range]:
        """Returns the record numbers of each split, as the files in use define them."""
        ...

    def image_size(self) -> tuple[int, int]:
        """Returns rows and columns of the images that `read` returns."""
        ...

    def object_counts(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the number of objects in each record, background not counted."""
        ...

    def read(self, record: int, names: Collection[str]) -> dict[str, np.ndarray]:
        """Returns the fields of a record that are asked for, and reads no others.

        They are "image", uint8 [h, w, 3], and "segmentation", integers [h, w], both cropped, and
        those that the data set declares.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetDeclaration:
    """Everything that is known of a data set before its files are opened.

    Attributes:
        name: name of the data set: that of its file in `objdisc_jax/data/datasets/`, or the path of
            its module elsewhere.
        path: its file or folder, relative to the working directory or absolute.
        reader: makes the reader of such a declaration.
        sources: names in the files, by their role, where they differ from it: of an HDF5 file's
            arrays, or, as a regular expression, of image files.
        fields: what there is of every example beside image and segmentation.
        image_size: rows and columns of the stored images, in pixels; None if the files differ.
        splits: ranges of record numbers. Folders that hold fewer images divide them in the same
            proportions; HDF5 files of another size state their own as attributes.
        shuffle_seed: if not None, a split's ranges count the records in the order of a
            permutation with this seed, not that of the files.
        crop: half-open ranges ((top, bottom), (left, right)) cut out of every image; None is all.
        resize: rows and columns to which the reader brings the crop, antialiased. None leaves
            that to the device: bilinear without antialiasing, as the published float pipelines do.
        has_masks: whether the set has true segmentations.
        num_entities: the largest number of labels in one segmentation, background included.
        background_labels: the labels of a segmentation that are background. Where a file counts
            visible entities instead of objects, these are subtracted.
        largest_num_objects: the largest number of objects in one image, background not counted;
            None if that is not known, and then images cannot be chosen by it.
        download_command: produces the files from the published data; None if nothing does.
        generate_command: produces the files without a download; None if nothing does.
        max_objects: only images with at most this many objects are used; None means all.
        counts_background: whether `max_objects` counts the background as an object, as the
            published code did in places.
        num_test_images: the test split ends after this many images; None means all.
        any_size: whether the size of the stored images is a key of the config, `image_size`.
        on_bad_image: what an image does that cannot be read: "raise" an error, or "skip".
    """

    name: str
    path: str
    reader: Callable[["DatasetDeclaration"], Reader]
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fields: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    image_size: tuple[int, int] | None
    splits: Mapping[str, range]
    shuffle_seed: int | None = None
    crop: Box | None = None
    resize: tuple[int, int] | None = None
    has_masks: bool = True
    num_entities: int = 1
    background_labels: tuple[int, ...] = (0,)
    largest_num_objects: int | None = None
    download_command: str | None = None
    generate_command: str | None = None
    max_objects: int | None = None
    counts_background: bool = False
    num_test_images: int | None = None
    any_size: bool = False
    on_bad_image: Literal["raise", "skip"] = "raise"

    @property
    def cropped_size(self) -> tuple[int, int] | None:
        """Rows and columns of the crop, before any resizing; None if the files differ."""
        if self.crop is None:
            return self.image_size
        (top, bottom), (left, right) = self.crop
        return bottom - top, right - left

    def source(self, role: str) -> str:
        """Returns the name that a role has in the files."""
        return self.sources.get(role, role)

    def file(self) -> pathlib.Path:
        """Returns the absolute path of the file; raises a `DataError` if there is none."""
        path = self.absolute_path
        if not os.path.isfile(path):
            found = "that is a folder" if os.path.isdir(path) else "there is no such file"
            raise DataError(
                f"Data set '{self.name}' needs {path}, but {found}. {self.how_to_fix()}"
            )
        return path

    def folder(self) -> pathlib.Path:
        """Returns the absolute path of the folder; raises a `DataError` if there is none."""
        path = self.absolute_path
        if not os.path.isdir(path):
            found = "that is a file" if os.path.exists(path) else "there is no such folder"
            raise DataError(
                f"Data set '{self.name}' needs the folder {path}, but {found}. {self.how_to_fix()}"
            )
        return path

    @property
    def absolute_path(self) -> pathlib.Path:
        """The path, absolute; there may be nothing."""
        return pathlib.Path(self.path).expanduser().absolute()

    def how_to_fix(self) -> str:
        """Returns the end of an error message: the ways to get sound files."""
        commands = [c for c in (self.download_command, self.generate_command) if c is not None]
        how_to_fix = "Name another with --config.data.path=PATH"
        if commands:
            head = "Produce it with" if len(commands) == 1 else "Produce it with one of"
            how_to_fix = "\n  ".join([head, *commands]) + how_to_fix.replace("Name", "\nor name")
        if self.any_size:
            how_to_fix += (
                ", or the size of its images with --config.data.image_size='(ROWS, COLUMNS)'"
            )
        return how_to_fix + "."
