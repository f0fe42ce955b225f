import dataclasses
import errno
import os
import pathlib
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from objdisc_jax.data import datasets, hdf5, loader
from objdisc_jax.data.declaration import Field
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.hdf5_writer import LAYOUT_VERSION
from tests.data import examples


@pytest.fixture
def published(tmp_path):
    """The config of a small Tetrominoes file in the published layout."""
    config = datasets.get("tetrominoes").default_config()
    config.path = str(tmp_path / "published.h5")
    examples.write_published(datasets.get("tetrominoes").declare(config), 20)
    return config


def _change(config, **arrays):
    """Replaces arrays of the file; None removes one."""
    with h5py.File(config.path, "a") as file:
        for key, values in arrays.items():
            if key in file:
                del file[key]
            if values is not None:
                file[key] = values


def _error(config, split="train"):
    message = _refusal(config, split)
    assert "generate_tetrominoes.py" in message
    return message


def _refusal(config, split="train"):
    with pytest.raises(DataError) as error:
        loader.load(config, split).read([0])
    message = str(error.value)
    assert config.path in message
    return message


def test_published_file_is_compressed_and_automatically_chunked(published):
    with h5py.File(published.path) as file:
        assert file["mask"].compression == "gzip"
        assert file["mask"].chunks != (1, *file["mask"].shape[1:])


@pytest.mark.parametrize("options", [{}, {"chunks": True}, {"shuffle": True}])
@pytest.mark.parametrize("isal", ["installed", "absent"])
def test_images_are_the_same_however_they_are_stored(published, monkeypatch, options, isal):
    if isal == "absent":
        monkeypatch.setattr(hdf5, "isal_zlib", None)
    expected = loader.load(published, "train").read([3, 1])
    with h5py.File(published.path, "a") as file:
        image = file["image"][()]
        del file["image"]
        layout = {"chunks": (1, 35, 35, 3), "compression": "gzip", **options}
        file.create_dataset("image", data=image, **layout)
    found = loader.load(published, "train").read([3, 1])
    np.testing.assert_array_equal(found["image"], expected["image"])


def test_label_map_is_preferred_where_a_file_has_planes_too(published):
    _change(published, segmentation=np.full((20, 35, 35), 3, np.uint8))
    assert (loader.load(published, "train").read([0])["segmentation"] == 3).all()


def test_labels_of_any_integer_type_are_read(published):
    _change(published, segmentation=np.full((20, 35, 35), 2, np.int64))
    batch = loader.load(published, "train").read([0])
    assert (batch["segmentation"] == 2).all()
    assert batch["segmentation"].dtype == np.uint8


@pytest.mark.parametrize("label", [-1, 4, 256])
def test_label_that_is_not_declared_is_an_error(published, label):
    _change(published, segmentation=np.full((20, 35, 35), label, np.int64))
    message = _error(published)
    assert f"labels from {label} to {label}, but they must lie between 0 and 3" in message


@pytest.mark.parametrize("shape", [(20,), (20, 1)])
def test_number_of_objects_may_have_a_second_axis(published, shape):
    _change(published, num_objects=np.arange(20).reshape(shape))
    published.max_objects = 2
    np.testing.assert_array_equal(loader.load(published, "train").indices, [0, 1, 2])


def test_counts_are_read_again_when_the_file_changes(published):
    published.max_objects = 2
    for counts, kept in ((np.arange(20), [0, 1, 2]), (np.arange(20)[::-1], [17])):
        _change(published, num_objects=counts)
        np.testing.assert_array_equal(loader.load(published, "train").indices[-3:], kept)


@pytest.mark.parametrize("key", ["num_objects", "visibility"])
def test_counts_of_another_length_are_an_error(published, key):
    _change(published, **{key: np.ones((5, 4) if key == "visibility" else 5)})
    published.max_objects = 2
    assert f"'{key}' is float64 of shape (5" in _error(published)


def test_record_stored_without_its_filter_is_read(published):
    expected = loader.load(published, "train").read([0])
    with h5py.File(published.path, "a") as file:
        image = file["image"][()]
        del file["image"]
        array = file.create_dataset(
            "image", image.shape, np.uint8, chunks=(1, 35, 35, 3), compression="gzip"
        )
        array[1:] = image[1:]
        array.id.write_direct_chunk((0, 0, 0, 0), image[0].tobytes(), filter_mask=1)
    np.testing.assert_array_equal(
        loader.load(published, "train").read([0])["image"], expected["image"]
    )


def test_record_that_was_never_written_is_an_error(published):
    with h5py.File(published.path, "a") as file:
        del file["image"]
        file.create_dataset(
            "image", (20, 35, 35, 3), np.uint8, chunks=(1, 35, 35, 3), compression="gzip"
        )
    with pytest.raises(DataError, match="HDF5 cannot read it"):
        loader.load(published, "train").read([0])


def test_file_of_a_newer_layout_is_an_error(published):
    with h5py.File(published.path, "a") as file:
        file.attrs["layout_version"] = LAYOUT_VERSION + 1
    message = _error(published)
    assert f"layout has version {LAYOUT_VERSION + 1}" in message
    assert "Update objdisc_jax" in message


def test_number_of_objects_is_preferred_to_visibility(published):
    _change(published, num_objects=np.arange(20))
    published.max_objects = 2
    np.testing.assert_array_equal(loader.load(published, "train").indices, [0, 1, 2])


def test_file_without_split_attributes_must_be_large_enough(published):
    with h5py.File(published.path, "a") as file:
        for key in list(file.attrs):
            del file.attrs[key]
    assert "split 'train' covers the records 0 to 60000, but the file holds 20" in _error(published)


def test_odd_split_attribute_is_an_error(published):
    with h5py.File(published.path, "a") as file:
        file.attrs["split_train"] = "all"
    assert "Attribute 'split_train' is 'all'" in _error(published)


def test_truncated_file_is_an_error(published):
    with open(published.path, "r+b") as file:
        file.truncate(5_000)
    assert "truncated" in _error(published)


def test_file_truncated_while_in_use_is_an_error(published):
    dataset = loader.load(published, "train")
    with open(published.path, "r+b") as file:
        file.truncate(5_000)
    with pytest.raises(DataError, match="truncated"):
        dataset.read([0])


@pytest.mark.parametrize("chunks", [(1, 35, 35, 3), (1, 18, 18, 1)])
def test_damaged_record_is_an_error(published, chunks):
    with h5py.File(published.path, "a") as file:
        image = file["image"][()]
        del file["image"]
        file.create_dataset("image", data=image, chunks=chunks, compression="gzip")
    with h5py.File(published.path) as file:
        chunk = file["image"].id.get_chunk_info(0)
    with open(published.path, "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    assert "HDF5 cannot read it" in _error(published)


def test_other_file_type_is_an_error(published):
    with open(published.path, "wb") as file:
        file.write(b"this is no HDF5 file")
    assert "no HDF5 file" in _error(published)


def test_folder_in_place_of_the_file_is_an_error(published, tmp_path):
    published.path = str(tmp_path)
    assert "that is a folder" in _error(published)


@pytest.mark.parametrize(
    ("key", "wanted"),
    [("image", "'image'"), ("mask", "'mask' or 'segmentation'")],
)
def test_missing_array_error_lists_what_the_file_holds(published, key, wanted):
    _change(published, **{key: None})
    message = _error(published)
    assert f"no array {wanted}; it holds" in message
    assert "visibility" in message


def test_missing_counts_matter_only_to_the_filter(published):
    _change(published, visibility=None)
    assert len(loader.load(published, "train"))
    published.max_objects = 3
    assert "no array 'visibility' or 'num_objects'" in _error(published)


def test_group_in_place_of_an_array_is_an_error(published):
    _change(published, image=None)
    with h5py.File(published.path, "a") as file:
        file.create_group("image")
    assert "no array 'image'" in _error(published)


@pytest.mark.parametrize(
    ("key", "values", "found"),
    [
        ("image", np.zeros((20, 64, 64, 3), np.uint8), "uint8 of shape (20, 64, 64, 3)"),
        ("image", np.zeros((20, 35, 35, 3), np.float32), "float32 of shape (20, 35, 35, 3)"),
        ("image", np.zeros((20, 35, 35), np.uint8), "uint8 of shape (20, 35, 35)"),
        ("mask", np.zeros((19, 4, 35, 35, 1), np.uint8), "uint8 of shape (19, 4, 35, 35, 1)"),
        ("mask", np.zeros((20, 4, 35, 35), np.uint8), "uint8 of shape (20, 4, 35, 35)"),
        ("segmentation", np.zeros((20, 35, 35)), "float64 of shape (20, 35, 35)"),
    ],
)
def test_wrong_array_error_names_what_was_found(published, key, values, found):
    _change(published, **{key: values})
    assert f"'{key}' is {found}, but must be" in _error(published)


def _with_boxes(config, dtype="float32"):
    """The training split, with the number of records times boxes [2, 4] as a declared field."""
    dataset = loader.load(config, "train")
    fields = {"boxes": Field(dtype, (2, 4))}
    declaration = dataclasses.replace(dataset.declaration, fields=fields, sources={"boxes": "xy"})
    reader = declaration.reader(declaration)
    return dataclasses.replace(dataset, declaration=declaration, reader=reader)


@pytest.mark.parametrize("stored", [np.uint8, np.float64, ">i4"])
def test_declared_field_is_read_in_its_own_type(published, stored):
    boxes = np.arange(160).reshape(20, 2, 4).astype(stored)
    _change(published, xy=boxes)
    batch = _with_boxes(published).read([3, -1], ("boxes",))
    expected = np.stack([boxes[3], np.zeros((2, 4))]).astype(np.float32)
    np.testing.assert_array_equal(batch["boxes"], expected, strict=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "no array 'xy'; it holds image, mask"),
        (np.zeros((20, 4)), r"'xy' is float64 of shape \(20, 4\), .* uint8 of shape \(20, 2, 4\)"),
        (np.zeros((20, 2, 4)), "'xy' is float64 of shape .*, but must be uint8"),
    ],
)
def test_array_that_is_not_the_declared_field_is_an_error(published, values, message):
    _change(published, xy=values)
    with pytest.raises(DataError, match=message):
        _with_boxes(published, "uint8").read([0], ("image",))


def test_damaged_segmentation_matters_only_to_those_who_ask_for_it(published):
    _change(published, segmentation=np.full((20, 35, 35), 9, np.uint8))
    dataset = loader.load(published, "train")
    assert set(dataset.read([0], ("image",))) == {"image", "valid", "index"}
    with pytest.raises(DataError, match="labels from 9 to 9"):
        dataset.read([0])


def test_lacking_field_error_says_who_needs_it_and_what_there_is(published):
    dataset = loader.load(published, "train")
    dataset.check_fields(("image", "segmentation"), "model 'x'")
    with pytest.raises(DataError) as error:
        dataset.check_fields(("image", "boxes"), "model 'x'")
    assert str(error.value) == (
        "model 'x' needs the field 'boxes', but data set 'tetrominoes' has image, segmentation. "
        "Declare it in the data set's `fields`, name a file that has it with "
        "--config.data.features, or choose another data set."
    )
    batches = loader.train_batches(dataset, batch_size=4, seed=0, fields=("boxes",))
    with pytest.raises(DataError, match="the field 'boxes'"):
        next(batches)


# What the lock function of a file system says that has no locks, preloaded into a process.
NO_LOCKS = r"""
#include <errno.h>
#include <stdlib.h>
int flock(int fd, int operation) { errno = atoi(getenv("FLOCK_ERRNO")); return -1; }
"""


@pytest.fixture(scope="module")
def no_locks(tmp_path_factory):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("preload") / "no_locks.so"
    library.with_suffix(".c").write_text(NO_LOCKS)
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(library.with_suffix(".c"))]
    subprocess.run(command, check=True)
    return library


def run_without_locks(library, number, code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "LD_PRELOAD": str(library), "FLOCK_ERRNO": str(number)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["EIO", "EAGAIN", "EROFS", "ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_file_system_without_locks_is_read(published, no_locks, name):
    code = (
        "import pathlib, sys; from objdisc_jax.data.hdf5_file import open_to_read;"
        "first, second = (open_to_read(pathlib.Path(sys.argv[1])) for _ in range(2));"
        "print(second['image'].shape)"
    )
    done = run_without_locks(no_locks, getattr(errno, name), code, published.path)
    assert done.stdout == "(20, 35, 35, 3)\n", done.stderr


@pytest.mark.parametrize("name", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_file_system_without_locks_is_written(tmp_path, no_locks, name):
    code = (
        "import pathlib, sys; import numpy as np; from objdisc_jax.data import conversion;"
        "conversion.generate(sys.argv[1], 4, lambda first, items:"
        "    {'image': np.zeros((len(items), 2, 2, 3), np.uint8)}, made_by={}, block=4)"
    )
    done = run_without_locks(no_locks, getattr(errno, name), code, tmp_path / "new.h5")
    assert done.returncode == 0, done.stderr
    assert "cannot be locked" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["new.h5"]


def test_file_that_another_process_writes_is_told_as_that(published):
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, published.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        message = _refusal(published)
        writer.communicate(b"\n")
    assert "cannot be read. Another process has locked it" in message
    assert message.count(published.path) == 1
    assert "damaged" not in message
    assert "generate_tetrominoes.py" not in message
    loader.load(published, "train")  # now that it is closed


def test_mark_of_a_writer_that_died_is_told(published):
    shutil.copy(published.path, f"{published.path}.copy")
    with h5py.File(published.path, "w", libver="latest") as file:
        file.attrs["dataset"] = "tetrominoes"
        file.flush()
        shutil.copy(published.path, f"{published.path}.copy")  # as its death would leave it
    shutil.move(f"{published.path}.copy", published.path)
    message = _refusal(published)
    assert "marked as open for writing" in message
    assert "h5clear -s" in message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "You have no permission to read it"),
        (OSError(errno.EIO, "Input/output error"), "The system cannot read it"),
    ],
)
def test_file_that_the_system_does_not_give_is_not_called_damaged(
    published, monkeypatch, error, expected
):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(h5py, "File", refuse)
    message = _refusal(published)
    assert f"cannot be read. {expected}" in message
    assert "damaged" not in message
    assert "generate_tetrominoes.py" not in message


def test_folder_that_may_not_be_entered_is_told_as_that(published, monkeypatch):
    def refuse(self, **_):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(pathlib.Path, "stat", refuse)
    message = _refusal(published)
    assert "no permission to look into a folder above it" in message
    assert "no such file" not in message


@pytest.mark.parametrize(
    ("content", "begins"),
    [(b"version https://git-lfs", "begins with b'version https"), (b"", "it is empty")],
)
def test_file_that_is_no_hdf5_is_told_as_that(published, content, begins):
    pathlib.Path(published.path).write_bytes(content)
    message = _refusal(published)
    assert "It is no HDF5 file" in message
    assert begins in message
    assert "damaged" not in message
    assert "generate_tetrominoes.py" in message
