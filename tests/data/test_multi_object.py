import math

import numpy as np
import pytest

from objdisc_jax.data import datasets, multi_object
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.synthetic import tetrominoes
from tests.data import tfrecords

LAYOUTS = {f"{each.dataset} {each.variant}".strip(): each for each in multi_object.LAYOUTS}


def _draw(layout, num_records, num_entities=None, seed=0):
    """Random records, and their label maps: entities in vertical stripes, in random order."""
    rng = np.random.default_rng(seed)
    shape, _ = layout.features["mask"]
    entity_axis = layout.entity_axis
    num_planes = shape[entity_axis]
    num_entities = num_entities or num_planes
    cols = 320 if layout.dataset == "clevr_with_masks" else shape[1]
    rows = 240 if layout.dataset == "clevr_with_masks" else cols
    segmentation = rng.integers(num_entities, size=(num_records, 1, cols), dtype=np.uint8)
    segmentation[:, 0, :num_entities] = np.arange(num_entities)
    segmentation = np.repeat(segmentation, rows, axis=1)
    planes = np.uint8(255) * (segmentation[..., None] == np.arange(num_planes))
    records = {
        key: rng.uniform(0, 256, (num_records, *shape)).astype(dtype)
        for key, (shape, dtype) in layout.features.items()
    }
    records["mask"] = np.moveaxis(planes, -1, entity_axis + 1)[..., None]
    if "visibility" in records:
        records["visibility"][:] = np.arange(num_planes) < num_entities
    return records, segmentation


def _serialized(records):
    count = len(records["mask"])
    rng = np.random.default_rng(1)
    keys = list(records)
    return [  # TensorFlow writes the features in any order
        tfrecords.example({key: records[key][i] for key in rng.permutation(keys)})
        for i in range(count)
    ]


def _decode(layout, serialized):
    return multi_object.decode(layout, serialized, source="FILE", first=20)


def _error(layout, serialized):
    with pytest.raises(DataError) as error:
        _decode(layout, serialized)
    return str(error.value)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_records_are_decoded_to_our_layout(layout):
    records, segmentation = _draw(layout, 3)
    decoded = _decode(layout, _serialized(records))
    image = np.broadcast_to(records.pop("image"), (*segmentation.shape, 3))
    np.testing.assert_array_equal(decoded.pop("image"), image, strict=True)
    np.testing.assert_array_equal(decoded.pop("segmentation"), segmentation, strict=True)
    num_background = 4 if layout.dataset == "objects_room" else 1
    num_objects = np.full(3, segmentation.max() + 1 - num_background, np.uint8)
    np.testing.assert_array_equal(decoded.pop("num_objects"), num_objects, strict=True)
    del records["mask"]
    assert decoded.keys() == records.keys()
    for key, values in records.items():
        np.testing.assert_array_equal(decoded[key], values, strict=True)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_agree_with_the_declared_sets(layout):
    module = datasets.get(layout.dataset)
    config = module.default_config()
    if layout.variant:
        config.variant = layout.variant
    declaration = module.declare(config)
    assert layout.arguments() in declaration.download_command
    assert layout.features["image"][0][:2] == declaration.image_size
    assert layout.features["mask"][0][layout.entity_axis] == declaration.num_entities


def test_synthetic_tetrominoes_come_back():
    records = tetrominoes.generate(0, 0, 30)
    layout = multi_object.layout("tetrominoes")
    decoded = _decode(layout, _serialized({key: records[key] for key in layout.features}))
    for key, values in decoded.items():
        np.testing.assert_array_equal(values, records[key], strict=True)


def test_objects_are_counted_by_visibility():
    # An object that others hide has no pixels, but is there.
    layout = multi_object.layout("multi_dsprites", "colored_on_grayscale")
    records, _ = _draw(layout, 2, num_entities=3)
    records["visibility"][1, 3:5] = 1
    np.testing.assert_array_equal(_decode(layout, _serialized(records))["num_objects"], [2, 4])


def test_unpacked_lists_are_decoded_too():
    layout = multi_object.layout("tetrominoes")
    records, segmentation = _draw(layout, 2)
    serialized = _serialized(records)
    serialized[1] = tfrecords.example({key: records[key][1] for key in records}, packed=False)
    decoded = _decode(layout, serialized)
    np.testing.assert_array_equal(decoded["segmentation"], segmentation)
    np.testing.assert_array_equal(decoded["color"], records["color"], strict=True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 0, 0, 0], "no partition"),
        ([0, 255, 255, 0], "no partition"),
        ([1, 254, 0, 0], "no partition"),
        ([0, 0, 1, 0], "no partition"),
        ([255, 255, 255, 2], "no partition"),
    ],
)
def test_masks_that_are_no_partition_are_an_error(row, message):
    layout = multi_object.layout("tetrominoes")
    records, _ = _draw(layout, 3)
    records["mask"][1, :, 34, 34, 0] = row
    error = _error(layout, _serialized(records))
    assert error.startswith("Record 21 of FILE cannot be converted.")
    assert message in error


@pytest.mark.parametrize("visibility", [[1, 1, 0.5, 0], [0, 0, 0, 0]])
def test_odd_visibility_is_an_error(visibility):
    layout = multi_object.layout("tetrominoes")
    records, _ = _draw(layout, 1)
    records["visibility"][0] = visibility
    assert "'visibility' must be 0 or 1" in _error(layout, _serialized(records))


def test_wrong_variant_is_an_error_that_names_the_right_one():
    right = multi_object.layout("multi_dsprites", "colored_on_colored")
    serialized = _serialized(_draw(right, 2)[0])
    error = _error(multi_object.layout("multi_dsprites", "colored_on_grayscale"), serialized)
    assert "Record 20 of FILE" in error
    assert "'mask' has 20480 values (uint8), but must have 24576 (uint8)" in error
    assert "shape (64, 64, 6, 1)" in error
    assert "It fits --dataset multi_dsprites --variant colored_on_colored." in error


def test_wrong_data_set_is_an_error_that_names_the_right_one():
    serialized = _serialized(_draw(multi_object.layout("tetrominoes"), 1)[0])
    error = _error(multi_object.layout("objects_room", "train"), serialized)
    assert "holds color, image, mask, shape, visibility, x, y, but should hold image, mask" in error
    assert "It fits --dataset tetrominoes." in error


def test_record_of_no_known_data_set_is_an_error():
    layout = multi_object.layout("tetrominoes")
    records = {key: values[0] for key, values in _draw(layout, 1)[0].items()}
    floats = {**records, "image": records["image"].astype(np.float32)}
    error = _error(layout, [tfrecords.example(floats)])
    assert "'image' has 3675 values (float32), but must have 3675 (uint8)" in error
    assert "fits no known data set" in error
    strings = {**records, "image": [b"jpeg"]}
    assert "'image' has 1 values (strings)" in _error(layout, [tfrecords.example(strings)])
    assert "no tf.train.Example" in _error(layout, [b"nonsense"])


@pytest.mark.parametrize(
    ("dataset", "variant", "message"),
    [
        ("tetromino", "", "no TFRecord files of the data set 'tetromino' .*did you mean 'tetrom"),
        ("tetrominoes", "train", "Leave out --variant"),
        ("objects_room", "", "has variants. Choose with --variant one of: train, empty_room"),
        ("objects_room", "six_object", "did you mean 'six_objects'"),
    ],
)
def test_unknown_layouts_are_errors(dataset, variant, message):
    with pytest.raises(DataError, match=message):
        multi_object.layout(dataset, variant)


# Objects Room: 0 sky, 1 floor, then walls and objects.
SKY, FLOOR = 10, 40


def _room(*walls):
    """A label map of sky, floor and the given (first column, last column) of the walls."""
    labels = np.zeros((64, 64), np.uint8)
    labels[FLOOR:] = 1
    for label, (first, last) in enumerate(walls, start=2):
        labels[SKY:FLOOR, first : last + 1] = label
    return labels


def _ball(labels, label, row, col, radius):
    rows, cols = np.mgrid[:64, :64]
    labels[(rows - row) ** 2 + (cols - col) ** 2 <= radius**2] = label
    return labels


def _canonical(labels, num_entities=7):
    return multi_object.with_objects_from_4(labels[None], num_entities)[0]


@pytest.mark.parametrize("walls", [((0, 30), (31, 63)), ((31, 63), (0, 30)), ((0, 1), (2, 63))])
def test_two_wall_halves_keep_their_labels(walls):
    labels = _ball(_ball(_room(*walls), 4, 40, 20, 5), 5, 45, 40, 5)
    np.testing.assert_array_equal(_canonical(labels), labels)


def test_objects_move_up_behind_the_only_wall():
    labels = _ball(_ball(_room((0, 63)), 3, 40, 20, 5), 4, 45, 40, 5)
    canonical = _canonical(labels)
    assert set(np.unique(canonical)) == {0, 1, 2, 4, 5}
    np.testing.assert_array_equal(canonical == 4, labels == 3)
    np.testing.assert_array_equal(canonical == 5, labels == 4)


@pytest.mark.parametrize("col", [0, 63, -8, 71])
def test_object_that_hides_the_end_of_the_only_wall_is_an_object(col):
    labels = _ball(_room((0, 63)), 3, 26, col, 20)
    assert not (labels[:, [0, -1]] == 2).any(0).all()
    np.testing.assert_array_equal(_canonical(labels) == 4, labels == 3)


@pytest.mark.parametrize("col", [0, 63])
def test_wall_halves_whose_ends_objects_hide_keep_their_labels(col):
    labels = _ball(_room((0, 30), (31, 63)), 4, 26, col, 20)
    np.testing.assert_array_equal(_canonical(labels), labels)


def test_high_object_in_front_of_the_only_wall_is_an_object():
    labels = _room((0, 63))
    labels[5:50, 20:30] = 3  # a box
    np.testing.assert_array_equal(_canonical(labels) == 4, labels == 3)
    hidden = _ball(labels, 4, 26, 63, 20)
    np.testing.assert_array_equal(_canonical(hidden) == 4, hidden == 3)


def test_hidden_entity_gives_its_place_up():
    labels = _ball(_room((5, 63)), 4, 40, 20, 5)
    np.testing.assert_array_equal(_canonical(labels) == 5, labels == 4)


def test_wall_edge_may_be_tilted_a_little():
    labels = _room((0, 30), (31, 63))
    labels[30:FLOOR, 31:33] = 2
    np.testing.assert_array_equal(_canonical(labels), labels)


def test_all_entities_in_use_leave_no_place_to_move():
    # Even where the image alone says otherwise.
    labels = _ball(_ball(_room((0, 63)), 3, 40, 20, 5), 6, 45, 40, 5)
    np.testing.assert_array_equal(_canonical(labels), labels)
    assert _canonical(labels, num_entities=10).max() == 7


def test_empty_rooms_hold_no_objects():
    layout = multi_object.layout("objects_room", "empty_room")
    labels = np.stack([_room((0, 63)), _room((0, 30), (31, 63))])
    planes = np.uint8(255) * (labels[:, None] == np.arange(4)[:, None, None])
    records = {"image": np.zeros((2, 64, 64, 3), np.uint8), "mask": planes[..., None]}
    decoded = _decode(layout, _serialized(records))
    np.testing.assert_array_equal(decoded["segmentation"], labels)
    np.testing.assert_array_equal(decoded["num_objects"], [0, 0])


def test_objects_of_a_room_are_counted_by_their_pixels():
    layout = multi_object.layout("objects_room", "train")
    labels = np.stack(
        [
            _ball(_room((0, 63)), 3, 40, 20, 5),
            _ball(_room((0, 30), (31, 63)), 4, 40, 20, 5),
            _ball(_room((0, 30), (31, 63)), 5, 40, 20, 5),
        ]
    )
    planes = np.uint8(255) * (labels[:, None] == np.arange(7)[:, None, None])
    records = {"image": np.zeros((3, 64, 64, 3), np.uint8), "mask": planes[..., None]}
    decoded = _decode(layout, _serialized(records))
    np.testing.assert_array_equal(decoded["num_objects"], [1, 1, 1])
    assert [set(np.unique(each)) - {0, 1, 2, 3} for each in decoded["segmentation"]] == [
        {4},
        {4},
        {5},
    ]


def test_record_bytes_are_about_the_length_of_a_record():
    for layout in multi_object.LAYOUTS:
        length = len(_serialized(_draw(layout, 1)[0])[0])
        assert math.isclose(layout.record_bytes, length, rel_tol=0.02)
