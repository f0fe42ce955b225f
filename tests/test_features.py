"""Features computed once: the same training without images, and never those of another model."""

import json
import subprocess
import sys

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from objdisc_jax import features
from objdisc_jax.data import datasets, loader, splits
from objdisc_jax.data.hdf5 import Hdf5Reader
from objdisc_jax.data.hdf5_writer import RecordWriter
from objdisc_jax.data.synthetic import tetrominoes
from objdisc_jax.errors import UserError
from objdisc_jax.training import evaluate, loop
from objdisc_jax.training.prepare import prepare
from tests.backbones import cached_dinosaur, write_tiny
from tests.conftest import NUM_IMAGES, SPLITS, small_config
from tests.training.test_train import changed, metrics


@pytest.fixture
def config(tmp_path, tetrominoes_file):
    config = cached_dinosaur(tmp_path, tetrominoes_file)
    config.update(batch_size=8, num_train_steps=3, log_every=1)
    config.optimizer.learning_rate = 1e-3
    config.schedule.update(name="constant", warmup_steps=0.0)
    return config


def through_the_backbone(config):
    changes = {"model.cached": False}
    config = changed(config, **changes)
    config.data.features = None
    return config


def test_training_from_stored_features_is_that_through_the_backbone(config, tmp_path):
    features.write(config)
    loop.train(config, tmp_path / "stored")
    loop.train(through_the_backbone(config), tmp_path / "images")
    stored, images = (metrics(tmp_path / name) for name in ("stored", "images"))
    assert len(stored) == 3
    for ours, theirs in zip(stored, images, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["train/loss"] != theirs["train/loss"]  # half precision
        for key in ("train/loss", "train/grad_norm"):
            assert ours[key] == pytest.approx(theirs[key], rel=2e-3), key
    # The run knows its backbone, and takes images, too.
    assert "backbone" in json.loads((tmp_path / "stored" / "frozen.json").read_text())
    found = [
        evaluate.evaluate(tmp_path / "stored", config=one)
        for one in (config, through_the_backbone(config))
    ]
    losses = [scores.means["loss"] for scores in found]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    assert "mse" not in found[0].means
    assert (tmp_path / "stored" / "visualizations" / "test.png").is_file()


def test_file_has_what_the_backbone_says_of_every_record(config):
    features.write(config)
    with h5py.File(config.data.features) as file:
        stored = file["features"]
        assert stored.dtype == np.float16
        assert stored.shape == (NUM_IMAGES, 36, 48)
        assert stored.chunks == (1, 36, 48)
        stored = stored[:].astype(np.float32)
    dataset = loader.load(config.data, "test")
    batch = dataset.read(np.arange(3), ["features"])
    np.testing.assert_array_equal(batch["features"], stored[dataset.indices[:3]])
    assert stored.std() > 0.1
    assert len(np.unique(stored[:, 0, 0])) > NUM_IMAGES // 2


def test_no_image_is_read_for_stored_fields(config, monkeypatch):
    features.write(config)
    dataset = loader.load(config.data, "train")

    def read(*_):
        raise AssertionError("the data set's own file is read")

    monkeypatch.setattr(Hdf5Reader, "read", read)
    batches = loader.train_batches(dataset, batch_size=4, seed=0, fields=("features",))
    assert next(batches)["features"].shape == (4, 36, 48)
    with pytest.raises(AssertionError, match="own file"):
        dataset.read(np.arange(1), ["image"])


def test_validation_reads_what_is_scored_alone(config, monkeypatch):
    features.write(config)
    read, asked = Hdf5Reader.read, set()

    def spied(self, record, names):
        asked.update(names)
        return read(self, record, names)

    prepared = prepare(config)
    monkeypatch.setattr(Hdf5Reader, "read", spied)
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), prepared.run.state.params)
    prepared.validation(params | prepared.frozen.params, 0)
    assert asked == {"segmentation"}


def photographs(config, folder):
    """An experiment on images of a folder, and the files, in the order of their records."""
    folder.mkdir()
    for i, image in enumerate(tetrominoes.generate(3, 0, 12)["image"]):
        Image.fromarray(image).save(folder / f"{i}.png")
    config = config.copy_and_resolve_references()
    with config.unlocked():
        block = datasets.get("image_folder").default_config()
        block.update(path=str(folder), num_workers=0, resolution=(24, 24))
        with block.unlocked():
            block.features = config.data.features
        config.data = block
    reader = loader.load(changed(config, **{"data.features": None}).data, "train").reader
    return config, [folder / name.decode() for name in reader.names().tolist()]


def test_an_image_that_cannot_be_read_is_skipped_with_its_features(config, tmp_path):
    config, files = photographs(config, tmp_path / "photographs")
    files[4].write_bytes(b"damaged")
    with pytest.raises(UserError, match="on_bad_image=skip"):
        features.write(config)
    config = changed(config, **{"data.on_bad_image": "skip"})
    features.write(config)
    with h5py.File(config.data.features) as file:
        there = np.isfinite(file["features"][:]).all((1, 2))
    np.testing.assert_array_equal(np.flatnonzero(~there), [4])
    loop.train(config, tmp_path / "run")


def test_features_of_images_of_other_names_are_refused(config, tmp_path):
    config, files = photographs(config, tmp_path / "photographs")
    features.write(config)
    files[5].rename(files[5].with_name("another.png"))
    with pytest.raises(UserError, match=r"names: \d+ there, \d+ in the config"):
        loop.train(config, tmp_path / "run")


def test_interrupted_command_goes_on(config, tmp_path, monkeypatch):
    features.write(config)
    config.data.features, whole = str(tmp_path / "again.h5"), config.data.features
    finish = RecordWriter.finish

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(RecordWriter, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        features.write(config)
    assert not (tmp_path / "again.h5").exists()
    monkeypatch.setattr(RecordWriter, "finish", finish)
    monkeypatch.setattr(features._Images, "__getitems__", interrupted)
    features.write(config)  # what was done is not done again
    with h5py.File(whole) as one, h5py.File(tmp_path / "again.h5") as two:
        np.testing.assert_array_equal(one["features"], two["features"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.block", 1, r"block: 2 there, 1 in the config"),
        ("model.positions", "size", r"positions: 'antialias' there, 'size'"),
        ("model.dtype", "bfloat16", r"dtype: 'float32' there, 'bfloat16'"),
        ("model.resolution", (20, 20), r"resolution: \[24, 24\] there, \[20, 20\]"),
        ("model.final_norm", True, r"final_norm: False there, True"),
    ],
)
def test_features_of_another_model_are_refused(config, tmp_path, key, value, message):
    features.write(config)
    with pytest.raises(UserError, match=message):
        loop.train(changed(config, **{key: value}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_features_of_other_weights_or_images_are_refused(config, tmp_path):
    features.write(config)
    other = str(write_tiny(tmp_path / "other.safetensors", gain=1.0))
    with pytest.raises(UserError, match=r"SHA-256 of backbone: .* there, .* in the config"):
        loop.train(changed(config, **{"model.weights": other}), tmp_path / "run")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        for name, values in tetrominoes.generate(8, 0, NUM_IMAGES).items():
            file[name] = values
        file.attrs.update(splits.to_attributes(SPLITS))
    with pytest.raises(UserError, match=r"first_image: \d+ there, \d+ in the config"):
        loop.train(changed(config, **{"data.path": str(tmp_path / "other.h5")}), tmp_path / "run")


def test_file_that_is_missing_damaged_or_there_already_is_explained(config, tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*features\.h5.*objdisc features"):
        loop.train(config, tmp_path / "run")
    features.write(config)
    with pytest.raises(UserError, match="exists already"):
        features.write(config)
    with h5py.File(config.data.features, "a") as file:
        del file.attrs["computed_with"]
    with pytest.raises(UserError, match="no sound file of features"):
        loop.train(config, tmp_path / "run")
    features.write(config, overwrite=True)
    content = (tmp_path / "features.h5").read_bytes()
    (tmp_path / "features.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="no sound file of features"):
        loop.train(config, tmp_path / "run")


def test_what_cannot_be_computed_is_explained(config, tmp_path):
    named = config.copy_and_resolve_references()
    config.data.features = None
    with pytest.raises(UserError, match=r"data\.features: name the file to write"):
        features.write(config)
    with pytest.raises(UserError, match=r"needs the field 'features', but .*data\.features"):
        loop.train(config, tmp_path / "run")
    other = small_config("slate")
    other.data.update(path=config.data.path, features=str(tmp_path / "none.h5"), num_workers=0)
    with pytest.raises(UserError, match="'slate' makes nothing of images beforehand"):
        features.write(other)
    assert not (tmp_path / "none.h5").exists()
    named.model.weights = "nobody/no-such-model"
    with pytest.raises(UserError, match=r"'backbone' comes from nobody/no-such-model.*model\.weig"):
        features.write(named)


def test_command_line_writes_the_file(config, tmp_path):
    file = tmp_path / "experiment.py"
    file.write_text(
        "from objdisc_jax import config\n"
        f"def get_config():\n    return config.from_dict({json.loads(config.to_json())!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "objdisc_jax.features", "--config", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "160/160" in done.stderr
    assert (tmp_path / "features.h5").is_file()
