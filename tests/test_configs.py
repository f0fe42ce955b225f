"""Every experiment in configs/ can be loaded, passes the checks, and builds its model."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from objdisc_jax import config as configs
from objdisc_jax.data import datasets
from objdisc_jax.models.base import Batch
from objdisc_jax.training.run_dir import abstract, build_model

FILES = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def config(request):
    return runpy.run_path(str(request.param))["get_config"]()


def test_config_passes_the_checks_and_survives_saving(config):
    configs.check(config)
    values = configs.to_dict(config)
    assert configs.to_dict(configs.from_dict(values)) == values


def test_model_takes_images_of_the_config(config):
    def loss(rng):
        model = build_model(config)
        batch = Batch({"image": jnp.zeros((1, *model.resolution, 3))})
        return model.loss(batch, model.noise(rng, 1), step=jnp.int32(0))

    value, _ = jax.eval_shape(loss, jax.random.key(0))
    assert value.shape == (1,)
    abstract(config)  # the optimiser fits the parameters


def test_reader_that_resizes_gives_images_of_the_models_size(config):
    declaration = datasets.get(config.data.name).declare(config.data)
    assert declaration.resize in (None, tuple(config.model.resolution))
    if declaration.resize is not None:
        config.model.resolution = (64, 96)
        assert datasets.get(config.data.name).declare(config.data).resize == (64, 96)


def test_docstring_gives_the_command(request, config):
    file = request.node.callspec.params["config"]
    assert f"--config configs/{file.name}" in file.read_text()
