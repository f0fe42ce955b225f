import numpy as np
import pytest

from objdisc_jax.visualize import colorize
from objdisc_jax.visualize.palette import BACKGROUND, COLORS, palette

# What a dichromat sees, in linear RGB (Machado et al. 2009, severity 1), and OKLab (Ottosson 2020).
SIGHT = {
    "normal": np.eye(3),
    "deuteranopic": np.array(
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    ),
    "protanopic": np.array(
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    ),
}
TO_LMS = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
TO_LAB = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])


def oklab(colors, sight):
    rgb = np.asarray(colors) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(np.clip(linear @ sight.T, 0, 1) @ TO_LMS.T) @ TO_LAB.T


@pytest.mark.parametrize(
    ("num_objects", "sight", "at_least"),
    [
        (8, "normal", 0.19),
        (8, "deuteranopic", 0.12),
        (8, "protanopic", 0.12),
        (12, "normal", 0.13),
        (24, "normal", 0.08),
        (24, "deuteranopic", 0.05),
        (24, "protanopic", 0.05),
    ],
)
def test_colours_are_distinct(num_objects, sight, at_least):
    """0.02 in OKLab is a just noticeable difference."""
    lab = oklab([BACKGROUND, *COLORS[:num_objects]], SIGHT[sight])
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1) + 9 * np.eye(len(lab))
    assert distances.min() > at_least


def test_objects_are_brighter_than_background():
    lightness = oklab([BACKGROUND, *COLORS], SIGHT["normal"])[:, 0]
    assert lightness[1:].min() > lightness[0] + 0.2


def test_labels_get_their_colours():
    image = colorize(np.array([[0, 1], [2, 24]], np.uint8))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, [[BACKGROUND, COLORS[0]], [COLORS[1], COLORS[23]]])


def test_colours_repeat_without_the_background():
    np.testing.assert_array_equal(palette(50)[25:49], COLORS)
    np.testing.assert_array_equal(colorize(np.array([25, 255])), [COLORS[0], COLORS[254 % 24]])


@pytest.mark.parametrize("labels", [np.array([[-1, 0]]), np.zeros((2, 2))])
def test_soft_or_negative_labels_are_an_error(labels):
    with pytest.raises(ValueError, match=r"true: got .*allowed are integers from 0"):
        colorize(labels, "true")
