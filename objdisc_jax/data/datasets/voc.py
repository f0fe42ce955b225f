"""Pascal VOC 2012: photographs with a segmentation of every object of twenty classes.

Read from the published folder. Training takes the 1,464 images of `train.txt`, or those of
`trainaug.txt`, a list of 10,582 that users add: most of these have no segmentation, and so no
score. The published protocols test on the 1,449 of `val.txt`; that is the test split here, and the
last tenth of `train.txt` is for validation. Pixels at the border of objects are void: 255 in the
files. Some maps of objects and of classes are misaligned: an object has the class that most of its
pixels have.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from objdisc_jax.data import images
from objdisc_jax.data.config import check_choice, shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import BadImageError, DataError
from objdisc_jax.data.examples import Example, save_image, writer
from objdisc_jax.data.folder import Names
from objdisc_jax.data.instances import (
    NUM_ENTITIES,
    VOID,
    InstanceReader,
    Instances,
    check_count,
    fields,
    fitted,
    table_of,
)
from objdisc_jax.data.splits import consecutive

BORDER = 255
LISTS = Path("ImageSets/Segmentation")


def default_config() -> ConfigDict:
    """Returns the images of `train.txt`."""
    config = shared_config("voc", path="data/VOCdevkit/VOC2012")
    # The list of images to train on: train | trainaug.
    config.train_list = "train"
    # Rows and columns to which images are brought; an experiment sets it to the model's.
    config.resolution = (224, 224)
    # Rows and columns at which masks are compared.
    config.mask_size = (320, 320)
    return config


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    train_list = check_choice(config, "train_list", ("train", "trainaug"))
    mask_size = tuple(config.mask_size)
    num_training = {"train": 1464, "trainaug": 10_582}[train_list]
    return DatasetDeclaration(
        **shared_settings(config),
        reader=VocReader,
        sources={"image": r"\d{4}_\d{6}\.jpg", "train": train_list},
        fields=fields(mask_size),
        image_size=None,
        resize=tuple(config.resolution),
        mask_size=mask_size,
        splits=consecutive(train=num_training - 146, val=146, test=1449),
        num_entities=NUM_ENTITIES,
        download_command="bash data_scripts/download_voc.sh",
    )


class VocReader(InstanceReader):
    """Reads the images that the lists name."""

    def arrange(self, names: Names) -> tuple[Names, Mapping[str, range]]:
        """Puts the images into the order of the lists."""
        training = self._list("train")
        val = training[len(training) - max(1, len(training) // 10) :]
        train = [stem for stem in self._list(self.declaration.source("train")) if stem not in val]
        parts = {"train": train, "val": val, "test": self._list("val")}
        there = {Path(name.decode()).stem: name for name in names.tolist()}
        listed = [stem for part in parts.values() for stem in part]
        if missing := [stem for stem in listed if stem not in there]:
            raise DataError(
                f"The lists in {self.declaration.absolute_path / LISTS} name {len(missing)} images "
                f"that are not there, {missing[0]}.jpg among them. Restore them in JPEGImages."
            )
        sizes = {split: len(part) for split, part in parts.items()}
        return np.array([there[stem] for stem in listed]), consecutive(**sizes)

    def instances(self, image: Path) -> Instances:
        """Returns the objects of an image; if it has no segmentation, all of it is void."""
        folder = image.parent.parent
        objects_file = folder / "SegmentationObject" / f"{image.stem}.png"
        if not objects_file.exists():
            empty = np.zeros(images.stored_size(image), np.uint8)
            return Instances(empty, np.full_like(empty, VOID), table_of([]))
        objects = np.asarray(images.read_labels(objects_file))
        classes_file = folder / "SegmentationClass" / objects_file.name
        classes = np.asarray(images.read_labels(classes_file))
        if objects.shape != classes.shape:
            raise BadImageError(
                f"The maps {objects_file} and {classes_file} differ in size, {objects.shape} and "
                f"{classes.shape}. Restore them."
            )
        is_void = objects == BORDER
        segmentation = np.where(is_void, 0, objects).astype(np.uint8)
        count = int(segmentation.max())
        check_count(count, image)
        found = []
        for label in range(1, count + 1):
            inside = classes[(segmentation == label) & (classes != BORDER)]
            tally = np.bincount(inside[inside > 0], minlength=1)
            found.append(int(tally.argmax()))
        return Instances(segmentation, (VOID * is_void).astype(np.uint8), table_of(found))

    def _list(self, name: str) -> list[str]:
        file = self.declaration.existing("folder") / LISTS / f"{name}.txt"
        try:
            stems = file.read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            hint = ""
            if name == "trainaug":
                hint = " It is not in the archive: put it there, one name per line."
            raise DataError(
                f"The list {file} of data set 'voc' cannot be read ({error}).{hint} "
                f"{self.declaration.how_to_fix()}"
            ) from None
        if len(stems) < 2:
            raise DataError(f"The list {file} names {len(stems)} images: at least 2 are needed.")
        return stems


def _write(declaration: DatasetDeclaration, example: Example) -> Example:
    """Writes photographs, palette maps with a void border, and lists; one image is in none."""
    folder, count = declaration.absolute_path, len(example.image)
    stems = [f"2007_{number:06d}" for number in range(count)]
    classes = np.zeros((count, NUM_ENTITIES), np.uint8)
    ignore = []
    for record, stem in enumerate(stems):
        labels = example.segmentation[record]
        file = folder / "JPEGImages" / f"{stem}.png"
        save_image(file, example.image[record])  # no loss, whatever the name says
        file.rename(file.with_suffix(".jpg"))
        border = np.zeros_like(labels, bool)
        border[:3] = True
        of_label = np.arange(NUM_ENTITIES, dtype=np.uint8) % 20 + 1
        for kind, values in (("Object", labels), ("Class", np.where(labels, of_label[labels], 0))):
            image = Image.fromarray(np.where(border, BORDER, values).astype(np.uint8))
            image.putpalette(np.random.default_rng(0).bytes(768))
            map_file = folder / f"Segmentation{kind}" / f"{stem}.png"
            map_file.parent.mkdir(exist_ok=True)
            image.save(map_file)
        labels[border] = 0
        present = np.arange(1, labels.max() + 1)
        visible = present[np.isin(present, labels)]
        classes[record, visible] = of_label[visible]
        ignore.append((VOID * border).astype(np.uint8))
    (folder / LISTS).mkdir(parents=True)
    num_training = count * 2 // 3
    for name, part in (("train", stems[:num_training]), ("val", stems[num_training:])):
        (folder / LISTS / f"{name}.txt").write_text("\n".join(part) + "\n")
    validation = max(1, num_training // 10)
    sizes = {"train": num_training - validation, "val": validation, "test": count - num_training}
    return dataclasses.replace(
        example,
        splits=consecutive(**sizes),
        fields={"ignore": fitted(declaration, ignore), "classes": classes},
    )


write_example = writer(default_config, declare, _write)
