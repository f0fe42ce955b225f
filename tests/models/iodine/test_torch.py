"""The PyTorch module beside the JAX model, in all kinds of settings."""

import pytest

from objdisc_jax.models.iodine.settings import Settings
from tests.interop import parity

SMALL = {
    "resolution": (20, 24),
    "num_slots": 3,
    "slot_size": 5,
    "num_iterations": 2,
    "decoder_channels": (8, 12),
    "encoder_channels": (8, 12),
    "mlp_sizes": (10,),
    "lstm_size": 7,
}
VARIANTS = {
    "pixels": {
        "decoder": "mlp",
        "pixel_stride": 3,
        "num_frequencies": 4,
        "likelihood": "normal",
        "sigma": 0.3,
        "lstm_size": 0,
        "coordinates": "cosine",
    },
    "more iterations": {
        "eval_iterations": 3,
        "decoder_kernel": 5,
        "encoder_kernel": 5,
        "sigma": 0.3,
        "mlp_sizes": (10, 14),
        "rematerialize": False,
    },
}


@pytest.mark.parametrize("check", parity.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_in_torch(variant, check):
    check("iodine", Settings(**SMALL | VARIANTS[variant]))
