"""A parameter without a place in the other framework is an error that lists every such one."""

import jax
import numpy as np
import pytest

from objdisc_jax import interop
from objdisc_jax.interop import mapping
from objdisc_jax.interop.layouts import CONV, CONV_TRANSPOSE, DENSE, SAME
from objdisc_jax.models.slot_attention.settings import Settings
from tests.interop import parity

SMALL = Settings.small()


@pytest.fixture(scope="module")
def small():
    _, params, model = parity.both("slot_attention", SMALL)
    return params, model


@pytest.mark.parametrize(
    ("layout", "shape", "torch_shape"),
    [
        (SAME, (3,), (3,)),
        (SAME, (1, 2, 3), (1, 2, 3)),
        (DENSE, (4, 6), (6, 4)),
        (CONV, (5, 3, 4, 6), (6, 4, 5, 3)),
        (CONV_TRANSPOSE, (5, 3, 4, 6), (4, 6, 5, 3)),
    ],
)
def test_layouts_move_axes_and_move_them_back(layout, shape, torch_shape):
    array = np.arange(np.prod(shape)).reshape(shape)
    moved = mapping.array_to_torch(array, layout)
    assert moved.shape == layout.torch_shape(shape) == torch_shape
    np.testing.assert_array_equal(mapping.array_to_jax(moved, layout), array)


def test_transposed_kernel_is_turned():
    array = np.arange(9).reshape(3, 3, 1, 1)
    turned = mapping.array_to_torch(array, CONV_TRANSPOSE)[0, 0]
    np.testing.assert_array_equal(turned, [[8, 7, 6], [5, 4, 3], [2, 1, 0]])


def test_every_leaf_without_a_place_is_named(small):
    params, model = small
    encoder = dict(params["encoder"], surprise=np.zeros(2))
    attention = dict(params["slot_attention"], slot_mu=np.zeros((1, 1, 17), np.float32))
    wrong = dict(params, encoder=encoder, slot_attention=attention, more={"a": np.zeros(1)})
    del wrong["encoder_mlp"]
    with pytest.raises(mapping.MappingError) as caught:
        mapping.to_torch(wrong, model)
    assert str(caught.value).split("\n") == [
        "  encoder.surprise: has no rule (JAX)",
        "  more.a: has no rule (JAX)",
        "  encoder_mlp.layers.0.bias: is missing (JAX)",
        "  encoder_mlp.layers.0.kernel: is missing (JAX)",
        "  encoder_mlp.layers.1.bias: is missing (JAX)",
        "  encoder_mlp.layers.1.kernel: is missing (JAX)",
        "  slot_attention.slot_mu: has shape [1, 1, 8], not [1, 1, 17]",
    ]


def test_rules_name_every_parameter_of_both_sides_once(small):
    params, model = small
    rules = model.rules()
    assert len({rule.key for rule in rules}) == len({rule.path for rule in rules}) == len(rules)
    assert len(jax.tree.leaves(params)) == len(list(model.parameters())) == len(rules)


def test_buffers_may_be_missing_or_annealed(small, monkeypatch):
    params, model = small
    state = mapping.to_torch(params, model)
    grids = [key for key in state if key.endswith("grid")]
    without = {key: tensor for key, tensor in state.items() if key not in grids}
    jax.tree.map(np.testing.assert_array_equal, mapping.to_jax(without, model, params), params)
    other = state | {key: state[key] + 1 for key in grids}
    with pytest.raises(mapping.MappingError, match=r"grid: is not the constant"):
        mapping.to_jax(other, model, params)
    monkeypatch.setattr(interop.get("slot_attention"), "annealed", ("grid",))
    jax.tree.map(np.testing.assert_array_equal, mapping.to_jax(other, model, params), params)
