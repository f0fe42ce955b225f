"""COCO 2017: photographs of everyday scenes with segmentations of objects of eighty classes.

Read from the published folders: `train2017`, `val2017` and `annotations`. The published protocols
test on the 5,000 images of `val2017`; that is the test split here, and the last 5,000 of
`train2017` are for validation. Two truths are published. `instances`: objects as polygons or
run-length codes, which may overlap; at an overlap the first object has the pixel, and the field
"ignore" tells. `panoptic`: every pixel is of one segment; those of things are the objects, all
others are background, and unlabelled pixels are void.
"""

import dataclasses
import functools
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from objdisc_jax.data import cache, images
from objdisc_jax.data.config import check_choice, shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import BadImageError, DataError
from objdisc_jax.data.examples import Example, save_image, writer
from objdisc_jax.data.folder import Names
from objdisc_jax.data.instances import (
    NUM_ENTITIES,
    OVERLAP,
    SCORED,
    InstanceReader,
    Instances,
    check_count,
    fields,
    fitted,
)
from objdisc_jax.data.splits import consecutive

FOLDERS = ("train2017", "val2017")
NUM_TRAINING, NUM_VALIDATION, NUM_TEST = 113_287, 5_000, 5_000


def default_config() -> ConfigDict:
    """Returns the objects as instances, crowds among them."""
    config = shared_config("coco", path="data/coco")
    config.truth = "instances"  # instances | panoptic
    # Whether crowds ("iscrowd") are objects; if not, they are background. Of instances alone.
    config.crowds = True
    # Rows and columns to which images are brought; an experiment sets it to the model's.
    config.resolution = (224, 224)
    # Rows and columns at which masks are compared.
    config.mask_size = (320, 320)
    return config


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    truth = check_choice(config, "truth", ("instances", "panoptic"))
    mask_size = tuple(config.mask_size)
    return DatasetDeclaration(
        **shared_settings(config),
        reader={
            ("instances", True): CocoReader,
            ("instances", False): CocoReaderWithoutCrowds,
        }.get((truth, bool(config.crowds)), CocoPanopticReader),
        sources={"image": r"\d{12}\.jpg"},
        fields=fields(mask_size),
        image_size=None,
        resize=tuple(config.resolution),
        mask_size=mask_size,
        splits=consecutive(train=NUM_TRAINING, val=NUM_VALIDATION, test=NUM_TEST),
        num_entities=NUM_ENTITIES,
        download_command=f"bash data_scripts/download_coco.sh {truth}",
    )


class CocoReader(InstanceReader):
    """Reads images and their instances."""

    truth = "instances"
    crowds = True

    def arrange(self, names: Names) -> tuple[Names, Mapping[str, range]]:
        """Puts training before test images; one of the two folders may be missing."""
        parents = np.array([Path(name.decode()).parent.name for name in names.tolist()])
        training, test = (names[parents == folder] for folder in FOLDERS)
        if not len(training) and not len(test):
            raise DataError(
                f"The folder {self.declaration.absolute_path} of data set 'coco' has images, but "
                f"none in {' or '.join(FOLDERS)}. {self.declaration.how_to_fix()}"
            )
        wanted = zip(FOLDERS, (NUM_TRAINING + NUM_VALIDATION, NUM_TEST), strict=True)
        for (folder, published), there in zip(wanted, (training, test), strict=True):
            if 0 < len(there) < published:
                logging.warning(
                    "%s holds %d of the %d images of %s, and these alone are used. %s",
                    self.declaration.absolute_path,
                    len(there),
                    published,
                    folder,
                    self.declaration.how_to_fix(),
                )
        share = len(training) * NUM_VALIDATION / (NUM_TRAINING + NUM_VALIDATION)
        val = max(1, round(share)) if len(training) > 1 else 0
        sizes = {"train": len(training) - val, "val": val, "test": len(test)}
        return np.concatenate([training, test]), consecutive(**sizes)

    def instances(self, image: Path) -> Instances:
        """Returns the objects of an image, decoded from their run-length codes."""
        annotations = self.annotations(image.parent.name)
        row = self._row(annotations["images"], image)
        start, stop = annotations["starts"][row : row + 2]
        size = annotations["sizes"][row].tolist()
        rows, columns = images.stored_size(image)
        if [rows, columns] != size:
            raise BadImageError(
                f"The image {image} has {rows} rows and {columns} columns, but its annotations say "
                f"{size[0]} and {size[1]}. Restore it."
            )
        found = [i for i in range(start, stop) if self.crowds or not annotations["is_crowd"][i]]
        check_count(len(found), image)
        codes, ends = annotations["codes"], annotations["ends"]
        rles = [{"size": size, "counts": codes[ends[i] : ends[i + 1]].tobytes()} for i in found]
        masks = np.zeros((0, *size), bool)
        if rles:
            masks = np.moveaxis(_pycocotools().decode(rles), 2, 0).astype(bool)
        classes = annotations["classes"][found].tolist() if found else []
        return Instances.stacked(masks, classes, void=np.zeros(size, bool))

    def annotations(self, folder: str) -> cache.Arrays:
        """Returns what is known of one of the two folders: instances, or panoptic segments.

        `images` [n] are the images' numbers, ascending, `sizes` [n, 2] their rows and columns; the
        instances of image i are those from `starts[i]` to `starts[i + 1]`, in their order in the
        file: `classes` [m], `is_crowd` [m], and run-length codes, compressed as pycocotools does,
        from `ends[j]` to `ends[j + 1]` of the bytes `codes`. Segments have `ids` [m] and `is_thing`
        [m] in place of sizes, crowds and codes.
        """
        if folder not in self._read:
            compute = {"instances": _compressed, "panoptic": _segments}[self.truth]
            self._read[folder] = _cached(self.annotation_file(folder), self.truth, compute)
        return self._read[folder]

    def annotation_file(self, folder: str) -> Path:
        """Returns the file with the annotations of one of the two folders."""
        return self.declaration.absolute_path / "annotations" / f"{self.truth}_{folder}.json"

    @functools.cached_property
    def _read(self) -> dict[str, cache.Arrays]:
        return {}

    def _row(self, numbers: np.ndarray, image: Path) -> int:
        row = int(np.searchsorted(numbers, int(image.stem)))
        if row == len(numbers) or numbers[row] != int(image.stem):
            file = self.annotation_file(image.parent.name)
            raise DataError(f"{file} does not list the image {image}. Restore that file.")
        return row


class CocoReaderWithoutCrowds(CocoReader):
    """Reads images and their instances, but for crowds."""

    crowds = False


class CocoPanopticReader(CocoReader):
    """Reads images and panoptic segments, of which things are the objects."""

    truth = "panoptic"

    def instances(self, image: Path) -> Instances:
        """Returns the things in an image."""
        annotations = self.annotations(image.parent.name)
        row = self._row(annotations["images"], image)
        part = slice(*annotations["starts"][row : row + 2])
        folder = self.annotation_file(image.parent.name).with_suffix("")
        colours = np.asarray(images.read_rgb(folder / f"{image.stem}.png"), np.uint32)
        ids = colours @ np.array([1, 1 << 8, 1 << 16], np.uint32)
        things = annotations["is_thing"][part]
        check_count(int(things.sum()), image)
        masks = ids[None] == annotations["ids"][part][things][:, None, None]
        classes = annotations["classes"][part][things].tolist()
        return Instances.stacked(masks, classes, void=ids == 0)


def _pycocotools() -> Any:
    try:
        from pycocotools import mask  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise DataError(
            "Data set 'coco' needs the package pycocotools: pip install 'objdisc_jax[coco]'"
        ) from None
    return mask


def _cached(file: Path, truth: str, compute: Any) -> cache.Arrays:
    """What a file of annotations says, as arrays; reading the published ones takes a minute."""
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(
            f"The annotations {file} of data set 'coco' cannot be read: {error.strerror}. Produce "
            f"them with\n  bash data_scripts/download_coco.sh {truth}"
        ) from None
    stamp = np.array([status.st_size, status.st_mtime_ns])

    def computed() -> cache.Arrays:
        try:
            with file.open("rb") as stream:
                return {"stamp": stamp, **compute(json.load(stream))}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"The annotations {file} are damaged or no COCO {truth} ({error!r}). Fetch them "
                "anew."
            ) from error

    key = ("COCO annotations", truth, str(file))
    return cache.cached(key, computed, lambda found: np.array_equal(found["stamp"], stamp))


def _class_numbers(content: Mapping[str, Any]) -> dict[int, int]:
    """Classes counted from 1, by their ids in the file, which have gaps."""
    ids = sorted(category["id"] for category in content["categories"])
    return {category: number for number, category in enumerate(ids, 1)}


def _compressed(content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Instances as arrays; see `CocoReader.annotations`."""
    tool, numbers = _pycocotools(), _class_numbers(content)
    by_image = defaultdict(list)
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    pictures = sorted(content["images"], key=lambda picture: picture["id"])
    codes, classes, is_crowd, starts = [], [], [], [0]
    for picture in pictures:
        height, width = picture["height"], picture["width"]
        for annotation in by_image[picture["id"]]:
            segmentation = annotation["segmentation"]
            if isinstance(segmentation, list):
                # Fewer than three corners are no polygon, and four numbers a box to pycocotools.
                polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
                if not polygons:
                    continue
                rle = tool.merge(tool.frPyObjects(polygons, height, width))
            elif isinstance(segmentation["counts"], list):
                rle = tool.frPyObjects(segmentation, height, width)
            else:
                rle = {"counts": segmentation["counts"].encode()}
            codes.append(rle["counts"])
            classes.append(numbers[annotation["category_id"]])
            is_crowd.append(bool(annotation.get("iscrowd", 0)))
        starts.append(len(codes))
    return {
        "images": np.array([picture["id"] for picture in pictures], np.int64),
        "sizes": np.array([(p["height"], p["width"]) for p in pictures], np.int64).reshape(-1, 2),
        "starts": np.array(starts),
        "classes": np.array(classes, np.uint8),
        "is_crowd": np.array(is_crowd, bool),
        "ends": np.cumsum([0, *map(len, codes)]),
        "codes": np.frombuffer(b"".join(codes), np.uint8),
    }


def _segments(content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Panoptic segments as arrays; see `CocoReader.annotations`."""
    numbers = _class_numbers(content)
    things = {category["id"] for category in content["categories"] if category["isthing"]}
    pictures = sorted(content["annotations"], key=lambda picture: picture["image_id"])
    segments = [segment for picture in pictures for segment in picture["segments_info"]]
    return {
        "images": np.array([picture["image_id"] for picture in pictures], np.int64),
        "starts": np.cumsum([0, *(len(picture["segments_info"]) for picture in pictures)]),
        "ids": np.array([segment["id"] for segment in segments], np.uint32),
        "classes": np.array([numbers[s["category_id"]] for s in segments], np.uint8),
        "is_thing": np.array([s["category_id"] in things for s in segments], bool),
    }


def _write(declaration: DatasetDeclaration, example: Example) -> Example:
    """Writes instances: polygons of two parts, rows of pixels, and crowds as run-length codes."""
    folder, count = declaration.absolute_path, len(example.image)
    num_training = count * 2 // 3
    classes = np.zeros((count, NUM_ENTITIES), np.uint8)
    ignore = []
    annotations: dict[str, list[Any]] = {name: [] for name in FOLDERS}
    pictures: dict[str, list[Any]] = {name: [] for name in FOLDERS}
    for record, image in enumerate(example.image):
        name = FOLDERS[record >= num_training]
        file = folder / name / f"{record + 1:012d}.png"
        save_image(file, image)  # no loss, whatever the name says
        file.rename(file.with_suffix(".jpg"))
        height, width = image.shape[:2]
        pictures[name].append({"id": record + 1, "height": height, "width": width})
        bottom, right = 10 + record, 12 + record
        shapes = [  # (rows, columns, class's id, crowd)
            (slice(2, bottom), slice(3, right), 1, 0),
            (slice(bottom - 4, bottom + 9), slice(right - 3, right + 11), 90, 0),
            (slice(height - 5, height), slice(0, 7), 3, 1),
        ]
        masks = np.zeros((3, height, width), bool)
        for mask, (rows, columns, category, is_crowd) in zip(masks, shapes, strict=True):
            mask[rows, columns] = True
            top, low, left, far = rows.start, rows.stop, columns.start, columns.stop
            middle = (top + low) // 2
            segmentation: Any = [  # two parts, as of an object that another one divides
                [left, y0, far, y0, far, y1, left, y1] for y0, y1 in ((top, middle), (middle, low))
            ]
            if is_crowd:
                runs = np.diff(np.flatnonzero(np.diff(mask.ravel("F"), prepend=0, append=0)))
                first = int(mask.ravel("F").argmax())
                rest = mask.size - first - int(runs.sum())
                segmentation = {"size": [height, width]}
                segmentation["counts"] = [first, *runs.tolist(), rest]
            annotations[name].append(
                {
                    "image_id": record + 1,
                    "category_id": category,
                    "iscrowd": is_crowd,
                    "segmentation": segmentation,
                }
            )
        instances = Instances.stacked(masks, (1, 3, 2), void=np.zeros((height, width), bool))
        example.segmentation[record], classes[record] = instances.segmentation, instances.classes
        covered = masks.sum(0)
        ignore.append(np.where(covered > 1, OVERLAP, SCORED).astype(np.uint8))
    (folder / "annotations").mkdir()
    for name in FOLDERS:
        content = {
            "images": pictures[name],
            "annotations": annotations[name],
            "categories": [{"id": number} for number in (1, 3, 90)],
        }
        file = folder / "annotations" / f"instances_{name}.json"
        file.write_text(json.dumps(content))
    sizes = {"train": num_training - 1, "val": 1, "test": count - num_training}
    return dataclasses.replace(
        example,
        splits=consecutive(**sizes),
        fields={"ignore": fitted(declaration, ignore), "classes": classes},
    )


write_example = writer(default_config, declare, _write)
