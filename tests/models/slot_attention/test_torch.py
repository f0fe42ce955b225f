"""The PyTorch module beside the JAX model, in all kinds of settings."""

import pytest

from objdisc_jax.models.slot_attention.settings import Settings
from tests.interop import parity

SMALL = {
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
}
VARIANTS = {
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
        "decoder": "mlp",
        "decoder_channels": (12, 8),
        "num_frequencies": 5,
        "gradient": "bo_qsa",
        "resolution": (28, 36),
        "encoder_strides": (2, 1),
    },
    "like_the_demo": {
        "decoder": "mlp",
        "decoder_channels": (12,),
        "num_frequencies": 5,
        "resolution": (35, 35),
        "encoder_channels": (12, 12),
        "encoder_strides": (5, 1),
        "encoder_residual": True,
        "encoder_norm": True,
        "encoder_init": "kaiming",
        "position": "fourier",
        "activation": "relu",
        "pixel_stride": 3,
        "output": "tanh",
    },
}


@pytest.mark.parametrize("check", parity.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_in_torch(variant, check):
    check("slot_attention", Settings(**SMALL | VARIANTS[variant]))
