import zlib

import numpy as np
import pytest

from objdisc_jax.data.synthetic import tetrominoes

RED, GREEN, BLUE, YELLOW, MAGENTA, CYAN = range(6)

# Measured from genuine records of the published data set: numbers of the shapes, colours, rows and
# columns of the pieces; CRC-32 of the image's bytes and of the four mask planes' bytes.
GENUINE = [
    ([6, 5, 15], [YELLOW, GREEN, BLUE], [(22, 0), (11, 19), (24, 20)], 0x61A31253, 0xF2ED7A38),
    ([9, 14, 5], [YELLOW, CYAN, YELLOW], [(12, 3), (17, 20), (0, 19)], 0xD715F7A7, 0x5B17FD50),
    ([13, 5, 2], [MAGENTA, GREEN, MAGENTA], [(12, 3), (22, 4), (4, 22)], 0xC7BA51C6, 0x8EDC0269),
    ([14, 11, 16], [YELLOW, MAGENTA, BLUE], [(14, 19), (20, 0), (2, 1)], 0x75899764, 0xCD72FAC6),
    ([18, 17, 13], [CYAN, RED, BLUE], [(3, 2), (15, 4), (15, 19)], 0xA8143E48, 0x4E91FF39),
    ([7, 19, 16], [CYAN, GREEN, BLUE], [(16, 25), (9, 7), (2, 20)], 0xCB39FD65, 0xA5777D4C),
    ([12, 7, 18], [GREEN, CYAN, MAGENTA], [(2, 0), (13, 1), (0, 23)], 0x089D9492, 0xE9317156),
    ([10, 3, 2], [GREEN, MAGENTA, CYAN], [(16, 5), (25, 16), (1, 25)], 0x9CC07527, 0x1B99B6B6),
]
# How often the grey levels 63, 95, 127, 159, 191, 223 and 255 occur in ten genuine images.
GENUINE_LEVELS = [564, 188, 752, 1692, 752, 188, 564]


@pytest.fixture(scope="module")
def records():
    return tetrominoes.generate(0, 0, 3_000)


@pytest.mark.parametrize(("shape", "color", "corner", "image_crc", "mask_crc"), GENUINE)
def test_genuine_records_are_rendered_to_the_byte(shape, color, corner, image_crc, mask_crc):
    scene = tetrominoes.Scenes(np.array([shape]), np.array([color]), np.array([corner]))
    image, segmentation = tetrominoes.render(scene)
    planes = (segmentation == np.arange(4)[:, None, None]) * np.uint8(255)
    assert zlib.crc32(image.tobytes()) == image_crc
    assert zlib.crc32(planes.tobytes()) == mask_crc


def test_grey_levels_occur_in_the_genuine_proportions(records):
    levels, counts = np.unique(records["image"], return_counts=True)
    np.testing.assert_array_equal(levels, [0, 63, 95, 127, 159, 191, 223, 255])
    np.testing.assert_allclose(counts[1:] / counts[1:].sum(), np.divide(GENUINE_LEVELS, 4700))


def test_arrays_are_those_of_the_published_file_and_two_more(records):
    described = {key: (values.shape[1:], values.dtype.name) for key, values in records.items()}
    assert described == {
        "image": ((35, 35, 3), "uint8"),
        "mask": ((4, 35, 35, 1), "uint8"),
        "x": ((4,), "float32"),
        "y": ((4,), "float32"),
        "shape": ((4,), "float32"),
        "color": ((4, 3), "float32"),
        "visibility": ((4,), "float32"),
        "segmentation": ((35, 35), "uint8"),
        "num_objects": ((), "uint8"),
    }


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (5, 9), (1020, 1030), (2999, 3000)])
def test_record_depends_on_seed_and_number_alone(records, start, stop):
    for key, values in tetrominoes.generate(0, start, stop).items():
        np.testing.assert_array_equal(values, records[key][start:stop], strict=True)


def test_seeds_differ():
    first, second = (tetrominoes.generate(seed, 0, 50)["image"] for seed in (0, 1))
    assert (first != second).any((1, 2, 3)).all()


def test_no_two_records_are_alike(records):
    assert len({image.tobytes() for image in records["image"]}) == len(records["image"])


def test_pieces_have_100_pixels_so_none_overlap(records):
    areas = [(records["segmentation"] == label).sum((1, 2)) for label in (1, 2, 3)]
    assert (np.array(areas) == 100).all()


def test_mask_planes_partition_the_image(records):
    assert set(np.unique(records["mask"])) == {0, 255}
    assert (records["mask"].sum(1, dtype=np.int64) == 255).all()
    np.testing.assert_array_equal(records["mask"][..., 0].argmax(1), records["segmentation"])


def test_background_has_no_factors_but_is_visible(records):
    for key in ("x", "y", "shape", "color"):
        assert (records[key][:, 0] == 0).all()
    assert (records["visibility"] == 1).all()
    assert (records["num_objects"] == 3).all()


def test_x_is_the_first_row_and_y_the_first_column_of_a_piece(records):
    for label in (1, 2, 3):
        piece = records["segmentation"] == label
        np.testing.assert_array_equal(piece.any(2).argmax(1), records["x"][:, label])
        np.testing.assert_array_equal(piece.any(1).argmax(1), records["y"][:, label])


def test_pieces_look_like_their_shape_and_colour(records):
    for index in range(40):
        for label in (1, 2, 3):
            piece = tetrominoes.SHAPES[int(records["shape"][index, label])]
            cells = np.array([[cell == "#" for cell in row] for row in piece.split("/")])
            mask = np.kron(cells, np.ones((5, 5), bool))
            top, left = int(records["x"][index, label]), int(records["y"][index, label])
            box = np.s_[index, top : top + mask.shape[0], left : left + mask.shape[1]]
            np.testing.assert_array_equal(records["segmentation"][box] == label, mask)
            pattern = np.tile(tetrominoes.PATTERN, cells.shape)[..., None]
            expected = pattern * records["color"][index, label].astype(np.uint8)
            np.testing.assert_array_equal(records["image"][box][mask], expected[mask])


def test_shapes_and_colours_are_uniform(records):
    shapes, counts = np.unique(records["shape"][:, 1:], return_counts=True)
    np.testing.assert_array_equal(shapes, list(tetrominoes.SHAPES))
    np.testing.assert_allclose(counts, 9_000 / 17, rtol=0.2)  # 4.7 standard deviations
    colors, counts = np.unique(records["color"][:, 1:].reshape(-1, 3), axis=0, return_counts=True)
    assert len(colors) == 6
    np.testing.assert_allclose(counts, 9_000 / 6, rtol=0.12)  # 5 standard deviations


def test_there_are_17_different_pieces_of_four_cells():
    assert len(set(tetrominoes.SHAPES.values())) == 17
    assert all(piece.count("#") == 4 for piece in tetrominoes.SHAPES.values())
    assert not {1, 8} & set(tetrominoes.SHAPES)


@pytest.mark.parametrize(("key", "axis"), [("x", 0), ("y", 1)])
def test_positions_are_all_that_keep_the_piece_inside(records, key, axis):
    for number, piece in tetrominoes.SHAPES.items():
        rows = piece.split("/")
        box = 5 * (len(rows), len(rows[0]))[axis]
        corners = records[key][records["shape"] == number]
        np.testing.assert_array_equal(np.unique(corners), np.arange(35 - box + 1))


def test_entities_are_exchangeable(records):
    for key in ("x", "y", "shape"):
        means = records[key][:, 1:].mean(0)
        spread = records[key][:, 1:].std() / np.sqrt(3_000)
        assert np.ptp(means) < 6 * spread


def test_some_pieces_touch(records):
    labels = records["segmentation"].astype(np.int64)
    beside = labels[:, :, 1:], labels[:, :, :-1]
    assert ((beside[0] != beside[1]) & (beside[0] * beside[1] > 0)).any()
