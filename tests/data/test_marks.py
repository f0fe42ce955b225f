"""The mark by which results of predict are known."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from objdisc_jax import visualize
from objdisc_jax.data import marks

LABELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
RNG = np.random.default_rng(0)


def npz(**arrays):
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


CONTENTS = {
    "a_labels.png": visualize.encode_labels(LABELS),
    "a_overlay.png": visualize.encode_png(RNG.integers(256, size=(90, 70, 3), dtype=np.uint8)),
    "a.npz": npz(masks=RNG.random((3, 40, 40)), crop=np.arange(4)),
    "tiny.npz": npz(),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_marked_file_is_known_and_reads_as_before(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(CONTENTS[name])
    assert not marks.is_marked(file)
    file.write_bytes(marks.marked(CONTENTS[name]))
    assert marks.is_marked(file)
    assert marks.is_result(file) == (file.suffix == ".png")
    if file.suffix == ".png":
        with Image.open(io.BytesIO(CONTENTS[name])) as plain, Image.open(file) as found:
            np.testing.assert_array_equal(np.asarray(found), np.asarray(plain))
            assert found.text["Software"].startswith("objdisc_jax.predict")
    else:
        with np.load(io.BytesIO(CONTENTS[name])) as plain, np.load(file) as found:
            assert found.files == plain.files
            for key in plain:
                np.testing.assert_array_equal(found[key], plain[key])


@pytest.mark.parametrize("name", CONTENTS)
def test_marked_file_that_was_changed_is_not_known(tmp_path, name):
    content = marks.marked(CONTENTS[name])
    for changed in (content + b"\0", content[:-1], content[:40] + content[41:], b"", content[:33]):
        (tmp_path / name).write_bytes(changed)
        assert not marks.is_marked(tmp_path / name)


def test_programs_that_keep_texts_and_comments_make_a_file_their_own(tmp_path):
    file = tmp_path / "a_labels.png"
    file.write_bytes(marks.marked(CONTENTS[file.name]))
    with Image.open(file) as image:
        texts = PngImagePlugin.PngInfo()
        for key, value in image.text.items():
            texts.add_text(key, value)
        image.putpixel((0, 0), 1)
        image.save(file, pnginfo=texts)
    assert not marks.is_marked(file)
    file = tmp_path / "a.npz"
    file.write_bytes(marks.marked(CONTENTS[file.name]))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("mine.txt", "x")
    assert not marks.is_marked(file)


def test_name_alone_makes_no_result_and_what_is_no_file_has_no_mark(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a_labels.png")
    (tmp_path / "b_labels.png").mkdir()
    for name in ("a_labels.png", "b_labels.png", "none_labels.png"):
        assert not marks.is_result(tmp_path / name)
    renamed = tmp_path / "renamed.png"
    renamed.write_bytes(marks.marked(CONTENTS["a_labels.png"]))
    assert not marks.is_result(renamed)
