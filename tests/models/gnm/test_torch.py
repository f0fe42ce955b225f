"""The PyTorch module beside the JAX model, in all kinds of settings."""

import pytest

from objdisc_jax.models.gnm.settings import Settings
from tests.interop import parity

SMALL = {
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
    "glimpse_kernels": (1, 3, 3),
    "glimpse_upscales": (2, 2, 3),
    "background_size": 5,
    "background_hidden": (24,),
    "background_prior_hidden": (20,),
    "background_channels": (12, 8),
    "background_kernels": (1, 1, 3),
    "background_upscales": (4, 6, 1),
}
VARIANTS = {
    "small": {
        "resolution": (20, 20),
        "encoder_strides": (3, 3),
        "background_upscales": (5, 2, 2),
        "sigma": 0.4,
        "beta_aux_what": 0.3,
    }
}


@pytest.mark.parametrize("check", parity.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_in_torch(variant, check):
    check("gnm", Settings(**SMALL | VARIANTS[variant]))
