"""The contracts of models and data sets as functions, for those that live here or elsewhere.

A test of one's own is `check_model("my_package.my_model")` or `check_dataset("my_package.my_set")`.
A check that fails raises an `AssertionError` that says what the contract asks for.
"""

from objdisc_jax.testing.datasets import check_dataset
from objdisc_jax.testing.models import check_model

__all__ = ["check_dataset", "check_model"]
