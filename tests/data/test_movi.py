"""MOVi's files, written as TensorFlow Datasets stores them, and their conversion."""

import io
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from objdisc_jax.data import conversion, datasets, loader, movi
from objdisc_jax.data.errors import DataError
from tests.data import tfrecords

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "convert_movi.py"
SIZE = 128


def png(array):
    packed = io.BytesIO()
    Image.fromarray(array).save(packed, "PNG")
    return packed.getvalue()


def video(seed):
    """Frames and segmentations of a video of four instances, of which one leaves."""
    rng = np.random.default_rng(seed)
    images = rng.integers(256, size=(movi.NUM_FRAMES, 4, 4, 3), dtype=np.uint8)
    images = images.repeat(SIZE // 4, 1).repeat(SIZE // 4, 2)
    labels = rng.integers(5, size=(movi.NUM_FRAMES, 8, 8), dtype=np.uint8)
    labels = labels.repeat(SIZE // 8, 1).repeat(SIZE // 8, 2)
    labels[5:][labels[5:] == 2] = 0
    return images, labels


def record(seed, **changes):
    images, labels = video(seed)
    features = {
        "video": [png(image) for image in images],
        "segmentations": [png(mask) for mask in labels],
        "forward_flow": np.arange(3000, dtype=np.int64),
        "metadata/num_instances": np.array([4], np.int64),
        "metadata/video_name": [b"name"],
        "instances/visibility": np.arange(96, dtype=np.int64),
        "metadata/depth_range": np.array([0.5, 2.0], np.float32),
    }
    return tfrecords.example(features | changes)


@pytest.fixture
def folder(tmp_path):
    """Four training videos in two files, and two for the test."""
    for part, numbers in (("train", [(0, 1), (2, 3)]), ("validation", [(4,), (5,)])):
        for shard, seeds in enumerate(numbers):
            file = tmp_path / f"movi_e-{part}.tfrecord-0000{shard}-of-00002"
            tfrecords.write(file, [record(seed) for seed in seeds])
    (tmp_path / "movi_e-test.tfrecord-00000-of-00001").touch()
    return tmp_path


def run(folder, output, *arguments):
    command = [sys.executable, str(SCRIPT), "--variant", "e", "--size", str(SIZE)]
    command += ["--input", str(folder), "--output", str(output), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_frames_of_all_files_become_records_in_order(folder, tmp_path):
    output = tmp_path / "movi_e.h5"
    ended = run(folder, output)
    assert ended.returncode == 0, ended.stderr
    images, labels = (np.concatenate(arrays) for arrays in zip(*map(video, range(6)), strict=True))
    config = datasets.get("movi").default_config()
    config.update(path=str(output), variant="e", size=SIZE)
    start = 0
    for split, count in (("train", 72), ("val", 24), ("test", 48)):
        dataset = loader.load(config, split)
        assert len(dataset) == count
        batch = dataset.read([0, count - 1])
        for name, expected in (("image", images), ("segmentation", labels)):
            np.testing.assert_array_equal(batch[name], expected[[start, start + count - 1]])
        start += count
    with h5py.File(output) as file:
        assert file["num_objects"][:8].tolist() == [4] * 5 + [3] * 3
        assert file["video"][()].tolist() == np.arange(6).repeat(24).tolist()
        assert file["frame"][()].tolist() == list(range(24)) * 6


def test_conversion_goes_on_within_a_video(folder):
    files = movi.shards(folder, "e", "train")
    source = movi.source(files, 4, (SIZE, SIZE))
    whole = [(frame.video, frame.frame) for frame in source.items(0)]
    assert whole == [(v, f) for v in range(4) for f in range(24)]
    assert [(frame.video, frame.frame) for frame in source.items(53)] == whole[53:]


def test_missing_files_are_an_error(folder, tmp_path):
    (folder / "movi_e-validation.tfrecord-00001-of-00002").unlink()
    ended = run(folder, tmp_path / "out.h5")
    assert ended.returncode == 1
    assert "movi_e-validation.tfrecord-NUMBER-of-TOTAL: 1 of 2 are missing" in ended.stderr
    with pytest.raises(DataError, match="lacks files movi_c-train"):
        movi.shards(folder, "c", "train")
    with pytest.raises(DataError, match="lacks files movi_c-train"):
        movi.shards(folder / "absent", "c", "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": [b"png"] * 24}, "Frame 0 of video 0 of .*00000-of-00001 is damaged"),
        ({"video": [png(np.zeros((2, 2, 3), np.uint8))] * 24}, r"mode RGB and 2x2 pixels, but"),
        ({"segmentations": [png(np.zeros((SIZE, SIZE, 3), np.uint8))] * 24}, "must have mode L"),
        ({"segmentations": [b""] * 23}, "has 23 images in 'segmentations', but must have 24"),
        ({"video": np.zeros(3, np.float32)}, "has 3 images in 'video'"),
    ],
)
def test_what_is_no_video_of_that_size_is_an_error(tmp_path, changes, message):
    file = tmp_path / "movi_c-train.tfrecord-00000-of-00001"
    tfrecords.write(file, [record(0, **changes)])
    source = movi.source([file], 1, (SIZE, SIZE))
    with pytest.raises(DataError, match=message):
        conversion.convert(
            source, tmp_path / "out.h5", attributes=lambda _: {}, show_progress=False
        )
