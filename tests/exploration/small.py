"""Small models with initial parameters, as folders that `objdisc_jax.load` takes."""

from flax import nnx

from objdisc_jax import config as configs
from objdisc_jax import models, pretrained
from objdisc_jax.models import base
from objdisc_jax.training import weights
from tests.conftest import small_config


def write(name, folder):
    """Writes a small model of a kind; returns its folder, None if it has frozen parts."""
    config = small_config(name)
    model = models.create(config.model, rngs=nnx.Rngs(0))
    if model.frozen:
        return None
    folder.mkdir()
    weights.write(folder / pretrained.WEIGHTS, base.split(model)[1], 100)
    configs.save(config, folder)
    return folder
