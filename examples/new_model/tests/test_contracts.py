"""The model and the data set keep their contracts."""

from objdisc_jax.testing import check_dataset, check_model


def test_model_keeps_the_contract():
    check_model("patch_slots.model")


def test_dataset_keeps_the_contract():
    check_dataset("patch_slots.disks")
