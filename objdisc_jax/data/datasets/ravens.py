"""RAVENS: 480x640 images of a robot at a table with three to eight objects, with segmentations.

Read from the two files of the published PyTorch code, `ravens_*_train.h5` and `ravens_*_test.h5`:
three images per scene, from the front, the left and the right. The published code validated on the
test file; here the last 1,667 scenes of the training file are for validation. Labels 0 to 4 are
ground, table, arm, and base and head of the gripper; objects are 5 to 12.
"""

import dataclasses
from collections.abc import Collection, Mapping

import ml_collections
import numpy as np
from jaxtyping import Int64

from objdisc_jax.data import examples, hdf5
from objdisc_jax.data.config import check_choice, shared_config, shared_fields
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.splits import consecutive

VIEWS = 3
SPLITS = consecutive(train=65_001, val=5_001, test=15_000)
NOTHING = 255
"""The label of a pixel at which the simulator's camera saw nothing."""


def default_config() -> ml_collections.ConfigDict:
    """Returns the images of all three cameras, cropped to the middle."""
    config = shared_config("ravens", path="data/ravens")
    # centre: the middle 480 x 500 of every image | table: rows 232 to 470 and columns 50 to 590,
    # of images from the front alone. Either is squeezed into the model's square.
    config.crop = "centre"
    return config


def declare(config: ml_collections.ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    table = check_choice(config, "crop", ("centre", "table")) == "table"
    return DatasetDeclaration(
        **shared_fields(config),
        reader=RavensReader,
        sources={
            "image": "color",
            "segmentation": "segm",
            "num_objects": "num_objects_on_table",
        },
        image_size=(480, 640),
        crop=((232, 470), (50, 590)) if table else ((0, 480), (70, 570)),
        splits={
            name: range(records.start, records.stop, VIEWS if table else 1)
            for name, records in SPLITS.items()
        },
        num_entities=13,
        background_labels=(0, 1, 2, 3, 4),
        largest_num_objects=8,
        download_command="bash data_scripts/download_ravens.sh ARCHIVE",
    )


class RavensReader:
    """Reads the training file and, with record numbers that go on from its end, the test file."""

    def __init__(self, declaration: DatasetDeclaration):
        self.declaration = declaration
        self._files: list[_RavensFile] = []
        self._num_training = 0

    def splits(self) -> Mapping[str, range]:
        """Returns the splits, of whole scenes, for the numbers of records in the two files."""
        test = self._opened()[1]
        end = self._num_training + test.num_records()
        scenes = self._num_training // VIEWS
        if scenes < 2:
            raise DataError(
                f"The training file of data set 'ravens' in {self.declaration.absolute_path} has "
                f"{self._num_training} images, but training and validation need three each. "
                f"{self.declaration.how_to_fix()}"
            )
        share = len(SPLITS["val"]) * scenes // SPLITS["val"].stop
        validation = VIEWS * (scenes - max(1, share))
        step = self.declaration.splits["train"].step
        return {
            "train": range(0, validation, step),
            "val": range(validation, self._num_training, step),
            "test": range(self._num_training, end, step),
        }

    def image_size(self) -> tuple[int, int]:
        """Returns rows and columns of the images that `read` returns."""
        return self._opened()[0].image_size()

    def object_counts(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the number of objects in each record, background not counted."""
        counts = [file.object_counts(np.arange(file.num_records())) for file in self._opened()]
        return np.concatenate(counts)[records]

    def read(self, record: int, names: Collection[str]) -> dict[str, np.ndarray]:
        """Returns the fields of a record that are asked for."""
        training, test = self._opened()
        if record < self._num_training:
            return training.read(record, names)
        return test.read(record - self._num_training, names)

    def _opened(self) -> list["_RavensFile"]:
        """Returns the readers of the training and the test file."""
        if not self._files:
            self._files = [self._file(part) for part in ("train", "test")]
            self._num_training = self._files[0].num_records()
        return self._files

    def _file(self, part: str) -> "_RavensFile":
        folder = self.declaration.folder()
        found = sorted(folder.glob(f"ravens_*_{part}.h5"))
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise DataError(
                f"Data set 'ravens' needs one file ravens_*_{part}.h5 in {folder}, but there are "
                f"{len(found)} ({names}). {self.declaration.how_to_fix()}"
            )
        return _RavensFile(dataclasses.replace(self.declaration, path=str(found[0])))


class _RavensFile(hdf5.Hdf5Reader):
    """One of the two files; the number of objects is that of a scene's three images."""

    records_per_count = VIEWS

    def read(self, record: int, names: Collection[str]) -> dict[str, np.ndarray]:
        example = super().read(record, names)
        if "segmentation" in example:
            labels = example["segmentation"]
            example["segmentation"] = np.where(labels == NOTHING, 0, labels)
        return example


def _write(declaration: DatasetDeclaration, num_images: int) -> examples.Example:
    """Writes the two files, with cameras that saw nothing and one count for each scene."""
    example = examples.draw(dataclasses.replace(declaration, splits=SPLITS), num_images)
    counts = np.repeat(example.num_objects[::VIEWS], VIEWS)[:num_images]
    num_training = example.splits["val"].stop // VIEWS * VIEWS
    for part, records in (("train", slice(num_training)), ("test", slice(num_training, None))):
        labels = example.segmentation[records]
        arrays = {
            "color": example.image[records],
            "segm": np.where(labels == 0, np.uint8(NOTHING), labels),
            "num_objects_on_table": counts[records][::VIEWS],
        }
        file = declaration.absolute_path / f"ravens_robot_data_{part}.h5"
        file.parent.mkdir(exist_ok=True)
        examples.write_arrays(file, arrays)
    step = declaration.splits["train"].step
    ranges = {
        "train": range(0, num_training - VIEWS, step),
        "val": range(num_training - VIEWS, num_training, step),
        "test": range(num_training, num_images, step),
    }
    return dataclasses.replace(example, num_objects=counts, splits=ranges)


write_example = examples.writer(default_config, declare, _write)
