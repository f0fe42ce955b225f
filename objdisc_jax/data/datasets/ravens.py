"""RAVENS: 480x640 images of a robot at a table with three to eight objects, with segmentations.

Read from the two files of the published PyTorch code, `ravens_*_train.h5` and `ravens_*_test.h5`:
three images per scene, from the front, the left and the right. The published code validated on the
test file; here the last 1,667 scenes of the training file are for validation. Labels 0 to 4 are
ground, table, arm, and base and head of the gripper; objects are 5 to 12.
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Int64
from ml_collections import ConfigDict

from objdisc_jax.data.config import check_choice, shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.examples import Example, write_arrays, writer
from objdisc_jax.data.hdf5 import Hdf5Reader
from objdisc_jax.data.splits import consecutive

VIEWS = 3
SPLITS = consecutive(train=65_001, val=5_001, test=15_000)
NOTHING = 255
"""The label of a pixel at which the simulator's camera saw nothing."""


def default_config() -> ConfigDict:
    """Returns the images of all three cameras, cropped to the middle."""
    config = shared_config("ravens", path="data/ravens")
    # centre: the middle 480 x 500 of every image | table: rows 232 to 470 and columns 50 to 590,
    # of images from the front alone. Either is squeezed into the model's square.
    config.crop = "centre"
    return config


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    table = check_choice(config, "crop", ("centre", "table")) == "table"
    return DatasetDeclaration(
        **shared_settings(config),
        reader=RavensReader,
        sources={"image": "color", "segmentation": "segm", "num_objects": "num_objects_on_table"},
        image_size=(480, 640),
        crop=((232, 470), (50, 590)) if table else ((0, 480), (70, 570)),
        splits={name: records[:: VIEWS if table else 1] for name, records in SPLITS.items()},
        num_entities=13,
        background_labels=(0, 1, 2, 3, 4),
        largest_num_objects=8,
        download_command="bash data_scripts/download_ravens.sh ARCHIVE",
    )


class RavensReader:
    """Reads the training file and, with record numbers that go on from its end, the test file."""

    def __init__(self, declaration: DatasetDeclaration):
        self.declaration = declaration

    def splits(self) -> Mapping[str, range]:
        """Returns the splits, of whole scenes, for the numbers of records in the two files."""
        training, test = (file.num_records() for file in self._files)
        scenes = training // VIEWS
        if scenes < 2:
            raise DataError(
                f"The training file of data set 'ravens' in {self.declaration.absolute_path} has "
                f"{training} images, but training and validation need three each. "
                f"{self.declaration.how_to_fix()}"
            )
        validation = max(1, len(SPLITS["val"]) * scenes // SPLITS["val"].stop)
        start = VIEWS * (scenes - validation)
        step = self.declaration.splits["train"].step
        return {
            "train": range(0, start, step),
            "val": range(start, training, step),
            "test": range(training, training + test, step),
        }

    def image_size(self) -> tuple[int, int]:
        """Returns rows and columns of the images that `read` returns."""
        return self._files[0].image_size()

    def object_counts(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the number of objects in each record, background not counted."""
        counts = [file.object_counts(np.arange(file.num_records())) for file in self._files]
        return np.concatenate(counts)[records]

    def read(self, record: int, names: Collection[str]) -> dict[str, np.ndarray]:
        """Returns the fields of a record that are asked for."""
        training, test = self._files
        beyond = record - training.num_records()
        example = training.read(record, names) if beyond < 0 else test.read(beyond, names)
        if "segmentation" in example:
            labels = example["segmentation"]
            example["segmentation"] = np.where(labels == NOTHING, 0, labels)
        return example

    @functools.cached_property
    def _files(self) -> "tuple[_RavensFile, _RavensFile]":
        """The readers of the training and the test file."""
        return self._file("train"), self._file("test")

    def _file(self, part: str) -> "_RavensFile":
        folder = self.declaration.existing("folder")
        found = sorted(folder.glob(f"ravens_*_{part}.h5"))
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise DataError(
                f"Data set 'ravens' needs one file ravens_*_{part}.h5 in {folder}, but there are "
                f"{len(found)} ({names}). {self.declaration.how_to_fix()}"
            )
        return _RavensFile(dataclasses.replace(self.declaration, path=str(found[0])))


class _RavensFile(Hdf5Reader):
    """One of the two files; the number of objects is that of a scene's three images."""

    records_per_count = VIEWS


def _write(declaration: DatasetDeclaration, example: Example) -> Example:
    """Writes the two files, with cameras that saw nothing and one count for each scene."""
    num_images = len(example.image)
    num_training = num_images * 4 // 5 // VIEWS * VIEWS
    counts = np.repeat(example.num_objects[::VIEWS], VIEWS)[:num_images]
    labels = np.where(example.segmentation == 0, np.uint8(NOTHING), example.segmentation)
    declaration.absolute_path.mkdir()
    for part, records in (("train", slice(num_training)), ("test", slice(num_training, None))):
        arrays = {
            "color": example.image[records],
            "segm": labels[records],
            "num_objects_on_table": counts[records][::VIEWS],
        }
        write_arrays(declaration.absolute_path / f"ravens_robot_data_{part}.h5", arrays)
    sizes = {"train": num_training - VIEWS, "val": VIEWS, "test": num_images - num_training}
    step = declaration.splits["train"].step
    splits = {split: records[::step] for split, records in consecutive(**sizes).items()}
    return dataclasses.replace(example, num_objects=counts, splits=splits)


write_example = writer(default_config, declare, _write)
