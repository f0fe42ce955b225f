"""Small models of every kind that a config can ask for, in both frameworks."""

import json

import jax
import numpy as np
import torch
from flax import nnx

from objdisc_jax import interop, models
from objdisc_jax.interop import mapping
from objdisc_jax.models import base

SMALL = {
    "slot_attention": {
        "resolution": (32, 32),
        "num_slots": 3,
        "slot_size": 16,
        "mlp_hidden_size": 24,
        "num_iterations": 2,
        "encoder_channels": (12, 16),
        "encoder_kernels": (5, 3),
        "encoder_strides": (1, 1),
        "decoder_channels": (16, 12, 8),
        "decoder_strides": (2, 2, 1),
        "decoder_grid": (8, 8),
    },
    "slate": {
        "resolution": (16, 16),
        "num_slots": 3,
        "slot_size": 12,
        "mlp_hidden_size": 24,
        "num_iterations": 2,
        "vocab_size": 24,
        "dvae_features": 12,
        "d_model": 16,
        "num_heads": 2,
        "num_decoder_blocks": 2,
        "temperature": (0.5, 0.3),
    },
    "gnm": {
        "resolution": (24, 24),
        "grid": (3, 3),
        "encoder_channels": (12, 16),
        "encoder_kernels": (4, 4),
        "encoder_strides": (2, 4),
        "draw_steps": 2,
        "global_size": 6,
        "global_hidden": (24,),
        "global_decoder_hidden": (20,),
        "local_channels": (16,),
        "what_size": 10,
        "glimpse_channels": (12, 8),
        "glimpse_upscales": (2, 2, 3),
        "background_size": 5,
        "background_hidden": (24,),
        "background_prior_hidden": (20,),
        "background_channels": (12, 8),
        "background_kernels": (1, 1, 3),
        "background_upscales": (4, 6, 1),
    },
}
PIXELS = {"decoder": "mlp", "decoder_channels": (12, 8), "num_frequencies": 5}
VARIANTS = {
    "slot_attention": {
        "small": {},
        "wide": {
            "resolution": (32, 48),
            "decoder_grid": (8, 12),
            "separation": "entropy",
            "separation_weight": 0.03,
            "area_weight": 0.06,
        },
        "no_strides": {
            "resolution": (21, 21),
            "decoder_grid": (21, 21),
            "decoder_strides": (1, 1, 1),
            "separation": "max",
            "separation_weight": 0.03,
        },
        "paper": {
            "encoder_norm": True,
            "activation": "relu",
            "gradient": "unrolled",
            "separation": "max",
            "separation_weight": 0.03,
        },
        "learned_queries": {
            **PIXELS,
            "gradient": "bo_qsa",
            "resolution": (28, 36),
            "encoder_strides": (2, 1),
        },
        "like_the_demo": {
            **PIXELS,
            "resolution": (35, 35),
            "encoder_channels": (12, 12),
            "encoder_strides": (5, 1),
            "encoder_residual": True,
            "encoder_norm": True,
            "encoder_init": "kaiming",
            "position": "fourier",
            "activation": "relu",
            "decoder_channels": (12,),
            "pixel_stride": 3,
            "output": "tanh",
        },
    },
    "slate": {
        "small": {},
        "learned_queries": {
            "gradient": "bo_qsa",
            "hard": True,
            "resolution": (16, 24),
            "num_decoder_blocks": 1,
            "rematerialize": False,
        },
    },
    "gnm": {
        "small": {
            "resolution": (20, 20),
            "encoder_strides": (3, 3),
            "background_upscales": (5, 2, 2),
            "sigma": 0.4,
            "beta_aux_what": 0.3,
        },
    },
}
CASES = [(name, variant) for name in interop.names() for variant in VARIANTS[name]]


def settings(name, variant):
    """The model block of a variant, as a run's config.json holds it."""
    config = models.get(name).default_config()
    with config.unlocked():
        config.update(SMALL[name] | VARIANTS[name][variant])
    return json.loads(config.to_json())


def both(block, seed=0):
    """The graphdef and parameters of a JAX model, and the PyTorch model with the same ones.

    The latter is in evaluation mode: without dropout, as the JAX model is without a key for it.
    """
    rest = dict(block)
    name = rest.pop("name")
    abstract = nnx.eval_shape(lambda: models.create(name, rest, rngs=nnx.Rngs(0)))
    graphdef, like = base.split(abstract)
    # Not the initial parameters: biases are zero there, and an exchange of two would go unseen.
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: draw(rng, x.shape), like)
    model = interop.create(block)
    model.load_state_dict(mapping.to_torch(params, model))
    return graphdef, params, model.eval()


def draw(rng, shape):
    """Values that keep activations near 1."""
    return rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[:-1]) + 1))


def inputs(graphdef, params, batch=3, seed=0):
    """Images and noise, for JAX and for PyTorch."""
    model = base.merge(graphdef, params)
    low, high = model.input_range
    shape = (batch, *model.resolution, 3)
    image = np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)
    noise = jax.device_get(model.expand_noise(model.noise(jax.random.key(seed), batch)))
    torch_noise = jax.tree.map(lambda x: torch.from_numpy(np.array(x)), noise)
    return image, noise, torch.from_numpy(image).movedim(-1, 1), torch_noise
