"""Pictures of results, without a browser."""

import numpy as np
import pytest
from PIL import Image

from objdisc_jax.api import Segmentation
from objdisc_jax.errors import UserError
from objdisc_jax.exploration import pictures
from objdisc_jax.visualize.palette import COLORS


@pytest.fixture
def result():
    """40x60 pixels: slot 0 a square of 10, slot 2 one of 20, the rest background."""
    segmentation = np.zeros((40, 60), np.uint8)
    segmentation[2:12, 2:12] = 1
    segmentation[15:35, 30:50] = 3
    return Segmentation(
        image=np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8),
        segmentation=segmentation,
        masks=np.zeros((4, 4, 6), np.float32),
        slots=np.arange(8, dtype=np.float32).reshape(4, 2),
        background=None,
        recon=None,
        crop=(0, 40, 0, 60),
        boxes=np.array([[2.0, 12.0, 2.0, 12.0], [30.0, 60.0, 50.0, 90.0]]),
        count=2,
        extras={},
    )


def test_tiles_are_of_slots_with_pixels(result):
    assert pictures.tiled_slots(result) == [0, 2]


def test_of_many_slots_the_largest_have_tiles(result, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_TILES", 1)
    assert pictures.tiled_slots(result) == [2]


def test_a_slot_that_is_off_is_not_painted(result):
    painted = pictures.painted(result, 1.0, [2], {})
    np.testing.assert_array_equal(painted[5, 5], result.image[5, 5])
    np.testing.assert_array_equal(painted[20, 40], COLORS[2])


def test_a_slot_has_the_color_it_was_given(result):
    painted = pictures.painted(result, 1.0, [0, 2], {2: "#102030"})
    np.testing.assert_array_equal(painted[5, 5], COLORS[0])
    np.testing.assert_array_equal(painted[20, 40], [0x10, 0x20, 0x30])


@pytest.mark.parametrize(
    "text", ["#ff8000", "ff8000", "#FF8000ff", "rgb(255, 128, 0)", "rgba(255, 127.6, 0, 1)"]
)
def test_colors_of_a_picker_are_read(text):
    assert pictures.parse_color(text) == (255, 128, 0)


def test_short_colors_are_read_and_others_refused():
    assert pictures.parse_color("#f80") == (255, 136, 0)
    for text in ("orange", "", "#12345", "rgb(1)"):
        with pytest.raises(UserError, match="#rrggbb"):
            pictures.parse_color(text)


def test_color_codes_are_the_palettes():
    assert pictures.parse_color(pictures.color_code(3)) == COLORS[3]


def test_an_export_is_the_slots_pixels_on_nothing(result, tmp_path):
    file = pictures.export(result, 2, tmp_path, "../my photo")
    assert file.parent == tmp_path
    pixels = np.asarray(Image.open(file))
    inside = result.segmentation == 3
    assert pixels.shape == (40, 60, 4)
    np.testing.assert_array_equal(pixels[..., 3], 255 * inside)
    np.testing.assert_array_equal(pixels[inside][:, :3], result.image[inside])


def test_a_tile_is_small_and_transparent(result):
    tile = pictures.tile(result, 0)
    assert max(tile.size) <= 240
    assert tile.mode == "RGBA"


def test_boxes_are_outlined_and_may_leave_the_image(result):
    drawn = pictures.outlined(result.image, result.boxes)
    np.testing.assert_array_equal(drawn[2, 2:13], [(0, 220, 0)] * 11)
    np.testing.assert_array_equal(drawn[6, 6], result.image[6, 6])


def test_attention_is_the_mean_color_of_the_slots():
    attn = np.zeros((2, 1, 2), np.float32)
    attn[0, 0, 0], attn[:, 0, 1] = 1, 0.5
    strip = pictures.attention_strip(attn)
    assert strip.shape == (128, 256, 3)
    np.testing.assert_array_equal(strip[0, 0], COLORS[0])
    np.testing.assert_allclose(strip[0, -1], np.mean(COLORS[:2], axis=0), atol=1)


def test_as_many_for_as_many_take_each_others_places():
    first, second = np.zeros((3, 2), np.float32), np.ones((4, 2), np.float32)
    one, other = pictures.exchanged((first, second), ([1], [3]))
    np.testing.assert_array_equal(one[:, 0], [0, 1, 0])
    np.testing.assert_array_equal(other[:, 0], [1, 1, 1, 0])
    assert not first.any()


def test_slots_that_move_alone_join_the_others():
    first, second = np.zeros((3, 2), np.float32), np.ones((4, 2), np.float32)
    one, other = pictures.exchanged((first, second), ([0, 1], []))
    assert one.shape == (1, 2)
    np.testing.assert_array_equal(other[:, 0], [1, 1, 1, 1, 0, 0])


def test_large_images_are_scaled_down_and_larger_refused(tmp_path):
    Image.new("RGB", (1500, 1000)).save(tmp_path / "large.png")
    assert pictures.read_image(tmp_path / "large.png", 1_500_000).size == (1024, 683)
    with pytest.raises(UserError, match=r"^large.png has 1500 x 1000 pixels, .* 1,000,000"):
        pictures.read_image(tmp_path / "large.png", 1_000_000)


def test_an_image_that_pillow_refuses_is_told_as_too_large(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    with pytest.raises(UserError, match=r"^huge.png has far more than the 1,000,000 pixels"):
        pictures.read_image(tmp_path / "huge.png", 1_000_000)


def test_what_is_no_image_is_told_without_its_folder(tmp_path):
    for name, content in (("text.png", b"no image"), ("empty.jpg", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name) as told:
            pictures.read_image(tmp_path / name, 1000)
        assert str(tmp_path) not in str(told.value)
    whole = tmp_path / "whole.png"
    Image.effect_noise((64, 64), 50).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:900])
    with pytest.raises(UserError, match=r"cut\.png"):
        pictures.read_image(tmp_path / "cut.png", 10_000)
