import jax.numpy as jnp
import numpy as np
import pytest

from objdisc_jax.errors import UserError
from objdisc_jax.nn.contrast import contrast
from objdisc_jax.segmentation import MODES, REGIONS, segment, segment_enlarged


def masks_of(labels, num_slots, sure=0.9):
    """Soft masks [1, k, h, w] that put `sure` on slot labels[y, x] and share out the rest."""
    one_hot = np.moveaxis(np.eye(num_slots)[np.array(labels)], -1, 0)
    return (sure * one_hot + (1 - sure) / (num_slots - 1) * (1 - one_hot))[None]


def scene(size=24):
    """Slot 1 everywhere but for slot 0, a square, and slot 2, a diagonal line across it."""
    labels = np.ones((size, size), int)
    labels[2:8, 2:8] = 0
    labels[np.arange(10, 20), np.arange(10, 20)] = 2
    return labels


def test_none_gives_slot_index_plus_one():
    labels = segment(masks_of(scene(), 3))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, scene()[None] + 1)


def test_ties_go_to_the_first_slot():
    np.testing.assert_array_equal(segment(np.full((2, 4, 5, 5), 0.25)), 1)


def test_own_background_mask_becomes_zero_whatever_the_mode():
    for mode in MODES:
        labels = segment(masks_of(scene(), 3), background=2, mode=mode)
        np.testing.assert_array_equal(labels, (np.where(scene() == 2, 0, scene() + 1))[None])


def test_low_confidence_makes_unsure_pixels_background():
    masks = masks_of(scene(), 3)
    masks[0, :, 12:] = np.array([0.3, 0.5, 0.2])[:, None, None]  # the threshold itself stays
    masks[0, :, 14:] = np.array([0.3, 0.49, 0.21])[:, None, None]
    labels = segment(masks, mode="low_confidence")[0]
    np.testing.assert_array_equal(labels[:12], scene()[:12] + 1)
    np.testing.assert_array_equal(labels[12:14], 2)
    np.testing.assert_array_equal(labels[14:], 0)
    np.testing.assert_array_equal(segment(masks, mode="low_confidence", threshold=0.4)[0, 14:], 2)


def test_contrast_makes_background_of_what_all_slots_paint():
    """Three slots paint grey, and the one that has the square black there; who claims grey varies.

    Another slot is black, too, where it is not seen; one of two halves of a pixel is lost with its
    mask.
    """
    labels = np.random.default_rng(0).integers(0, 4, (6, 6))
    labels[1:3, 1:3] = 2
    masks = masks_of(labels, 4).astype(np.float32)
    recons = np.zeros((1, 4, 6, 6, 3), np.float32)
    recons[0, 2, 1:3, 1:3] = -1.0
    recons[0, 0, 4:, 4:] = -1.0
    masks[0, :, 4:, 4:] = np.array([0.05, 0.85, 0.05, 0.05])[:, None, None]
    found = contrast(jnp.asarray(masks), jnp.asarray(recons), (-1.0, 1.0))
    np.testing.assert_allclose(found[0, 1:3, 1:3], 0.9 * 0.5, rtol=1e-6)
    segmented = segment(masks, contrast=found, mode="contrast")[0]
    expected = np.zeros((6, 6))
    expected[1:3, 1:3] = 3
    np.testing.assert_array_equal(segmented, expected)
    np.testing.assert_array_equal(
        segment(masks, contrast=found, mode="contrast", min_contrast=0.46), 0
    )


def test_contrast_is_that_of_colours_in_the_models_range():
    """The largest channel counts, times the mask; beyond black and white there is nothing."""
    masks = jnp.array([0.2, 0.7, 0.1])[None, :, None, None]
    recons = jnp.array([[0.2, 0.5, 0.1], [0.4, 1.5, 0.2], [0.2, 0.4, 0.1]])[None, :, None, None]
    found = contrast(masks, recons, (0.0, 1.0))
    np.testing.assert_allclose(found[0, 0, 0], 0.7 * 0.5, rtol=1e-6)


def test_contrast_of_slots_that_paint_nothing_is_refused():
    masks = masks_of(scene(), 3)
    for refused in (
        lambda: segment(masks, mode="contrast"),
        lambda: segment_enlarged(masks[0], (48, 48), mode="contrast"),
    ):
        with pytest.raises(UserError, match=r"paint no image\. Use none, low_c"):
            refused()


@pytest.mark.parametrize("region", REGIONS)
def test_largest_segment_takes_the_slot_that_surrounds_the_others(region):
    labels = segment(masks_of(scene(), 3), mode="largest_segment", region=region)
    np.testing.assert_array_equal(labels, np.where(scene() == 1, 0, scene() + 1)[None])


def test_hull_counts_and_not_the_number_of_pixels():
    """A thin frame has fewer pixels than the square inside it, and the larger hull."""
    labels = np.zeros((20, 20), int)
    labels[1:-1, 1:-1] = 1
    background = segment(masks_of(labels, 2), mode="largest_segment") == 0
    np.testing.assert_array_equal(background[0], labels == 0)


def test_area_and_diameter_choose_differently():
    """A row of pixels reaches further than the blocks below it, whose areas are larger."""
    labels = np.zeros((8, 20), int)
    labels[1:, :12] = 1
    labels[1:, 12:] = 2
    for region, expected in (("hull_area", 1), ("hull_diameter", 0)):
        result = segment(masks_of(labels, 3), mode="largest_segment", region=region)[0]
        np.testing.assert_array_equal(result == 0, labels == expected)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("cells", [[(3, 3)], [(3, 3), (3, 4)], [(0, 0), (1, 1), (2, 2)], []])
def test_degenerate_regions_have_an_extent(region, cells):
    """A pixel, two, a diagonal, an empty slot: none is taken for the background around it."""
    labels = np.zeros((9, 9), int)
    for cell in cells:
        labels[cell] = 1
    result = segment(masks_of(labels, 2), mode="largest_segment", region=region)[0]
    np.testing.assert_array_equal(result, np.where(labels == 1, 2, 0))


def test_region_is_not_lost_where_all_regions_are_lines():
    labels = np.array([[0, 0, 0, 1, 1]])
    for region in REGIONS:
        result = segment(masks_of(labels, 2), mode="largest_segment", region=region)
        np.testing.assert_array_equal(result, [[[0, 0, 0, 2, 2]]])


def test_both_adds_the_furthest_region_to_the_thresholded_one():
    masks = masks_of(scene(), 3)
    masks[0, :, 2:8, 2:8] = 1 / 3  # the square is unsure, the surrounding slot is not
    labels = segment(masks, mode="both")[0]
    np.testing.assert_array_equal(labels, np.where(scene() == 2, 3, 0))


def test_both_stops_where_the_thresholded_region_is_the_furthest():
    masks = masks_of(scene(), 3)
    masks[0, :, scene() == 1] = 1 / 3
    np.testing.assert_array_equal(
        segment(masks, mode="both"), segment(masks, mode="low_confidence")
    )


def test_images_of_a_batch_are_independent():
    rng = np.random.default_rng(0)
    masks = rng.dirichlet(np.full(4, 0.3), (5, 12, 13)).transpose(0, 3, 1, 2)
    for mode in MODES:
        given = rng.random((5, 12, 13)) if mode == "contrast" else [None] * 5
        together = segment(masks, contrast=given if mode == "contrast" else None, mode=mode)
        alone = np.concatenate(
            [
                segment(mask[None], contrast=None if one is None else one[None], mode=mode)
                for mask, one in zip(masks, given, strict=True)
            ]
        )
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"mode": "largest"},
            r"mode: got 'largest'; allowed are none, low_confidence, largest_",
        ),
        (
            {"mode": "both", "region": "hull"},
            r"region: got 'hull'; allowed are hull_area, hull_diameter",
        ),
        ({"threshold": 127}, r"threshold: got 127"),
        ({"min_contrast": -1}, r"min_contrast: got -1"),
        ({"background": 3}, r"background: got 3; allowed is the index of one of the 3 masks"),
    ],
)
def test_wrong_argument_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        segment(masks_of(scene(), 3), **arguments)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 256, 2, 2)])
def test_wrong_shape_is_an_error(shape):
    with pytest.raises(ValueError, match=r"masks: got shape .*expected \[b, k, h, w\]"):
        segment(np.zeros(shape))


def test_masks_are_enlarged_before_pixels_are_assigned():
    """Between two pixels' centres, 4 apart, the border lies where the masks are equal."""
    masks = np.array([[[0.9, 0.3]], [[0.1, 0.7]]], np.float32)  # equal after 2/3 of the way
    found = segment_enlarged(masks, (1, 8))
    # Pixel centres at 0.5, 1.5, ...; those of the masks at 2 and 6.
    np.testing.assert_array_equal(found[0], [1, 1, 1, 1, 1, 2, 2, 2])
    own = segment_enlarged(masks, (1, 8), background=1)
    np.testing.assert_array_equal(own[0], [1, 1, 1, 1, 1, 0, 0, 0])
    low = segment_enlarged(masks, (1, 8), mode="low_confidence", threshold=0.65)
    np.testing.assert_array_equal(low[0] == 0, [0, 0, 0, 0, 1, 1, 0, 0])


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "contrast"])
def test_masks_that_keep_their_size_are_assigned_as_without_enlarging(mode):
    masks = np.random.default_rng(0).dirichlet(np.ones(4), (2, 9, 11)).astype(np.float32)
    masks = np.moveaxis(masks, -1, 1)
    expected = segment(masks, mode=mode, threshold=0.5)
    for one, labels in zip(masks, expected, strict=True):
        found = segment_enlarged(one, (9, 11), mode=mode, threshold=0.5)
        np.testing.assert_array_equal(found, labels)
