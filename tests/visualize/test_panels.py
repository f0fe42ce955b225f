import numpy as np
import pytest

from objdisc_jax.visualize import panel
from objdisc_jax.visualize.palette import COLORS


def rows(batch=3, size=35, slots=4):
    rng = np.random.default_rng(0)
    return {
        "input": rng.integers(0, 256, (batch, size, size, 3), np.uint8),
        "reconstruction": rng.uniform(-0.1, 1.1, (batch, size, size, 3)).astype(np.float32),
        "true": rng.integers(0, 4, (batch, size, size), np.uint8),
        "slot": rng.uniform(size=(batch, slots, size, size, 3)),
    }


def contains(image, tile):
    """Whether a tile occurs in an image exactly."""
    windows = np.lib.stride_tricks.sliding_window_view(image, tile.shape)[:, :, 0]
    first = (windows[:, :, 0, 0] == tile[0, 0]).all(-1)
    return any((windows[y, x] == tile).all() for y, x in np.argwhere(first))


def test_small_images_are_enlarged_in_whole_blocks():
    image = panel(rows())
    assert image.dtype == np.uint8
    assert contains(image, rows()["input"][2].repeat(3, 0).repeat(3, 1))


def test_large_images_keep_their_size():
    assert contains(panel(rows(size=101)), rows(size=101)["input"][1])


def test_panel_has_a_row_for_every_name_and_slot_and_a_column_for_every_example():
    height, width, channels = panel(rows(batch=3, slots=4)).shape
    assert channels == 3
    assert 7 * 105 < height < 7 * 105 + 100
    assert 3 * 105 < width < 3 * 105 + 160
    assert panel(rows(batch=5, slots=4)).shape[1] - width == 2 * (105 + 3)
    assert panel(rows(batch=3, slots=6)).shape[0] - height == 2 * (105 + 3)


def test_names_are_drawn():
    plain, named = (panel({name: rows()["input"]}) for name in ("", "input"))
    margin = named[:, : named.shape[1] - plain.shape[1]]
    assert (margin < 100).all(-1).sum() > 20


def test_slots_are_marked_with_the_colours_of_their_labels():
    image = panel({"slot": np.ones((1, 2, 100, 100, 3))})
    marked = [(image == color).all(-1).sum() for color in COLORS[:3]]
    assert marked == [500, 500, 0]


def test_rows_of_different_resolution_are_brought_to_the_largest():
    coarse = np.arange(2 * 5 * 5 * 3, dtype=np.uint8).reshape(2, 5, 5, 3)
    image = panel({"coarse": coarse, "fine": np.zeros((2, 110, 110, 3), np.uint8)})
    assert contains(image, coarse[1].repeat(22, 0).repeat(22, 1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "no row"),
        ({"a": np.zeros((2, 4, 4, 3)), "b": np.zeros((3, 4, 4, 3))}, r"'a': 2, 'b': 3"),
        ({"a": np.zeros((4, 4))}, r"a: got shape \(4, 4\)"),
        ({"a": np.zeros((1, 3, 4, 4))}, r"a: got shape \(1, 3, 4, 4\); expected RGB"),
        ({"a": np.zeros((1, 4, 4, 3), np.int32)}, r"a: got int32; RGB images are uint8"),
        ({"a": np.zeros((1, 4, 4), np.float32)}, r"a: got float32 .*integers"),
    ],
)
def test_wrong_rows_are_an_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        panel(wrong)
