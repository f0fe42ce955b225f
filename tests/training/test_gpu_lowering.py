"""Training steps as a GPU's compiler is given them, on machines without one."""

import re

import jax
import jax.numpy as jnp
import pytest

from objdisc_jax import models
from objdisc_jax.config import experiment
from objdisc_jax.training import run_dir
from objdisc_jax.training.step import make_train_step

LARGEST_KERNEL = 15


def lowered_step(config):
    """The program of a training step for CUDA, as text."""
    run = run_dir.abstract(config)
    image = jax.ShapeDtypeStruct((2, *config.model.resolution, 3), jnp.uint8)
    step = make_train_step(config, run.graphdef)
    traced = step.trace(run.state, {"image": image}, run.frozen)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


def without_routine(program):
    """Convolutions that cuDNN has no routine for.

    It has them for maps filled with zeros between their pixels only when the kernel is one: that is
    the gradient by the input of a convolution with a stride. A kernel as large as a map over such
    maps is a gradient by the kernel of a transposed convolution that XLA differentiated itself.
    """
    found = []
    for line in program.splitlines():
        if "stablehlo.convolution" not in line:
            continue
        dilation = re.search(r"lhs_dilate = \[([\d, ]+)\]", line)
        layout = re.search(r"x\[([\w, ]+)\]->", line)
        shape = re.search(r"\(tensor<[\w]+>, tensor<((?:\d+x)+)", line)
        assert layout, line
        assert shape, line
        sizes = dict(zip(layout[1].split(", "), shape[1].split("x"), strict=False))
        window = max(int(sizes[axis]) for axis in sizes if axis.isdecimal())
        is_filled = dilation is not None and set(dilation[1].split(", ")) != {"1"}
        if is_filled and window > LARGEST_KERNEL:
            found.append(line.strip())
    return found


TAUGHT = {"decoder": "transformer", "gradient": "bo_qsa", "teacher": "first_stage"}


@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, {}) for name in models.names()), ("dinosaur", TAUGHT)],
    ids=[*models.names(), "dinosaur-taught"],
)
def test_training_step_has_nothing_that_a_gpu_is_slow_at(name, settings):
    config = experiment(model=name, data="clevr_with_masks")
    config.model.update(settings)
    program = lowered_step(config)
    assert "stablehlo" in program
    assert without_routine(program) == []
    assert "f64" not in program
    assert "callback" not in program


def test_a_transposed_convolution_that_xla_differentiates_is_found():
    def loss(kernel):
        x = jnp.ones((2, 32, 32, 4))
        enlarged = jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            ((2, 3), (2, 3)),
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.sum(enlarged**2)

    traced = jax.jit(jax.grad(loss)).trace(jnp.ones((5, 5, 4, 4)))
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert len(without_routine(program)) == 1
