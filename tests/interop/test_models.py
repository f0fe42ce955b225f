"""The PyTorch models are the published ones to their keys, and compute what JAX computes."""

import subprocess
import sys

import pytest

from objdisc_jax import interop, models
from objdisc_jax.errors import UserError
from tests.golden import published
from tests.interop import parity

NAMES = [name for name in models.names() if interop.has(name)]


@pytest.mark.parametrize("check", parity.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_small_model_in_torch(name, check):
    check(name, models.settings_class(name).small())


@pytest.mark.parametrize(
    ("name", "left_out"),  # constants that are in the state_dict, but not in the golden file
    [
        (
            "slot_attention",
            {
                "encoder_pos_embedding.grid": [1, 128, 128, 4],
                "decoder_pos_embedding.grid": [1, 8, 8, 4],
            },
        ),
        ("slate", {}),
    ],
)
def test_default_model_has_the_published_layout(name, left_out):
    model = interop.create({"name": name})
    found = [(key, list(tensor.shape)) for key, tensor in model.state_dict().items()]
    assert {key: shape for key, shape in found if key in left_out} == left_out
    entries = published.load_json("layouts.json")[name]
    there = [(key, shape) for key, shape in found if key not in left_out]
    assert there == [(key, shape) for key, shape, _, _ in entries]


def test_model_without_a_torch_module_is_named(tmp_path, monkeypatch):
    (tmp_path / "torchless.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert not interop.has("torchless")
    with pytest.raises(UserError, match=r"'torchless' has no PyTorch module; .* slot_attention"):
        interop.get("torchless")
    with pytest.raises(UserError, match="did you mean 'slot_attention'"):
        interop.get("slot_atention")


def test_models_import_with_torch_alone():
    others = ("jax", "flax", "numpy", "einops", "ml_collections", "absl")
    code = f"import sys; sys.modules.update(dict.fromkeys({others}));"
    code += f"from objdisc_jax import interop; [interop.get(name) for name in {NAMES}]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
