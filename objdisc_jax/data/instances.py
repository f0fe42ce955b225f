"""Photographs with a segmentation of every object, where objects may overlap or be uncertain."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from objdisc_jax.data.declaration import DatasetDeclaration, Field
from objdisc_jax.data.errors import BadImageError
from objdisc_jax.data.folder import FolderReader
from objdisc_jax.data.images import centred_box

NUM_ENTITIES = 128
"""Labels of an image, background included; COCO and VOC stay below."""

SCORED, OVERLAP, VOID = range(3)
"""What a pixel is by the field "ignore": of one object or none, of several, of nothing certain."""


class Instances(NamedTuple):
    """The objects of an image."""

    segmentation: UInt8[np.ndarray, "h w"]  # 0 is background; of several objects the first
    ignore: UInt8[np.ndarray, "h w"]  # SCORED, OVERLAP or VOID
    classes: UInt8[np.ndarray, "n"]  # of each label, 0 where there is no such object

    @classmethod
    def stacked(
        cls,
        masks: Bool[np.ndarray, "n h w"],
        classes: Collection[int],
        void: Bool[np.ndarray, "h w"],
    ) -> "Instances":
        """Those of masks that may overlap, the first on top."""
        segmentation = np.zeros(void.shape, np.uint8)
        covered = np.zeros(void.shape, np.uint8)
        for label, mask in zip(range(len(masks), 0, -1), masks[::-1], strict=True):
            segmentation[mask] = label
            covered += mask
        ignore = np.where(void, VOID, np.where(covered > 1, OVERLAP, SCORED))
        return cls(segmentation, ignore.astype(np.uint8), table_of(classes))


def table_of(classes: Collection[int]) -> UInt8[np.ndarray, "n"]:
    """The classes of labels 1, 2, ... as the field "classes"."""
    table = np.zeros(NUM_ENTITIES, np.uint8)
    table[1 : 1 + len(classes)] = list(classes)
    return table


def fields(mask_size: tuple[int, int]) -> dict[str, Field]:
    """What such a data set declares, besides image and segmentation."""
    return {"ignore": Field("uint8", mask_size), "classes": Field("uint8", (NUM_ENTITIES,))}


def fitted(declaration: DatasetDeclaration, maps: Sequence[np.ndarray]) -> np.ndarray:
    """Maps `[h, w]` as a data set of these fields reads them, `[n, rows, columns]`."""
    assert declaration.mask_size is not None
    rows, columns = declaration.mask_size
    tiles = [Image.fromarray(one) for one in maps]
    boxes = [centred_box(tile.size, columns / rows) for tile in tiles]
    size, resample = (columns, rows), Image.Resampling.NEAREST
    return np.stack(
        [
            np.asarray(tile.crop(box).resize(size, resample))
            for tile, box in zip(tiles, boxes, strict=True)
        ]
    )


class InstanceReader(FolderReader):
    """Reads images, and the objects in each."""

    def instances(self, image: Path) -> Instances:
        """Returns the objects of an image, at its size."""
        raise NotImplementedError

    def read(self, record: int, names: Collection[str]) -> dict[str, np.ndarray]:
        """Returns the fields of a record that are asked for."""
        image, found = self.path(record), {}
        if "image" in names:
            found["image"] = self.field("image", image)
        if wanted := set(names) - {"image"}:
            instances = self.instances(image)
            if "classes" in wanted:
                found["classes"] = instances.classes
            for name in wanted & {"segmentation", "ignore"}:
                labels = Image.fromarray(getattr(instances, name))
                found[name] = self.fitted_labels(labels, image)
        return found


def check_count(count: int, image: Path) -> None:
    """Checks that the objects of an image can be told apart by their labels."""
    if count >= NUM_ENTITIES:
        raise BadImageError(
            f"The image {image} has {count} objects, but there are labels for "
            f"{NUM_ENTITIES - 1}. Leave it out: --config.data.on_bad_image=skip"
        )
