"""Small models with random parameters, as folders that `objdisc_jax.load` takes."""

import jax
import numpy as np
from flax import nnx

from objdisc_jax import config as configs
from objdisc_jax import models, pretrained
from objdisc_jax.models import base
from objdisc_jax.training import weights
from tests.conftest import small_config


def write(name, folder):
    """Writes a small model of a kind; returns its folder, None if it has frozen parts."""
    config = small_config(name)
    model = nnx.eval_shape(lambda: models.create(config.model, rngs=nnx.Rngs(0)))
    if model.frozen:
        return None
    generator = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: generator.normal(0, 0.1, leaf.shape).astype(leaf.dtype), base.split(model)[1]
    )
    folder.mkdir()
    weights.write(folder / pretrained.WEIGHTS, params, 100)
    configs.save(config, folder)
    return folder
