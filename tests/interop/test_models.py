"""The PyTorch models are the published ones to their keys, and compute what JAX computes."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from objdisc_jax import interop, models
from objdisc_jax.errors import UserError
from objdisc_jax.interop import mapping
from objdisc_jax.models.dinosaur.settings import Settings
from tests.golden import published
from tests.interop import parity
from tests.models.dinosaur import test_parity

NAMES = [name for name in models.names() if interop.has(name)]


def small(name):
    """The small settings of a model, on stored features where it takes those."""
    settings = models.settings_class(name).small()
    names = {field.name for field in dataclasses.fields(settings)}
    return dataclasses.replace(settings, cached=True) if "cached" in names else settings


@pytest.mark.parametrize("check", parity.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_small_model_in_torch(name, check):
    check(name, small(name))


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


VARIANTS = [
    {"top_k": 2, "patch_stride": 2, "normalize_target": True, "gradient": "bo_qsa"},
    {"gradient": "unrolled", "distillation_weight": 1.0, "masks": "attention"},
    {"decoder": "transformer", "orders": "random", "average_orders": True},
    {"decoder": "transformer", "plain_blocks": True},
    {"normalized_state": True},
    {"position_grid": (4, 7), "patch_stride": 2},
]


@pytest.mark.parametrize("check", parity.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "variant", VARIANTS, ids=["top_k", "distilled", "orders", "plain", "normalized", "resampled"]
)
def test_variant_of_dinosaur_in_torch(variant, check):
    check("dinosaur", dataclasses.replace(small("dinosaur"), **variant))


@pytest.mark.parametrize(
    ("layout", "group", "table", "settings"),
    [
        ("FT-DINOSAUR", "mlp", test_parity.FT, {"decoder_hidden": (64, 64, 64)}),
        (
            "VideoSAUR",
            "videosaur",
            test_parity.VIDEOSAUR,
            {"decoder_hidden": (64, 64, 64), "normalized_state": True},
        ),
        (
            "SPOT",
            "spot",
            test_parity.SPOT,
            {"decoder": "transformer", "orders": "random", "num_heads": 4},
        ),
        (
            "SPOT",
            "spot_student",
            test_parity.SPOT,
            {"decoder": "transformer", "orders": "random", "num_heads": 4, "gradient": "bo_qsa"},
        ),
    ],
)
def test_published_layouts_of_dinosaur_go_both_ways(layout, group, table, settings):
    golden = published.load_npz("dinosaur.npz")
    input_mlp = (48, 48) if layout == "SPOT" else (96, 32)
    sizes = {**test_parity.SIZES, **settings, "input_mlp": input_mlp, "num_decoder_blocks": 2}
    model = interop.get("dinosaur")(Settings(**sizes))
    keys = json.loads(str(golden["config"]))["keys"][group]
    rng = torch.Generator().manual_seed(0)
    theirs = {key: torch.randn(shape, generator=rng) for key, shape in keys}
    theirs |= {
        f"dec{key.removeprefix('decoder.transformer')}": tensor
        for key, tensor in model.state_dict().items()
        if key.endswith("self_attn_mask")
    }
    wrapped = {f"model.{key}": tensor for key, tensor in theirs.items()}
    for file in (theirs, wrapped):
        ours = mapping.own(mapping.from_layout(file, model), model)
        assert ours.left_out == []
        assert ours.state.keys() == model.state_dict().keys()
        back = mapping.to_layout(ours.state, model, layout)
        assert back.keys() == theirs.keys()
        assert all(torch.equal(back[key], tensor) for key, tensor in theirs.items())
    # The places in JAX are those with which the published numbers are reproduced.
    rules = {rule.key: rule.path for rule in model.rules()}
    renamed = mapping.from_layout(theirs, model)
    by_content = {tensor.data_ptr(): key for key, tensor in renamed.items()}
    for key, shape in keys:
        path, _ = test_parity.place(key, shape, table)
        assert rules[by_content[theirs[key].data_ptr()]] == path, key
    with pytest.raises(UserError, match="there are FT-DINOSAUR, VideoSAUR, SPOT"):
        mapping.to_layout(ours.state, model, "OCLF")


def test_models_import_with_torch_alone():
    others = ("jax", "flax", "numpy", "einops", "ml_collections", "absl")
    code = f"import sys; sys.modules.update(dict.fromkeys({others}));"
    code += f"from objdisc_jax import interop; [interop.get(name) for name in {NAMES}]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
