"""Data sets in folders: lists of images, their cache, and what can be wrong with them."""

import json
import logging
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from objdisc_jax import visualize
from objdisc_jax.data import cache, datasets, folder, images, loader, marks
from objdisc_jax.data.datasets import clevrtex
from objdisc_jax.data.errors import BadImageError, DataError
from objdisc_jax.data.walk import walk


@pytest.fixture
def make(tmp_path):
    """Makes a data set's small folder; returns its config and what the folder holds."""

    def make(name, num_images=24, **changes):
        module = datasets.get(name)
        config = module.default_config()
        config.update(path=str(tmp_path / name), num_workers=0, **changes)
        return config, module.write_example(tmp_path / name, num_images, **changes)

    return make


def _with(config, **changes):
    config = config.copy_and_resolve_references()
    config.update(changes)
    return config


def _image_file(config, dataset, position):
    return dataset.reader.path(int(dataset.indices[position]))


def test_images_are_listed_by_path_without_hidden_ones(tmp_path):
    for name in ("b/2.png", "b/1.png", "a.png", ".hidden/3.png", "b/._1.png", "b/1.txt", "ä.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "circle").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "folder.png").mkdir()
    found = [os.fsdecode(name) for name in folder.list_images(tmp_path, r".*\.png").files]
    assert found == ["a.png", "b/1.png", "b/2.png", "ä.png"]


def test_walk_counts_what_it_leaves_out(tmp_path, monkeypatch):
    for name in ("1.PNG", "in/2.jpg", "in/notes.txt", ".hidden/3.png", "locked/4.png", "out/5.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    odd = b"line\n\xff.JFIF"  # neither text nor a line
    (tmp_path / os.fsdecode(odd)).touch()
    (tmp_path / "circle").symlink_to("circle")
    for name in ("__MACOSX/in/6.png", "in/@eaDir/2.jpg/7.jpg", "in/#recycle/8.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe.png")  # nobody writes into it
    for name in ("out/5_labels.png", "out/8_labels.png"):
        content = visualize.encode_labels(np.zeros((2, 2), np.uint8))
        (tmp_path / name).write_bytes(content if "8" in name else marks.marked(content))
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith(b"locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    found = walk(tmp_path, images.NAMES, skip_unreadable=True)
    assert found.files == [b"1.PNG", b"in/2.jpg", odd, b"out/5.png", b"out/8_labels.png"]
    assert found.left_out == {"hidden": 4, "of another kind": 3, "results of predict": 1}
    assert found.unreadable == ["locked"]
    with pytest.raises(PermissionError):
        walk(tmp_path, images.NAMES)


def test_folder_that_links_lead_to_is_found_once_by_its_own_path(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "outside"
    for folder_made in (inside / "m", outside / "deep"):
        folder_made.mkdir(parents=True)
        (folder_made / "1.png").touch()
    (inside / "a").symlink_to(inside / "m")  # found before m, by its name
    (inside / "x").symlink_to(outside)
    (inside / "y").symlink_to(outside / "deep")
    (outside / "back").symlink_to(inside)
    assert walk(inside, images.NAMES).files == [b"m/1.png", b"x/deep/1.png"]


def test_list_is_cached_until_a_folder_changes(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.png").touch()
    (tmp_path / "in" / "notes.txt").touch()
    first = folder.list_images(tmp_path, r".*\.png")
    with monkeypatch.context() as patch:
        patch.setattr(folder, "walk", None)  # not needed a second time
        assert folder.list_images(tmp_path, r".*\.png") == first
    assert first.left_out == {"of another kind": 1}
    (tmp_path / "in" / "2.png").touch()
    os.utime(tmp_path / "in")
    assert len(folder.list_images(tmp_path, r".*\.png").files) == 2
    shutil.rmtree(tmp_path / "in")
    assert len(folder.list_images(tmp_path, r".*\.png").files) == 0


def test_list_with_unreadable_folders_is_made_anew(tmp_path, monkeypatch):
    """Permissions that are given later change no time of the folder."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.png").touch()
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith(b"in"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        first = folder.list_images(tmp_path, r".*\.png", skip_unreadable=True)
        assert (first.files, first.unreadable) == ([], ["in"])
    second = folder.list_images(tmp_path, r".*\.png", skip_unreadable=True)
    assert (second.files, second.unreadable) == ([b"in/1.png"], [])


def test_damaged_cache_is_made_anew():
    def get(value):
        return cache.cached(("test",), lambda: {"x": np.array(value)}, lambda arrays: True)["x"]

    assert get(1) == 1
    assert get(2) == 1
    for file in cache.folder().glob("*.npz"):
        file.write_bytes(file.read_bytes()[:50])
    assert get(3) == 3


def test_cache_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        arrays = cache.cached(("test",), lambda: {"x": np.ones(2)}, lambda arrays: True)
    np.testing.assert_array_equal(arrays["x"], [1, 1])
    assert "cannot be written" in caplog.text


def test_nothing_is_written_into_the_data_folder(make, tmp_path):
    config, _ = make("sketchy")
    before = sorted(tmp_path.rglob("*"))
    loader.load(config, "train").read([0])
    assert sorted(tmp_path.rglob("*")) == before


def test_folder_without_images_is_an_error(make):
    config, _ = make("clevrtex")
    config.variant = "camo"
    with pytest.raises(DataError, match=r"no image whose name matches CLEVRTEX_camo"):
        loader.load(config, "train")


@pytest.mark.parametrize("variant", ["full", "pbg", "vbg", "grassbg", "camo"])
def test_clevrtex_splits_are_tenths_in_the_order_of_the_numbers(make, tmp_path, variant, caplog):
    config, _ = make("clevrtex", 31, variant=variant)
    # So that the order of the paths is another.
    shutil.move(tmp_path / "clevrtex" / f"clevrtex_{variant}" / "0", tmp_path / "clevrtex" / "z")
    splits = {name: loader.load(config, name) for name in ("test", "val", "train")}
    assert [list(s.indices) for s in splits.values()] == [
        list(range(3)),
        list(range(3, 6)),
        list(range(6, 31)),
    ]
    assert _image_file(config, splits["train"], -1).stem == f"CLEVRTEX_{variant}_000030"
    assert _image_file(config, splits["test"], 0).stem == f"CLEVRTEX_{variant}_000000"
    assert "31 of the" in caplog.text  # not all that were published


def test_clevrtex_outd_has_a_test_split_alone(make):
    config, _ = make("clevrtex", variant="outd")
    assert len(loader.load(config, "test")) == 24
    with pytest.raises(DataError, match=r"no split 'train'.*Ask for one of: test"):
        loader.load(config, "train")


def test_clevrtex_that_lies_there_twice_is_an_error(make, tmp_path):
    config, _ = make("clevrtex")
    shutil.copytree(tmp_path / "clevrtex" / "clevrtex_full", tmp_path / "clevrtex" / "copy")
    with pytest.raises(DataError, match=r"same image twice: .*CLEVRTEX_full_000000.png"):
        loader.load(config, "train")


def test_clevrtex_reads_scene_files_only_for_the_filter(make, tmp_path):
    config, _ = make("clevrtex")
    next((tmp_path / "clevrtex").rglob("*_000009.json")).write_text("{")
    assert len(loader.load(config, "train")) == 20
    with pytest.raises(DataError, match=r"scene file .*000009.json cannot be read"):
        loader.load(_with(config, max_objects=3), "train")


def test_clevrtex_counts_are_read_again_when_a_folder_changes(make, monkeypatch, tmp_path):
    config, _ = make("clevrtex", max_objects=3)
    first = loader.load(config, "train").indices
    with monkeypatch.context() as patch:
        patch.setattr(json, "loads", None)
        np.testing.assert_array_equal(loader.load(config, "train").indices, first)
    for scene in (tmp_path / "clevrtex").rglob("*.json"):
        scene.unlink()
        scene.write_text('{"num_objects": 1}')
    assert len(loader.load(config, "train")) == 20


def test_clevr_without_scenes_of_test_images_cannot_filter_them(make):
    config, _ = make("clevr_v1")
    assert len(loader.load(config, "test"))
    with pytest.raises(DataError, match=r"no scene file .*CLEVR_test_scenes.json.*none for test"):
        loader.load(_with(config, max_objects=3), "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read"), ('{"scenes": []}', "has no scene of the image CLEVR_val_000000")],
)
def test_clevr_scene_file_that_does_not_fit_is_an_error(make, tmp_path, content, message):
    config, _ = make("clevr_v1", max_objects=3)
    (tmp_path / "clevr_v1" / "scenes" / "CLEVR_val_scenes.json").write_text(content)
    with pytest.raises(DataError, match=message):
        loader.load(config, "val")


def test_clevr_published_crop_repeats_the_box_of_other_images(make):
    config, example = make("clevr_v1", published_crop=True)
    batch = loader.load(config, "train").read([0])
    np.testing.assert_array_equal(batch["image"][0], example.image[0, 29:221, 64:256])


def test_split_whose_folder_is_missing_is_an_error(make, tmp_path):
    config, _ = make("sketchy")
    shutil.rmtree(tmp_path / "sketchy" / "valid")
    assert len(loader.load(config, "train"))
    with pytest.raises(DataError, match="no image of split 'val'"):
        loader.load(config, "val")


def test_image_folder_takes_images_of_any_size_and_kind(tmp_path):
    rng = np.random.default_rng(0)
    sizes = {"wide.jpg": (40, 90), "tall.png": (90, 40), "small.gif": (7, 9), "grey.tif": (50, 50)}
    for name, size in sizes.items():
        image = Image.fromarray(rng.integers(256, size=(*size, 3), dtype=np.uint8))
        image.convert("L" if "grey" in name else "RGB").save(tmp_path / name)
    config = datasets.get("image_folder").default_config()
    config.update(path=str(tmp_path), resolution=(32, 48))
    splits = [loader.load(config, split) for split in ("train", "val", "test")]
    assert [len(split) for split in splits] == [2, 1, 1]
    assert all(s.read(range(len(s)))["image"].shape[1:] == (32, 48, 3) for s in splits)
    assert sorted(np.concatenate([split.indices for split in splits])) == [0, 1, 2, 3]


def test_image_folder_cuts_the_models_proportions_out_of_the_middle(tmp_path):
    for number in range(3):
        image = np.zeros((40, 100, 3), np.uint8)
        image[:, 30:70] = 200
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    config = datasets.get("image_folder").default_config()
    config.update(path=str(tmp_path), resolution=(20, 20))
    assert (loader.load(config, "train").read([0])["image"] == 200).all()


def test_image_folder_keeps_images_in_their_splits_when_others_come(tmp_path):
    def members():
        splits = {split: loader.load(config, split) for split in ("train", "val", "test")}
        return {_image_file(config, s, i).name: k for k, s in splits.items() for i in range(len(s))}

    config = datasets.get("image_folder").default_config()
    config.path = str(tmp_path)
    for number in range(60):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    before = members()
    Image.new("RGB", (8, 8)).save(tmp_path / "new.png")
    after = members()
    assert sum(after[name] != split for name, split in before.items()) <= 2


def test_image_is_turned_upright_and_scaled_to_8_bits(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (30, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert images.read_rgb(tmp_path / "turned.jpg").size == (10, 30)
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(images.read_rgb(tmp_path / "deep.png"))[0, 0].tolist() == [156] * 3


def test_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=rf"folder /.*{tmp_path.name}/? cannot be read: Permission"):
        folder.list_images(tmp_path, "x")


def test_user_without_home_goes_on_without_cache(monkeypatch, caplog):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache, "folder", no_home)
    arrays = cache.cached(("test",), lambda: {"x": np.ones(2)}, lambda arrays: True)
    np.testing.assert_array_equal(arrays["x"], [1, 1])
    assert "cannot be written" in caplog.text


def test_image_folder_with_too_few_images_is_an_error(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    config = datasets.get("image_folder").default_config()
    config.path = str(tmp_path)
    with pytest.raises(DataError, match=r"has 1 image\(s\)"):
        loader.load(config, "train")


def test_missing_mask_is_an_error(make):
    config, _ = make("clevrtex")
    dataset = loader.load(config, "train")
    mask = dataset.reader.segmentation_file(_image_file(config, dataset, 0))
    mask.unlink()
    with pytest.raises(BadImageError, match=rf"no file .*{mask.name}"):
        dataset.read([0])


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_mask_whose_palette_was_expanded_is_an_error(make, mode):
    config, _ = make("clevrtex")
    dataset = loader.load(config, "train")
    mask = dataset.reader.segmentation_file(_image_file(config, dataset, 0))
    Image.open(mask).convert(mode).save(mask)
    with pytest.raises(BadImageError, match=rf"of mode {mode}, but must have mode P"):
        dataset.read([0])


def test_image_of_another_size_is_an_error(make):
    config, _ = make("clevrtex")
    dataset = loader.load(config, "train")
    Image.new("RGB", (480, 320)).save(_image_file(config, dataset, 0))
    with pytest.raises(BadImageError, match=r"has 320 rows and 480 columns, but .* \(240, 320\)"):
        dataset.read([0])


def _truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_truncated_image_stops_training_with_a_remedy(make, num_workers):
    config, _ = make("sketchy")
    dataset = loader.load(config, "train")
    _truncate(_image_file(config, dataset, 7))
    batches = loader.train_batches(dataset, batch_size=4, seed=0, num_workers=num_workers)
    name = _image_file(config, dataset, 7).name
    with pytest.raises(DataError, match=rf"(?s){name} cannot be read.*on_bad_image=skip") as error:
        for _, _ in zip(range(6), batches, strict=False):
            pass
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skipped_image_is_replaced_by_another_logged_and_counted(make, caplog, num_workers):
    config, _ = make("sketchy", on_bad_image="skip")
    dataset = loader.load(config, "train")
    for position in (7, 8, 12):
        _truncate(_image_file(config, dataset, position))
    with caplog.at_level(logging.WARNING):
        batches = loader.train_batches(
            dataset, batch_size=len(dataset), seed=0, num_workers=num_workers
        )
        index = np.concatenate([next(batches)["index"] for _ in range(2)])
        batches.close()
    times = np.bincount(index, minlength=len(dataset))
    assert (times[[7, 8, 12]] == 0).all()
    assert (np.delete(times, [7, 8, 12]) >= 2).all()
    assert times.sum() == 2 * len(dataset)
    substitutes = [int(dataset.read_or_replace([7], replace=True)[0]["index"][0]) for _ in "ab"]
    assert substitutes[0] == substitutes[1] != 7
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == 3  # though two epochs met them
    assert "(3 skipped so far)" in logged[-1]
    assert any(_image_file(config, dataset, 12).name in line for line in logged)


def test_skipped_image_is_left_out_of_scores(make):
    config, _ = make("sketchy", on_bad_image="skip")
    dataset = loader.load(config, "train")
    _truncate(_image_file(config, dataset, 7))
    (batch,) = loader.eval_batches(dataset, batch_size=len(dataset))
    np.testing.assert_array_equal(np.flatnonzero(~batch["valid"]), [7])
    assert batch["index"][7] == -1


def test_many_bad_images_side_by_side_are_skipped(make):
    config, _ = make("sketchy", 90, on_bad_image="skip")
    dataset = loader.load(config, "train")
    for position in range(30):
        _truncate(_image_file(config, dataset, position))
    batch, skipped = dataset.read_or_replace(np.arange(30), replace=True)
    assert set(skipped) == set(range(30))
    assert batch["valid"].all()
    assert len(set(batch["index"])) > 10  # not all one and the same
    assert batch["index"].min() >= 30


def test_masks_are_opened_only_where_they_are_asked_for(make, tmp_path):
    config, _ = make("clevrtex")
    dataset = loader.load(config, "train")
    for mask in tmp_path.rglob("*_flat.png"):
        mask.unlink()
    assert next(loader.train_batches(dataset, batch_size=4, seed=0))["valid"].all()
    with pytest.raises(BadImageError, match="no file"):
        next(loader.train_batches(dataset, batch_size=4, seed=0, fields=("segmentation",)))


def test_labels_of_another_variant_are_never_skipped(make):
    config, _ = make("clevrtex", on_bad_image="skip")
    dataset = loader.load(config, "train")
    mask = Image.new("P", (320, 240), 11)
    mask.putpalette(clevrtex.PALETTE)
    mask.save(dataset.reader.segmentation_file(_image_file(config, dataset, 0)))
    with pytest.raises(DataError, match=r"labels from 11 to 11.*between 0 and 10"):
        next(loader.eval_batches(dataset, batch_size=len(dataset)))


def test_only_bad_images_are_an_error(make):
    config, _ = make("sketchy", 40, on_bad_image="skip")
    dataset = loader.load(config, "train")
    for position in range(len(dataset)):
        _truncate(_image_file(config, dataset, position))
    with pytest.raises(DataError, match="20 images that were tried"):
        next(loader.train_batches(dataset, batch_size=2, seed=0))


def test_unknown_way_with_bad_images_is_an_error(make):
    config, _ = make("sketchy")
    with pytest.raises(
        DataError, match=r"data\.on_bad_image: got 'ignore'; allowed are raise, skip"
    ):
        loader.load(_with(config, on_bad_image="ignore"), "train")
