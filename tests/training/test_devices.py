"""One, two, four and eight simulated devices train every model alike.

Run by itself, this file prints what the test compares: it needs more devices than the other tests.
"""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objdisc_jax import models, sharding
from objdisc_jax.models import base
from objdisc_jax.training.run_dir import build_model
from objdisc_jax.training.step import initial_state, make_train_step
from tests.conftest import small_config

DEVICES = (1, 2, 4, 8)
STEPS = 20
BATCH = 8


def train(name, devices, dtype):
    """Losses of some steps of a small model, and its parameters after them."""
    config = small_config(name)
    config.optimizer.learning_rate = 1e-3
    config.schedule.name, config.schedule.warmup_steps = "constant", 0
    model = build_model(config)
    graphdef, params = base.split(model)
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    mesh = sharding.data_mesh(jax.devices()[:devices])
    trained, frozen = base.partition(params, model)
    state = sharding.put_replicated(initial_state(config, trained), mesh)
    frozen = sharding.put_replicated(frozen, mesh)
    step = make_train_step(config, graphdef)
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(STEPS):
        image = rng.integers(0, 256, (BATCH, *config.model.resolution, 3), np.uint8)
        state, scalars = step(state, sharding.put_batch({"image": image}, mesh), frozen)
        losses.append(float(scalars["loss"]))
    assert all(x.dtype == dtype for x in jax.tree.leaves(state.params))
    return losses, np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)])


def in_double_precision(name, devices):
    """The same in float64, which the models don't offer: everything they call float32 is that."""
    float32, dtype = jnp.float32, jnp.dtype
    with jax.enable_x64(True):
        jnp.float32, jnp.dtype = jnp.float64, lambda _: np.dtype("float64")
        try:
            return train(name, devices, np.float64)
        finally:
            jnp.float32, jnp.dtype = float32, dtype


def main():
    single = {
        name: [train(name, devices, np.float32)[0] for devices in DEVICES]
        for name in models.names()
        if name != "spectral"  # trains nothing
    }
    double = [in_double_precision("slot_attention", devices)[1].tolist() for devices in DEVICES]
    print(json.dumps({"single": single, "double": double}))


@pytest.mark.slow
def test_any_number_of_devices_trains_every_model_alike():
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.test_devices"],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name, (one, *others) in found["single"].items():
        differences = [np.abs(np.array(losses) / np.array(one) - 1).max() for losses in others]
        print(f"{name}: losses differ by {max(differences):.1e} of themselves")
        np.testing.assert_allclose(np.array(others), np.array([one] * 3), rtol=1e-5, err_msg=name)
        assert one[-1] != one[0]
    one, *others = (np.array(parameters) for parameters in found["double"])
    print(f"parameters in float64 differ by {max(np.abs(x - one).max() for x in others):.1e}")
    for parameters in others:
        np.testing.assert_allclose(parameters, one, rtol=0, atol=1e-9)


if __name__ == "__main__":
    main()
