"""What a data set is: a frozen, picklable declaration, and the reader that it names."""

import dataclasses
import pathlib
import stat
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from objdisc_jax.data.errors import DataError
from objdisc_jax.data.images import DEFAULT_OPTIONS, ReadOptions

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
    """What a batch has of every example under one name."""

    dtype: str  # of its values, as NumPy calls it: "float32"
    shape: tuple[int, ...]  # of one example's values
    # Of values that a model has computed: with which settings and frozen parts, JSON.
    computed_with: Mapping[str, Any] | None = None


@runtime_checkable
class Reader(Protocol):
    """Reads the records of one data set; sent to worker processes by pickling.

    A reader opens its files when they are first needed and never sends open files along.
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
    """Everything that is known of a data set before its files are opened."""

    name: str  # that of its file in `objdisc_jax/data/datasets/`, or its module's path elsewhere
    path: str  # of its file or folder, relative to the working directory or absolute
    reader: Callable[["DatasetDeclaration"], Reader]
    # Names in the files, by their role, where they differ from it: of an HDF5 file's arrays, or, as
    # a regular expression, of image files.
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # What there is of every example beside image and segmentation.
    fields: Mapping[str, Field] = dataclasses.field(default_factory=dict)
    image_size: tuple[int, int] | None  # stored rows and columns, pixels; None: the files differ
    # Ranges of record numbers. Folders that hold fewer images divide them in the same proportions;
    # HDF5 files of another size state their own as attributes.
    splits: Mapping[str, range]
    # If given, the ranges count the records in the order of a permutation with this seed.
    shuffle_seed: int | None = None
    crop: Box | None = None  # ((top, bottom), (left, right)), half-open; None: all of the image
    # Rows and columns to which the reader brings the crop, antialiased. None leaves that to the
    # device: bilinear without antialiasing, as the published float pipelines do.
    resize: tuple[int, int] | None = None
    has_masks: bool = True  # whether there are true segmentations
    # Rows and columns to which the reader brings these, nearest; None: those of the images. A
    # protocol may compare masks at another size than a model sees.
    mask_size: tuple[int, int] | None = None
    num_entities: int = 1  # the largest number of labels in one of them, background included
    # The labels that are background. Where a file counts visible entities instead of objects, these
    # are subtracted.
    background_labels: tuple[int, ...] = (0,)
    # The largest number of objects in one image, background not counted; None: it is not known,
    # and images cannot be chosen by it.
    largest_num_objects: int | None = None
    download_command: str | None = None  # produces the files from the published data
    generate_command: str | None = None  # produces the files without a download
    max_objects: int | None = None  # only images with so many objects or fewer are used; None: all
    # Whether `max_objects` counts the background as an object, as published code did in places.
    counts_background: bool = False
    num_test_images: int | None = None  # the test split ends after so many images; None: never
    any_size: bool = False  # whether the config says how large stored images are: see `at_size`
    on_bad_image: Literal["raise", "skip"] = "raise"  # what one does that cannot be read
    read_options: ReadOptions = DEFAULT_OPTIONS  # how image files are read, in prediction, too

    @property
    def cropped_size(self) -> tuple[int, int] | None:
        """Rows and columns of the crop, before any resizing; None if the files differ."""
        if self.crop is None:
            return self.image_size
        (top, bottom), (left, right) = self.crop
        return bottom - top, right - left

    @property
    def absolute_path(self) -> pathlib.Path:
        """The path, absolute; there may be nothing."""
        return pathlib.Path(self.path).expanduser().absolute()

    def at_size(self, size: Collection[Any]) -> "DatasetDeclaration":
        """Returns the same data set, rendered at the config's `image_size`, two whole numbers.

        The crop scales with it. Only `generate_command` makes images of another size than `self`'s.
        """
        assert self.image_size is not None
        if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
            raise DataError(
                f"data.image_size: got {tuple(size)}; it is the rows and columns of the stored "
                f"images, as in {self.image_size}."
            )
        rows, columns = size
        if (rows, columns) == self.image_size:
            return dataclasses.replace(self, any_size=True)
        return dataclasses.replace(
            self,
            any_size=True,
            image_size=(rows, columns),
            crop=self.crop and scaled_box(self.crop, self.image_size, (rows, columns)),
            download_command=None,
            generate_command=f"{self.generate_command} --resolution {rows} {columns}",
        )

    def source(self, role: str) -> str:
        """Returns the name that a role has in the files."""
        return self.sources.get(role, role)

    def existing(self, kind: Literal["file", "folder"]) -> pathlib.Path:
        """Returns the absolute path; raises a `DataError` if there is nothing of that kind."""
        path, found = self.absolute_path, None
        try:
            found = "folder" if stat.S_ISDIR(path.stat().st_mode) else "file"
        except PermissionError:
            raise DataError(
                f"Data set '{self.name}' needs the {kind} {path}, but you have no permission to "
                "look into a folder above it. Ask its owner for that, or name another with "
                "--config.data.path=PATH."
            ) from None
        except (OSError, ValueError):  # ValueError: of a name that no file can have
            pass
        if found != kind:
            raise DataError(
                f"Data set '{self.name}' needs the {kind} {path}, but "
                f"{f'that is a {found}' if found else f'there is no such {kind}'}. "
                f"{self.how_to_fix()}"
            )
        return path

    def how_to_fix(self) -> str:
        """Returns the end of an error message: the ways to get sound files."""
        ways = "Name another with --config.data.path=PATH"
        if self.any_size:
            ways += ", or the size of its images with --config.data.image_size='(ROWS, COLUMNS)'"
        commands = [c for c in (self.download_command, self.generate_command) if c is not None]
        return "\n  ".join([f"{ways}, or produce it with", *commands]) if commands else f"{ways}."
