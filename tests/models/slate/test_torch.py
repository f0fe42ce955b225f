"""The PyTorch module beside the JAX model, in all kinds of settings."""

import pytest

from objdisc_jax.models.slate.settings import Settings
from tests.interop import parity

SMALL = {
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
}
VARIANTS = {
    "small": {},
    "learned_queries": {
        "gradient": "bo_qsa",
        "hard": True,
        "resolution": (16, 24),
        "num_decoder_blocks": 1,
        "rematerialize": False,
    },
}


@pytest.mark.parametrize("check", parity.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_in_torch(variant, check):
    check("slate", Settings(**SMALL | VARIANTS[variant]))
