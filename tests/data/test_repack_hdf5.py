import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from objdisc_jax.data import conversion, datasets, hdf5_writer, loader, repacking, splits
from objdisc_jax.data.errors import DataError

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "repack_hdf5.py"
RNG = np.random.default_rng(0)


def _published(dataset, num_records):
    """Arrays as the published files have them, and what they are to become."""
    if dataset in ("tetrominoes", "clevr_with_masks"):
        num_entities, size = (4, (35, 35)) if dataset == "tetrominoes" else (11, (240, 320))
        labels = RNG.integers(num_entities, size=(num_records, *size), dtype=np.uint8)
        planes = np.uint8(255) * (labels[:, None] == np.arange(num_entities)[:, None, None])
        counts = RNG.integers(1, num_entities, size=num_records)
        arrays = {
            "image": _image(num_records, *size),
            "x": RNG.normal(size=(num_records, num_entities)).astype(np.float32),
            "color": RNG.integers(9, size=(num_records, num_entities), dtype=np.uint8),
            "visibility": (np.arange(num_entities) <= counts[:, None]).astype(np.float32),
        }
        made = {"segmentation": labels, "num_objects": counts.astype(np.uint8)}
        return arrays | {"mask": planes[..., None]}, arrays | made
    if dataset == "boxworld":
        labels = RNG.integers(19, size=(num_records, 20, 24))
        arrays = {
            "image": _image(num_records, 20, 24),
            "segmentation_mask": labels,
            "num_objects": RNG.integers(19, size=(num_records, 1)),
        }
        return arrays, arrays | {"segmentation_mask": labels.astype(np.uint8)}
    if dataset == "shapes3d":
        arrays = {
            "images": _image(num_records, 64, 64),
            "labels": RNG.normal(size=(num_records, 6)),
        }
        return arrays, arrays
    assert dataset == "ravens"
    arrays = {
        "color": _image(num_records, 480, 640),
        "segm": RNG.integers(13, size=(num_records, 480, 640), dtype=np.uint8),
        "num_objects_on_table": RNG.integers(3, 9, size=num_records // 3),
    }
    return arrays, arrays


def _image(*shape):
    return RNG.integers(256, size=(*shape, 3), dtype=np.uint8)


def _write(path, arrays, **attributes):
    """Writes arrays as published: gzip, resizable, automatic chunks."""
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            shape = (None, *values.shape[1:])
            file.create_dataset(key, data=values, maxshape=shape, compression="gzip")
        file.attrs.update(attributes)


def _repack(dataset, path, output, **options):
    declaration = conversion.declared(dataset)
    return repacking.repack(declaration, path, output, show_progress=False, **options)


@pytest.mark.parametrize(
    ("dataset", "num_records", "images"),
    [
        ("tetrominoes", 25, ("image", "segmentation")),
        ("clevr_with_masks", 3, ("image", "segmentation")),
        ("boxworld", 10, ("image", "segmentation_mask")),
        ("shapes3d", 30, ("images",)),
        ("ravens", 6, ("color", "segm")),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 1 << 15, 1 << 24])
def test_repacked_file_holds_the_same_records(
    tmp_path, monkeypatch, dataset, num_records, images, block_bytes
):
    monkeypatch.setattr(repacking, "_BLOCK_BYTES", block_bytes)
    arrays, expected = _published(dataset, num_records)
    _write(tmp_path / "published.h5", arrays)
    assert (
        _repack(dataset, tmp_path / "published.h5", tmp_path / "new.h5", workers=2) == num_records
    )
    with h5py.File(tmp_path / "new.h5") as written:
        assert set(written) == set(expected)
        for key, values in expected.items():
            np.testing.assert_array_equal(written[key][()], values, strict=True)
        for key in images:
            assert written[key].chunks == (1, *expected[key].shape[1:])
    assert {path.name for path in tmp_path.iterdir()} == {"published.h5", "new.h5"}


def test_loader_reads_both_files_alike(tmp_path):
    arrays, _ = _published("tetrominoes", 40)
    ranges = splits.scaled_splits(datasets.get("tetrominoes").SPLITS, 40)
    _write(tmp_path / "published.h5", arrays, note="kept", **splits.to_attributes(ranges))
    _repack("tetrominoes", tmp_path / "published.h5", tmp_path / "new.h5")
    batches = []
    for name in ("published.h5", "new.h5"):
        config = datasets.get("tetrominoes").default_config()
        config.path = str(tmp_path / name)
        config.max_objects = 2
        dataset = loader.load(config, "train")
        assert 0 < len(dataset) < len(ranges["train"])
        batches.append(dataset.read(range(len(dataset))))
    assert batches[0].keys() == batches[1].keys()
    for key in batches[0]:
        np.testing.assert_array_equal(batches[0][key], batches[1][key])


def test_attributes_are_kept_and_say_where_the_file_comes_from(tmp_path):
    _write(tmp_path / "published.h5", _published("shapes3d", 3)[0], note="kept", layout_version=0)
    _repack("shapes3d", tmp_path / "published.h5", tmp_path / "new.h5")
    with h5py.File(tmp_path / "new.h5") as written:
        assert dict(written.attrs) == {
            "note": "kept",
            "layout_version": hdf5_writer.LAYOUT_VERSION,
            "dataset": "shapes3d",
            "source": "published.h5",
            "converter": "objdisc_jax.data.repacking",
            "converter_version": conversion.VERSION,
        }


def test_label_map_and_counts_that_are_there_are_kept(tmp_path):
    arrays, expected = _published("tetrominoes", 5)
    made = {
        "segmentation": RNG.integers(4, size=(5, 35, 35), dtype=np.uint8),
        "num_objects": np.arange(5),
    }
    _write(tmp_path / "published.h5", arrays | made)
    _repack("tetrominoes", tmp_path / "published.h5", tmp_path / "new.h5")
    with h5py.File(tmp_path / "new.h5") as written:
        assert set(written) == set(expected)
        for key, values in made.items():
            np.testing.assert_array_equal(written[key][()], values, strict=True)


def test_interrupted_repacking_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(repacking, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(conversion, "_PART_BYTES", 1)
    arrays, expected = _published("tetrominoes", 12)
    _write(tmp_path / "published.h5", arrays)

    def interrupted(self, records, original=repacking._Published.read):
        if records.start == 9:
            raise KeyboardInterrupt
        return original(self, records)

    with monkeypatch.context() as patch:
        patch.setattr(repacking._Published, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _repack("tetrominoes", tmp_path / "published.h5", tmp_path / "new.h5")
    assert not (tmp_path / "new.h5").exists()
    finished = len([*tmp_path.glob("*/*.npz")])
    assert finished > 3
    _repack("tetrominoes", tmp_path / "published.h5", tmp_path / "new.h5")
    with h5py.File(tmp_path / "new.h5") as written:
        np.testing.assert_array_equal(written["image"][()], expected["image"])
        np.testing.assert_array_equal(written["segmentation"][()], expected["segmentation"])


def _error(dataset, path, output):
    with pytest.raises(DataError) as error:
        _repack(dataset, path, output)
    assert str(path) in str(error.value)
    assert not output.exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "no array 'image'; it holds color, mask, visibility, x"),
        ({"image": np.zeros((5, 35, 35), np.uint8)}, "must hold integers and have 4 axes"),
        ({"mask": None}, "no array 'mask'"),
        ({"mask": np.zeros((5, 4, 35, 35, 1), np.float32)}, "'mask' is float32 of shape (5, 4, 35"),
        ({"mask": np.zeros((5, 4, 35, 35, 1), np.uint8)}, "no partition of the image"),
        ({"segmentation": np.full((5, 35, 35), 256)}, "labels from 256 to 256, not 0 to 255"),
    ],
)
def test_unsuitable_file_is_an_error(tmp_path, changes, message):
    arrays, _ = _published("tetrominoes", 5)
    arrays = {key: values for key, values in (arrays | changes).items() if values is not None}
    _write(tmp_path / "published.h5", arrays)
    error = _error("tetrominoes", tmp_path / "published.h5", tmp_path / "new.h5")
    assert message in error
    assert "cannot be repacked as data set 'tetrominoes'" in error


def test_groups_are_an_error(tmp_path):
    _write(tmp_path / "published.h5", _published("tetrominoes", 5)[0])
    with h5py.File(tmp_path / "published.h5", "a") as file:
        file.create_group("train")
    assert "train" in _error("tetrominoes", tmp_path / "published.h5", tmp_path / "new.h5")


def test_damaged_files_are_errors(tmp_path):
    path = tmp_path / "published.h5"
    _write(path, _published("tetrominoes", 5)[0])
    with h5py.File(path) as file:
        chunk = file["image"].id.get_chunk_info(0)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    assert "HDF5 cannot read it" in _error("tetrominoes", path, tmp_path / "new.h5")
    with open(path, "r+b") as file:
        file.truncate(3_000)
    assert "truncated" in _error("tetrominoes", path, tmp_path / "new.h5")
    path.write_bytes(b"this is no HDF5 file")
    assert "no HDF5 file" in _error("tetrominoes", path, tmp_path / "new.h5")
    path.unlink()
    assert "No such file" in _error("tetrominoes", path, tmp_path / "new.h5")


def _run(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_script_repacks_and_keeps_existing_files(tmp_path):
    arrays, expected = _published("boxworld", 4)
    _write(tmp_path / "published.h5", arrays)
    files = ("--input", tmp_path / "published.h5", "--output", tmp_path / "new.h5")
    _run("--dataset", "boxworld", *files).check_returncode()
    with h5py.File(tmp_path / "new.h5") as written:
        np.testing.assert_array_equal(written["image"][()], expected["image"])
    before = (tmp_path / "new.h5").read_bytes()
    for arguments, message in [
        (("--dataset", "boxworld"), "exists already"),
        (("--dataset", "boxword"), "did you mean 'boxworld'"),
        (("--dataset", "boxworld", "--variant", "a"), "has no variants: leave out --variant"),
        (("--dataset", "objects_room", "--variant", "a"), "allowed are train, empty_room"),
        (("--dataset", "boxworld", "--workers", 0), "must be a whole number, at least 1"),
    ]:
        refused = _run(*arguments, *files)
        assert refused.returncode in (1, 2)
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
    assert (tmp_path / "new.h5").read_bytes() == before
