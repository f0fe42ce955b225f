"""COCO and Pascal VOC: what their formats have beside what every data set is checked for."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from objdisc_jax.data import datasets, loader
from objdisc_jax.data.datasets import coco, voc
from objdisc_jax.data.errors import BadImageError, DataError
from objdisc_jax.data.instances import NUM_ENTITIES, OVERLAP, SCORED, VOID

SIZE = (8, 12)  # rows and columns of the pictures here


def config(name, path, **changes):
    found = datasets.get(name).default_config()
    found.update(path=str(path), resolution=(8, 8), mask_size=(8, 8), **changes)
    return found


def write_coco(folder, annotations, *, width=SIZE[1]):
    """One test image with these annotations."""
    (folder / "val2017").mkdir(parents=True)
    (folder / "annotations").mkdir()
    image = np.full((*SIZE, 3), 7, np.uint8)
    Image.fromarray(image).save(folder / "val2017" / "000000000139.jpg")
    content = {
        "images": [{"id": 139, "height": SIZE[0], "width": width}],
        "annotations": [{"image_id": 139, "category_id": 1, **one} for one in annotations],
        "categories": [{"id": 1}, {"id": 3}, {"id": 90}],
    }
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return config("coco", folder)


def fields_of(settings):
    """Segmentation, ignore and classes of the first test image, at the size of the masks."""
    batch = loader.load(settings, "test").read([0], ("segmentation", "ignore", "classes"))
    return batch["segmentation"][0], batch["ignore"][0], batch["classes"][0]


def box(top, bottom, left, right):
    return [left, top, right, top, right, bottom, left, bottom]


def test_coco_polygons_crowds_and_overlaps(tmp_path):
    """The 8 columns in the middle of 12 are compared: 2 to 9."""
    runs = {"size": list(SIZE), "counts": [8 * 8 + 6, 2, 26 - 2, 0]}  # column 8, rows 6 and 7
    annotations = [
        {"segmentation": [box(0, 4, 2, 6)], "category_id": 90},
        {"segmentation": [box(2, 6, 4, 8), box(7, 8, 2, 3)], "category_id": 3},
        {"segmentation": runs, "iscrowd": 1},
    ]
    segmentation, ignore, classes = fields_of(write_coco(tmp_path, annotations))
    expected = np.zeros((8, 8), np.uint8)
    expected[2:6, 2:6] = 2
    expected[0:4, 0:4] = 1  # the first has the pixels of both
    expected[7, 0] = 2
    expected[6:, 6] = 3
    np.testing.assert_array_equal(segmentation, expected)
    overlap = np.zeros((8, 8), np.uint8)
    overlap[2:4, 2:4] = OVERLAP
    np.testing.assert_array_equal(ignore, overlap)
    assert classes[:5].tolist() == [0, 3, 2, 1, 0]  # counted from 1, without the ids' gaps
    segmentation, _, _ = fields_of(config("coco", tmp_path, crowds=False))
    assert segmentation.max() == 2


@pytest.mark.parametrize(
    ("polygons", "covered"),
    [
        ([box(-5, 4, -3, 6)], (4, 4)),
        ([box(6, 99, 4, 99)], (2, 6)),
        ([box(-9, 99, -9, 99)], (8, 8)),
    ],
)
def test_coco_polygons_beyond_the_picture_end_at_its_border(tmp_path, polygons, covered):
    segmentation, _, _ = fields_of(write_coco(tmp_path, [{"segmentation": polygons}]))
    assert (segmentation.any(1).sum(), segmentation.any(0).sum()) == covered


@pytest.mark.parametrize("polygons", [[], [[1, 1, 5, 5]], [[1, 1, 5, 1, 5]]])
def test_coco_annotations_that_are_no_polygon_are_no_object(tmp_path, polygons):
    segmentation, _, classes = fields_of(write_coco(tmp_path, [{"segmentation": polygons}]))
    assert not segmentation.any()
    assert not classes.any()


def test_coco_image_without_annotations_is_background(tmp_path):
    segmentation, ignore, classes = fields_of(write_coco(tmp_path, []))
    assert not segmentation.any() | ignore.any() | classes.any()


def test_coco_panoptic_things_are_objects_and_unlabelled_pixels_void(tmp_path):
    write_coco(tmp_path, [])
    segments = [(1, 3, "thing"), (258, 90, "stuff"), (65536 * 5, 1, "thing")]
    ids = np.zeros(SIZE, np.uint32)
    ids[:, 2:5], ids[:, 5:7], ids[:, 7:9] = (number for number, *_ in segments)
    folder = tmp_path / "annotations" / "panoptic_val2017"
    folder.mkdir()
    colours = np.stack([ids, ids >> 8, ids >> 16], -1).astype(np.uint8)
    Image.fromarray(colours).save(folder / "000000000139.png")
    content = {
        "annotations": [
            {
                "image_id": 139,
                "segments_info": [{"id": id, "category_id": kind} for id, kind, _ in segments],
            }
        ],
        "categories": [{"id": kind, "isthing": int(what == "thing")} for _, kind, what in segments],
    }
    (tmp_path / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))
    segmentation, ignore, classes = fields_of(config("coco", tmp_path, truth="panoptic"))
    assert segmentation[0].tolist() == [1, 1, 1, 0, 0, 2, 2, 0]
    assert ignore[0].tolist() == [SCORED] * 7 + [VOID]
    assert classes[:4].tolist() == [0, 2, 1, 0]


def test_coco_errors_name_the_file(tmp_path):
    settings = write_coco(tmp_path, [{"segmentation": [box(0, 4, 2, 6)]}], width=11)
    with pytest.raises(BadImageError, match=r"000000000139.jpg has 8 rows and 12 columns, but"):
        fields_of(settings)
    file = tmp_path / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text().replace('"id": 139', '"id": 140'))
    with pytest.raises(DataError, match=r"instances_val2017.json does not list the image"):
        fields_of(settings)
    file.write_text('{"images": []')
    with pytest.raises(DataError, match=r"instances_val2017.json are damaged"):
        fields_of(settings)
    file.unlink()
    with pytest.raises(DataError, match=r"instances_val2017.json .*No such file"):
        fields_of(settings)


def test_coco_annotations_without_pictures_are_an_error(tmp_path):
    settings = write_coco(tmp_path, [])
    (tmp_path / "val2017" / "000000000139.jpg").unlink()
    with pytest.raises(DataError, match=r"download_coco\.sh"):
        loader.load(settings, "test")


def test_coco_with_the_test_images_alone_can_be_tested_on(tmp_path, caplog):
    settings = write_coco(tmp_path, [])
    with caplog.at_level(logging.WARNING):
        assert len(loader.load(settings, "test")) == 1
    assert "holds 1 of the 5000 images of val2017" in caplog.text
    with pytest.raises(DataError, match="no image of split 'train'"):
        loader.load(settings, "train")


def test_too_many_objects_are_a_bad_image(tmp_path):
    many = [{"segmentation": [box(0, 1, 0, 1)]}] * NUM_ENTITIES
    with pytest.raises(BadImageError, match="128 objects, but there are labels for 127"):
        fields_of(write_coco(tmp_path, many))


def test_voc_images_of_the_longer_list_need_no_segmentation(tmp_path):
    example = voc.write_example(tmp_path)
    folder = tmp_path / "SegmentationObject"
    lists = tmp_path / voc.LISTS
    stems = (lists / "train.txt").read_text().split()
    train, validation = (np.array(example.splits[name]) for name in ("train", "val"))
    (lists / "trainaug.txt").write_text("\n".join(stems[1:]))
    (folder / f"{stems[2]}.png").unlink()
    settings = config("voc", tmp_path, train_list="trainaug")
    dataset = loader.load(settings, "train")
    assert len(dataset) == len(train) - 1
    assert len(loader.load(settings, "val")) == len(validation)
    batch = dataset.read([1])
    assert not batch["segmentation"].any()
    assert (batch["ignore"] == VOID).all()


def test_voc_lists_that_are_missing_or_name_absent_images_are_errors(tmp_path):
    voc.write_example(tmp_path)
    with pytest.raises(DataError, match=r"trainaug.txt .*not in the archive: put it there"):
        loader.load(config("voc", tmp_path, train_list="trainaug"), "train")
    with (tmp_path / voc.LISTS / "val.txt").open("a") as file:
        file.write("2012_000001\n")
    with pytest.raises(DataError, match=r"name 1 images that are not there, 2012_000001.jpg"):
        loader.load(config("voc", tmp_path), "test")


def test_reading_annotations_needs_pycocotools(tmp_path, monkeypatch):
    settings = write_coco(tmp_path, [])
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    with pytest.raises(DataError, match=r"pip install 'objdisc_jax\[coco\]'"):
        fields_of(settings)


def test_coco_example_has_every_kind_of_annotation(tmp_path):
    coco.write_example(tmp_path)
    content = json.loads((tmp_path / "annotations" / "instances_train2017.json").read_text())
    kinds = {type(one["segmentation"]) for one in content["annotations"]}
    assert kinds == {list, dict}
