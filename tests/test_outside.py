"""A model, a data set and an evaluator in a package of one's own, with no edit here."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from objdisc_jax import config as configs
from objdisc_jax import predict
from objdisc_jax.errors import ConfigError, UserError
from objdisc_jax.testing import check_dataset, check_model
from objdisc_jax.training import loop

MODEL = '''
"""Pixels are clustered by colour: slots are mean colours."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from objdisc_jax.models.base import Model, Prediction, Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToySettings(Settings):
    num_slots: int = 4  # clusters
    box_weight: float = 0.0  # of the boxes' own loss; above 0 the model needs the field "boxes"

    @classmethod
    def small(cls):
        return cls(resolution=(8, 8))


class Toy(Model):
    input_range = (0.0, 1.0)

    def __init__(self, settings, *, rngs):
        super().__init__(settings, rngs=rngs)
        self.logits = nnx.Linear(3, settings.num_slots, rngs=rngs)
        self.fields = ("image", "boxes") if settings.box_weight else ("image",)

    def noise(self, key, batch_size):
        return {"logits": jax.random.normal(key, (batch_size, 1, 1, self.settings.num_slots))}

    def predict(self, batch, noise, *, step):
        logits = self.logits(batch.image) + 0.01 * noise["logits"]
        masks = jnp.moveaxis(jax.nn.softmax(logits), -1, 1)
        total = jnp.sum(masks, (2, 3))[..., None]
        slots = jnp.einsum("bkhw,bhwc->bkc", masks, batch.image) / total
        return Prediction(jnp.einsum("bkhw,bkc->bhwc", masks, slots), masks, slots)

    def loss(self, batch, noise, *, step, dropout_key=None):
        mse = jnp.mean((self.predict(batch, noise, step=step).recon - batch.image) ** 2, (1, 2, 3))
        if not self.settings.box_weight:
            return mse, {}
        boxes = jnp.mean(batch["boxes"] ** 2, (1, 2))
        return mse + self.settings.box_weight * boxes, {"boxes": boxes}
'''
DATA = """
from objdisc_jax.data import examples, hdf5
from objdisc_jax.data.config import shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration, Field


class ToyReader(hdf5.Hdf5Reader):
    pass


def default_config():
    return shared_config("toys.data", path="toys.h5")


def declare(config):
    return DatasetDeclaration(
        **shared_settings(config),
        reader=ToyReader,
        image_size=(16, 16),
        splits={"train": range(80), "val": range(80, 90), "test": range(90, 100)},
        fields={"boxes": Field("float32", (2, 4))},
        num_entities=4,
        largest_num_objects=3,
    )


write_example = examples.writer(default_config, declare)
"""
EVALUATOR = """
import jax.numpy as jnp

from objdisc_jax.evaluation.evaluators import Evaluator


class Sharpness(Evaluator):
    metrics = {"sharpness": "mean of the largest mask"}

    def score(self, model, batch, prediction, fields):
        return {"sharpness": jnp.mean(jnp.max(prediction.masks, 1), (1, 2))}
"""
SUBCLASS = """
from objdisc_jax.models.slot_attention.model import SlotAttentionAutoEncoder
from objdisc_jax.models.slot_attention.settings import Settings


class Halved(SlotAttentionAutoEncoder):
    def loss(self, batch, noise, *, step, dropout_key=None):
        loss, scalars = super().loss(batch, noise, step=step, dropout_key=dropout_key)
        return loss / 2, scalars
"""
CONFIG = """
from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="toys.model", data="toys.data")
    config.data.num_workers = 1
    config.batch_size = 8
    config.num_train_steps = 20
    config.log_every = 5
    config.eval.every = 10
    config.evals = ("segmentation", "reconstruction", "toys.sharpness")
    config.checkpoint.best = "max sharpness"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 0.01
    config.schedule.warmup_steps = 0.1
    config.model.resolution = (16, 16)
    return config
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the package `toys`, which Python finds, data, a config and an image."""
    package = tmp_path / "toys"
    package.mkdir()
    for name, source in {
        "__init__": "",
        "model": MODEL,
        "data": DATA,
        "sharpness": EVALUATOR,
        "halved": SUBCLASS,
    }.items():
        (package / f"{name}.py").write_text(source)
    (tmp_path / "toy.py").write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    from toys import data

    data.write_example(tmp_path / "toys.h5", num_images=64)
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(tmp_path / "photo.png")
    yield tmp_path
    for module in [name for name in sys.modules if name.split(".")[0] == "toys"]:
        del sys.modules[module]


def call(module, *arguments):
    command = [sys.executable, "-m", f"objdisc_jax.{module}", *arguments]
    done = subprocess.run(
        command, env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"}, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def test_everything_works_with_a_package_of_ones_own(folder):
    check_dataset("toys.data")
    run = ("--config", "toy.py", "--workdir", "runs/toy")
    for steps in ("10", "20"):  # the second goes on from the first
        status, output = call("main", *run, f"--config.num_train_steps={steps}")
        assert status == 0, output
    assert "Going on from step 10" in output
    content = (folder / "runs/toy/metrics.jsonl").read_text()
    lines = [json.loads(line) for line in content.splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    assert {"val/sharpness", "val/fg_ari", "val/mse"} <= lines[-1].keys()
    status, output = call("main", "--workdir", "runs/toy", "--mode", "eval", "--step", "best")
    assert status == 0, output
    assert "mean of the largest mask" in output
    status, output = call(
        "predict", "--workdir", "runs/toy", "--input", "photo.png", "--output", "segmented"
    )
    assert status == 0, output
    assert (folder / "segmented" / "photo_labels.png").is_file()
    status, output = call("convert", "to-torch", "--workdir", "runs/toy", "--output", "toy.pt")
    assert status == 1
    assert "'toys.model' has no PyTorch module" in output
    assert "Traceback" not in output


def test_models_elsewhere_pass_the_contract(folder):
    from toys import halved, model

    check_model("toys.model")
    check_model(model.Toy)
    check_model(halved.Halved)


def experiment(folder, **values):
    config = configs.experiment(model="toys.model", data="toys.data")
    config.update_from_flattened_dict(
        {
            "data.path": str(folder / "toys.h5"),
            "data.num_workers": 0,
            "batch_size": 8,
            "num_train_steps": 2,
            "model.resolution": (16, 16),
            **values,
        }
    )
    return config


def test_field_beside_the_image_reaches_the_model(folder):
    loop.train(experiment(folder, **{"model.box_weight": 0.5, "log_every": 1}), folder / "run")
    line = json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["train/boxes"] > 0
    assert line["val/boxes"] > 0
    arguments = ["predict", "--workdir", "run", "--input", "photo.png", "--output", "out"]
    with pytest.raises(UserError, match="needs boxes beside images"):
        predict.main(predict.parse(arguments))


def test_field_that_the_data_lacks_is_an_error_before_anything_is_made(folder, tetrominoes_file):
    config = configs.experiment(model="toys.model", data="tetrominoes")
    config.data.path = str(tetrominoes_file)
    config.model.box_weight = 1.0
    with pytest.raises(UserError, match=r"'toys\.model' needs the field 'boxes', but .* image, "):
        loop.train(config, folder / "run")
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "toys.nothing"}, r"model\.name: there is no model 'toys\.nothing'.*PYTHONPATH"),
        ({"name": "toys.data"}, r"toys\.data has no subclass of .*Settings, so it is no model"),
    ],
)
def test_name_of_no_model_is_explained(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        configs.experiment(model=changes["name"], data="toys.data")


def test_evaluator_with_a_metric_of_another_is_refused(folder):
    evals = ("toys.sharpness", "toys.sharpness")
    with pytest.raises(ConfigError, match="both have the metric sharpness"):
        loop.train(experiment(folder, evals=evals), folder / "run")
