import numpy as np
import pytest
from scipy.ndimage import maximum_filter, minimum_filter

from objdisc_jax.visualize import colorize, overlay
from objdisc_jax.visualize.palette import COLORS


def test_background_stays_and_segments_are_tinted_and_outlined():
    image = np.full((20, 30, 3), 100, np.uint8)
    labels = np.zeros((20, 30), np.uint8)
    labels[5:15, 5:15] = 2
    tinted = overlay(image, labels, alpha=0.5)
    assert tinted.dtype == np.uint8
    assert tinted.shape == image.shape
    np.testing.assert_array_equal(tinted[labels == 0], 100)
    np.testing.assert_array_equal(tinted[5, 5:15], [COLORS[1]] * 10)
    np.testing.assert_array_equal(tinted[10, 10], np.round((100 + np.array(COLORS[1])) / 2))


def test_colors_of_ones_own_repeat_as_the_palette_does():
    labels = np.repeat([[0, 1, 2, 3]], 8, axis=1).repeat(8, axis=0)
    colors = np.array([[9, 9, 9], [250, 0, 0], [0, 250, 0]], np.uint8)
    tinted = overlay(np.zeros((8, 32, 3)), labels, alpha=1, colors=colors)
    np.testing.assert_array_equal(
        tinted[4, [4, 12, 20, 28]], [[0, 0, 0], [250, 0, 0], [0, 250, 0], [250, 0, 0]]
    )


def test_touching_segments_are_outlined_on_both_sides():
    labels = np.repeat([[1, 2]], 5, axis=1).repeat(8, axis=0)
    tinted = overlay(np.zeros((8, 10, 3)), labels, alpha=0)
    np.testing.assert_array_equal(tinted[4, 3:7], [[0] * 3, COLORS[0], COLORS[1], [0] * 3])


def test_outlines_grow_with_the_image():
    labels = np.zeros((600, 800), np.uint8)
    labels[:, 400:] = 1
    tinted = overlay(np.zeros((600, 800, 3)), labels, alpha=0)
    np.testing.assert_array_equal(np.flatnonzero(tinted[300].any(-1)), [400, 401, 402, 403])


def test_batch_equals_single_images():
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(size=(3, 12, 14, 3)), rng.integers(0, 3, (3, 12, 14))
    singles = [overlay(*pair) for pair in zip(images, labels, strict=True)]
    np.testing.assert_array_equal(overlay(images, labels), singles)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (450, 210), (401, 403)])
def test_every_pixel_is_the_rounded_blend(size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    labels = rng.integers(0, 60, (9, 7))[np.arange(size[0]) % 150 // 17][:, np.arange(size[1]) % 7]
    window = 3 + 2 * (min(size) // 200)
    outline = minimum_filter(labels, window) != maximum_filter(labels, window)
    opacity = (np.where(outline, 1, 0.45) * (labels > 0))[..., None]
    expected = np.round(image + opacity * (colorize(labels) - image.astype(np.float64)))
    np.testing.assert_array_equal(overlay(image, labels), expected)
    np.testing.assert_array_equal(overlay(np.asfortranarray(image), labels.T.copy().T), expected)


def test_wrong_arguments_are_errors():
    image, labels = np.zeros((8, 8, 3)), np.zeros((8, 8), int)
    with pytest.raises(ValueError, match=r"segmentation: got shape \(8, 4\)"):
        overlay(image, labels[:, :4])
    with pytest.raises(ValueError, match=r"alpha: got 45"):
        overlay(image, labels, alpha=45)
    with pytest.raises(ValueError, match=r"image: got shape"):
        overlay(image[..., 0], labels)
