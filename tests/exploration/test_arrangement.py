"""Objects that are moved, enlarged, hidden and copied."""

import dataclasses

import numpy as np
import pytest

from objdisc_jax.api import Segmentation
from objdisc_jax.exploration import arrangement

RESOLUTION = (50, 100)


@pytest.fixture
def result():
    """Three cells, of which the first and the last hold an object."""
    boxes = np.array([[10, 20, 30, 60], [0, 1, 0, 1], [0, 8, 0, 4]], np.float32)
    return Segmentation(
        image=np.zeros((50, 100, 3), np.uint8),
        segmentation=np.zeros((50, 100), np.uint8),
        masks=np.zeros((4, 50, 100), np.float32),
        slots=np.arange(6, dtype=np.float32).reshape(3, 2),
        background=3,
        recon=None,
        crop=(0, 50, 0, 100),
        boxes=boxes[[0, 2]],
        count=2,
        extras={"z_pres": np.array([0.9, 0.1, 0.6], np.float32), "boxes": boxes},
    )


def test_objects_that_are_there_are_painted_as_found(result):
    objects = arrangement.found(result)
    assert [one.name for one in objects] == ["Slot 1", "Slot 3"]
    slots, boxes = arrangement.painted(objects, result, RESOLUTION)
    np.testing.assert_array_equal(slots, [[0, 1], [4, 5]])
    np.testing.assert_array_equal(boxes, [[10, 20, 30, 60], [0, 8, 0, 4]])


def test_an_object_moves_in_percent_of_the_image_and_grows_around_its_middle(result):
    moved = dataclasses.replace(arrangement.found(result)[0], right=10, down=-20, size=2)
    # Middle (15, 45) of 50 x 100 pixels to (5, 55); sides 10 and 30 to 20 and 60.
    np.testing.assert_allclose(moved.box(RESOLUTION), [-5, 15, 25, 85])


def test_a_hidden_object_is_not_painted(result):
    objects = arrangement.found(result)
    objects[0] = dataclasses.replace(objects[0], hidden=True)
    slots, boxes = arrangement.painted(objects, result, RESOLUTION)
    np.testing.assert_array_equal(slots, [[4, 5]])
    objects[1] = dataclasses.replace(objects[1], hidden=True)
    slots, boxes = arrangement.painted(objects, result, RESOLUTION)
    assert slots.shape == (0, 2)
    assert boxes.shape == (0, 4)


def test_a_copy_has_the_slot_and_lies_aside(result):
    objects = arrangement.found(result)
    objects[1] = dataclasses.replace(objects[1], right=5, size=2, hidden=True)
    more = arrangement.copied(arrangement.copied(objects, 1), 2)
    assert more[:2] == objects
    assert [one.name for one in more[2:]] == ["Slot 3, copy 1", "Slot 3, copy 2"]
    assert [(one.right, one.down, one.size, one.hidden) for one in more[2:]] == [
        (15, 10, 2, False),
        (25, 20, 2, False),
    ]
    slots, _ = arrangement.painted(more, result, RESOLUTION)
    np.testing.assert_array_equal(slots, [[0, 1], [4, 5], [4, 5]])
