"""What every model must do; a model joins by its folder being in objdisc_jax/models."""

import functools

import pytest

from objdisc_jax import models
from objdisc_jax.testing.models import MODEL_CHECKS, ModelCase


@functools.cache
def case(name):
    return ModelCase.small(name)


@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", models.names())
def test_model_keeps_the_contract(name, check):
    check(case(name))


def test_unknown_model_lists_the_known():
    with pytest.raises(ValueError, match=r"'slot_atention' \(did you mean 'slot_attention'"):
        models.get("slot_atention")
