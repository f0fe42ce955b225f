"""Objects of a scene that are moved, enlarged, hidden and copied before it is painted again."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from objdisc_jax.api import Segmentation

_COPY_SHIFT = 10.0
"""A copy lies so far to the right of its original and below it, in percent of the image."""


@dataclasses.dataclass(frozen=True)
class Placed:
    """An object, and what a visitor has done to it."""

    slot: int  # whose appearance it has
    name: str  # for the visitor
    found: tuple[float, float, float, float]  # its box: top, bottom, left, right in model pixels
    right: float = 0.0  # how far it has moved, in percent of the image's width
    down: float = 0.0  # in percent of its height
    size: float = 1.0  # factor of its sides
    hidden: bool = False

    def box(self, resolution: tuple[int, int]) -> tuple[float, float, float, float]:
        """Where it is now: top, bottom, left, right in model pixels."""
        top, bottom, left, right = self.found
        height, width = resolution
        y = 0.5 * (top + bottom) + 0.01 * self.down * height
        x = 0.5 * (left + right) + 0.01 * self.right * width
        half_height, half_width = 0.5 * self.size * (bottom - top), 0.5 * self.size * (right - left)
        return y - half_height, y + half_height, x - half_width, x + half_width


def found(result: Segmentation) -> list[Placed]:
    """The objects of an image as they were found, of a model that tells their boxes."""
    objects = []
    for i in map(int, np.flatnonzero(result.extras["z_pres"] > 0.5)):
        top, bottom, left, right = map(float, result.extras["boxes"][i])
        objects.append(Placed(i, f"Slot {i + 1}", (top, bottom, left, right)))
    return objects


def copied(objects: Sequence[Placed], number: int) -> list[Placed]:
    """The objects with a copy of one of them at the end, a little aside."""
    original = objects[number]
    copies = sum(other.slot == original.slot for other in objects)
    copy = dataclasses.replace(
        original,
        name=f"Slot {original.slot + 1}, copy {copies}",
        right=original.right + _COPY_SHIFT,
        down=original.down + _COPY_SHIFT,
        hidden=False,
    )
    return [*objects, copy]


def painted(
    objects: Sequence[Placed], result: Segmentation, resolution: tuple[int, int]
) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, "k 4"]]:
    """Slots and boxes of the objects that are not hidden, as a model renders them."""
    shown = [one for one in objects if not one.hidden]
    boxes = np.array([one.box(resolution) for one in shown], np.float32).reshape(-1, 4)
    return result.slots[[one.slot for one in shown]], boxes
