"""What a data set is: a frozen, picklable declaration, and the reader that it names."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Int64, UInt8

from objdisc_jax.data.errors import DataError

Box = tuple[tuple[int, int], tuple[int, int]]


class Reader(Protocol):
    """Reads the records of one data set; sent to worker processes by pickling.

    A reader opens its files when it first reads and never sends open files along.
    """

    def splits(self) -> Mapping[str, range]:
        """Returns the record numbers of each split, as the files in use define them."""
        ...

    def object_counts(self, records: range) -> Int64[np.ndarray, " n"]:
        """Returns the number of objects in each record, background not counted."""
        ...

    def read(
        self, record: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"] | None]:
        """Returns a record's cropped image and segmentation (None if the set has no masks)."""
        ...


@dataclasses.dataclass(frozen=True)
class DatasetDeclaration:
    """Everything that is known of a data set before its files are opened.

    Attributes:
        name: name of the data set, which is the name of its file in `objdisc_jax/data/sets/`.
        path: its file, relative to the working directory or absolute.
        reader: makes the reader of such a declaration.
        image_size: rows and columns of the stored images, in pixels.
        splits: half-open ranges of record numbers. Files that state their own (smaller,
            generated ones do) overrule these.
        num_entities: the largest number of labels in one segmentation, background included.
        largest_num_objects: the largest number of objects in one image, background not counted.
        download_command: produces the file from the published data.
        generate_command: produces the file without a download.
        fields: names of the arrays in the file, by their role.
        crop: half-open ranges ((top, bottom), (left, right)) cut out of every image; None is all.
        has_masks: whether the set has true segmentations.
        background_labels: the labels of a segmentation that are background. Where a file counts
            visible entities instead of objects, these are subtracted.
        resize: where images are brought to the model's size: on the "device" (bilinear without
            antialiasing, as the published float pipelines do) or already in the "worker", by the
            reader (antialiased pipelines, images of different sizes, crops far larger than needed).
        max_objects: only images with at most this many objects are used; None means all.
        num_test_images: the test split ends after this many images; None means all.
    """

    name: str
    path: str
    reader: Callable[["DatasetDeclaration"], Reader]
    image_size: tuple[int, int]
    splits: Mapping[str, range]
    num_entities: int
    largest_num_objects: int
    download_command: str
    generate_command: str
    fields: Mapping[str, str]
    crop: Box | None = None
    has_masks: bool = True
    background_labels: tuple[int, ...] = (0,)
    resize: Literal["device", "worker"] = "device"
    max_objects: int | None = None
    num_test_images: int | None = None

    @property
    def crop_box(self) -> Box:
        """The crop, or the whole image: ((top, bottom), (left, right))."""
        rows, cols = self.image_size
        return self.crop or ((0, rows), (0, cols))

    @property
    def cropped_size(self) -> tuple[int, int]:
        """Rows and columns of the images after the crop."""
        (top, bottom), (left, right) = self.crop_box
        return bottom - top, right - left

    def file(self) -> pathlib.Path:
        """Returns the absolute path of the file; raises a `DataError` if there is none."""
        path = pathlib.Path(self.path).expanduser().absolute()
        if not path.is_file():
            found = "that is a folder" if path.is_dir() else "there is no such file"
            raise DataError(f"Data set '{self.name}' needs {path}, but {found}. {self.remedy()}")
        return path

    def remedy(self) -> str:
        """Returns the end of an error message: the ways to get a sound file."""
        return (
            "Produce it with one of\n"
            f"  {self.download_command}\n"
            f"  {self.generate_command}\n"
            "(--overwrite replaces a damaged file), or name another with --config.data.path=FILE."
        )
