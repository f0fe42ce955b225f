"""Frozen parts: not trained, not in checkpoints, and always those that the run was trained with."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from objdisc_jax import config as configs
from objdisc_jax import sharding
from objdisc_jax.errors import UserError
from objdisc_jax.models.base import Model, Prediction, Settings
from objdisc_jax.testing import check_model
from objdisc_jax.training import loop, run_dir
from objdisc_jax.training.checkpoint import Checkpoints
from tests.training.test_train import parameters


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenSettings(Settings):
    weights: str = "encoder.safetensors"  # file or repository of the encoder's parameters

    @classmethod
    def small(cls):
        return cls(resolution=(8, 8))


class FrozenEncoder(Model):
    """Reconstructs pixels from what a frozen layer makes of them."""

    input_range = (0.0, 1.0)

    def __init__(self, settings, *, rngs):
        super().__init__(settings, rngs=rngs)
        self.encoder = nnx.List([nnx.Linear(3, 4, rngs=rngs)])
        self.decoder = nnx.Linear(4, 3, rngs=rngs)

    @property
    def frozen(self):
        return {"encoder": self.settings.weights}

    def noise(self, key, batch_size):
        return {}

    def predict(self, batch, noise, *, step):
        recon = self.decoder(jnp.tanh(self.encoder[0](batch.image)))
        masks = jnp.ones((len(batch), 1, *self.resolution))
        return Prediction(recon, masks, jnp.mean(recon, (1, 2))[:, None])

    def loss(self, batch, noise, *, step, dropout_key=None):
        recon = self.predict(batch, noise, step=step).recon
        return jnp.mean((recon - batch.image) ** 2, (1, 2, 3)), {}


RNG = np.random.default_rng(0)
WEIGHTS = {
    "0.kernel": RNG.normal(size=(3, 4)).astype(np.float32),
    "0.bias": RNG.normal(size=4).astype(np.float32),
}


@pytest.fixture
def config(tmp_path, tetrominoes_file):
    save_file(WEIGHTS, tmp_path / "encoder.safetensors")
    config = configs.experiment(model=__name__, data="tetrominoes")
    config.data.update(path=str(tetrominoes_file), num_workers=0)
    config.model.update(resolution=(35, 35), weights=str(tmp_path / "encoder.safetensors"))
    config.batch_size = 8
    config.num_train_steps = 4
    config.optimizer.ema_decay = 0.5
    config.schedule.update(name="constant", warmup_steps=0.0)
    return config


def test_model_with_a_frozen_part_keeps_the_contract():
    check_model(FrozenEncoder)


def test_frozen_part_is_neither_trained_nor_saved(config, tmp_path):
    loop.train(config, tmp_path / "run")
    found = parameters(tmp_path / "run")
    np.testing.assert_array_equal(found["encoder"][0]["kernel"], WEIGHTS["0.kernel"])
    np.testing.assert_array_equal(found["encoder"][0]["bias"], WEIGHTS["0.bias"])
    initial = run_dir.build_model(config).decoder.kernel[...]
    assert np.abs(found["decoder"]["kernel"] - initial).max() > 1e-5
    run = run_dir.abstract(config)
    assert "encoder" not in run.state.params
    assert not [x for x in jax.tree.leaves(run.state.opt_state) if x.shape == (3, 4)]
    checkpoints = Checkpoints(tmp_path / "run", create=False)
    state, _ = checkpoints.restore(4, run.state, sharding.replicated(sharding.data_mesh()))
    checkpoints.close()
    assert set(state.params) == {"decoder"}
    # The average over training is what is used.
    averaged = found["decoder"]["kernel"]
    np.testing.assert_array_equal(averaged, state.ema["decoder"]["kernel"])
    assert (averaged != state.params["decoder"]["kernel"]).any()
    recorded = json.loads((tmp_path / "run" / "frozen.json").read_text())
    assert recorded["encoder"]["source"] == config.model.weights
    assert len(recorded["encoder"]["sha256"]) == 64


def test_continued_run_with_averaging_equals_an_undisturbed_one(config, tmp_path):
    loop.train(config, tmp_path / "whole")
    config.num_train_steps = 2
    loop.train(config, tmp_path / "parts")
    config.num_train_steps = 4
    loop.train(config, tmp_path / "parts")
    whole, parts = (parameters(tmp_path / name) for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_other_file_than_that_of_the_training_is_refused(config, tmp_path):
    loop.train(config, tmp_path / "run")
    # The same content elsewhere is the same part.
    save_file(WEIGHTS, tmp_path / "copy.safetensors")
    (tmp_path / "encoder.safetensors").rename(tmp_path / "moved.safetensors")
    with pytest.raises(UserError, match=r"'encoder' comes from \S*encoder\.safetensors, but there"):
        parameters(tmp_path / "run")
    save_file(WEIGHTS | {"0.bias": np.zeros(4, np.float32)}, tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match=r"is not the one that the run in .* its SHA-256 is"):
        parameters(tmp_path / "run")
    config.num_train_steps = 6
    with pytest.raises(UserError, match=r"is not the one that the run in .* its SHA-256 is"):
        loop.train(config, tmp_path / "run")
    (tmp_path / "copy.safetensors").rename(tmp_path / "encoder.safetensors")
    loop.train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"0.kernel": WEIGHTS["0.kernel"]}, r"0\.bias: is missing"),
        (WEIGHTS | {"1.bias": WEIGHTS["0.bias"]}, r"1\.bias: is no parameter"),
        (
            WEIGHTS | {"0.bias": np.zeros(5, np.float32)},
            r"0\.bias: has shape \(5,\), not \(4,\)",
        ),
        (None, r"cannot be read from"),
    ],
)
def test_file_that_does_not_fit_is_explained(config, tmp_path, weights, message):
    if weights is None:
        (tmp_path / "encoder.safetensors").write_text("no weights")
    else:
        save_file(weights, tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match=message):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
