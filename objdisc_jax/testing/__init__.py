"""The contracts of models and data sets as functions, for those that live here or elsewhere.

A test of a data set of one's own is `check_dataset("my_package.my_dataset")`. A check that fails
raises an `AssertionError` that says what the contract asks for; no test framework is needed.
"""

from objdisc_jax.testing.datasets import check_dataset

__all__ = ["check_dataset"]
