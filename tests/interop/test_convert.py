"""Runs to weight files and back, and what is said of files that do not fit."""

import argparse
import json
import pickle
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from objdisc_jax import config as configs
from objdisc_jax import convert, interop, models, sharding
from objdisc_jax.errors import UserError
from objdisc_jax.interop import files, mapping
from objdisc_jax.training import run_dir
from objdisc_jax.training.evaluate import evaluate
from objdisc_jax.training.loop import train
from objdisc_jax.training.step import initial_state
from tests.conftest import small_config, tiny_experiment
from tests.interop.parity import both, inputs
from tests.test_cli import call

PUBLISHED_STRUCTURE = [
    "epoch",
    "global_step",
    "pytorch-lightning_version",
    "state_dict",
    "loops",
    "callbacks",
    "optimizer_states",
    "lr_schedulers",
    "hparams_name",
    "hyper_parameters",
]


@pytest.fixture(scope="module")
def run(tetrominoes_file, tmp_path_factory):
    """A trained run: its config and directory."""
    config = tiny_experiment(tetrominoes_file)
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    train(config, workdir)
    return config, workdir


@pytest.fixture
def state(run, tmp_path):
    """The run's weights as a state_dict."""
    convert.to_torch(run[1], tmp_path / "state.pt")
    return torch.load(tmp_path / "state.pt")


def params_of(workdir):
    return run_dir.load_trained(workdir, sharding.replicated(sharding.data_mesh())).params


def save(file, content):
    torch.save(content, file)
    return file


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "weights.ckpt"])
def test_there_and_back_again_is_bit_identical(run, tmp_path, name):
    config, workdir = run
    file, again = tmp_path / "new" / name, tmp_path / "again"
    begin = time.monotonic()
    convert.to_torch(workdir, file)
    assert time.monotonic() - begin < 10
    convert.from_torch(file, config, again)
    jax.tree.map(np.testing.assert_array_equal, params_of(again), params_of(workdir))
    assert [entry.name for entry in file.parent.iterdir()] == [name]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["again", "new"]
    convert.to_torch(again, tmp_path / f"second_{name}")
    assert configs.to_dict(configs.load(again)) == configs.to_dict(config)


def test_imported_run_is_scored_and_trained_like_any_other(run, state, tmp_path):
    config, workdir = run
    convert.from_torch(save(tmp_path / "a.pt", state), config, tmp_path / "run")
    before, after = (evaluate(w, split="test").means for w in (workdir, tmp_path / "run"))
    assert before == after
    train(config, tmp_path / "run")
    assert (
        run_dir.load_trained(tmp_path / "run", sharding.replicated(sharding.data_mesh())).step
        == config.num_train_steps
    )


def test_run_of_a_weight_file_is_at_its_step(run, tmp_path):
    config, workdir = run
    cases = {
        "a.pt": (None, 0),
        "a.ckpt": (None, config.num_train_steps),
        "a.safetensors": (None, config.num_train_steps),
        "b.ckpt": (5, 5),
        "c.ckpt": (0, 0),
    }
    for name, (asked, step) in cases.items():
        convert.to_torch(workdir, tmp_path / name)
        convert.from_torch(tmp_path / name, config, tmp_path / f"{name}_run", asked)
        trained = run_dir.load_trained(
            tmp_path / f"{name}_run", sharding.replicated(sharding.data_mesh()), which=str(step)
        )
        assert trained.step == step
    # Training goes on with the rates of that step, which depend on the state's step alone.
    state = initial_state(config, trained.params, 1)
    like = run_dir.abstract(config).state
    assert jax.tree.structure(state) == jax.tree.structure(like)
    assert state.step == 1


def test_imported_gnm_predicts_as_of_its_step(tmp_path):
    settings = models.settings_class("gnm").small()
    graphdef, params, there = both("gnm", settings)
    step = settings.temperature[3]  # presence is relaxed least from here on
    content = {
        "state_dict": {f"model.{key}": value for key, value in there.state_dict().items()},
        "global_step": step,
    }
    config = small_config("gnm")
    convert.from_torch(save(tmp_path / "a.ckpt", content), config, tmp_path / "run")
    trained = run_dir.load_trained(tmp_path / "run", sharding.replicated(sharding.data_mesh()))
    batch, noise, torch_image, torch_noise = inputs(graphdef, params)

    @jax.jit
    def predict(params, step):
        return graphdef.model(params).predict(batch, noise, step=step).masks

    found = predict(jax.device_get(trained.params), jnp.int32(trained.step))
    with torch.no_grad():
        expected, early = (there(torch_image, torch_noise, step=s).masks for s in (step, 0))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (early - expected).abs().max() > 0.01


def test_formats_hold_what_their_readers_expect(run, tmp_path):
    config, workdir = run
    for name in ("a.pt", "a.safetensors", "a.ckpt"):
        convert.to_torch(workdir, tmp_path / name, which="latest")
    plain = torch.load(tmp_path / "a.pt", weights_only=True)
    interop.create(configs.to_dict(config)["model"]).load_state_dict(plain)
    safe = load_file(tmp_path / "a.safetensors")
    lightning = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert list(lightning) == PUBLISHED_STRUCTURE
    assert lightning["global_step"] == config.num_train_steps
    assert lightning["hparams_name"] == "params"
    settings = lightning["hyper_parameters"]
    assert settings["model_type"] == "sa"
    assert (settings["num_slots"], settings["slot_size"]) == (3, 8)
    assert settings["num_iterations"] == 1
    assert settings["resolution"] == (35, 35)
    assert lightning["state_dict"].keys() == {f"model.{key}" for key in plain}
    for key, tensor in plain.items():
        assert torch.equal(tensor, safe[key])
        assert torch.equal(tensor, lightning["state_dict"][f"model.{key}"])


def test_settings_that_contradict_the_config_are_reported(run, state, tmp_path, caplog):
    config, _ = run
    content = {
        "state_dict": {f"model.{key}": tensor for key, tensor in state.items()},
        "hyper_parameters": argparse.Namespace(
            num_slots=9, slot_size=8, arch=argparse.Namespace(draw_step=4)
        ),
    }
    convert.from_torch(save(tmp_path / "a.ckpt", content), config, tmp_path / "run")
    assert "num_slots: 9 in the file, 3 in the config" in caplog.text
    assert "slot_size" not in caplog.text


def without(state, key):
    return {name: tensor for name, tensor in state.items() if name != key}


MISFITS = {
    "missing": (lambda s: without(s, "encoder.0.0.bias"), r"encoder\.0\.0\.bias: is missing"),
    "shape": (
        lambda s: s | {"encoder.0.0.weight": torch.zeros(8, 3, 3, 3)},
        r"encoder\.0\.0\.weight: has shape \[8, 3, 3, 3\], not \[8, 3, 5, 5\]",
    ),
    "several": (
        lambda s: without(s, "encoder.0.0.bias") | {"other": torch.zeros(1)},
        r"encoder\.0\.0\.bias: is missing.*holds as well: other",
    ),
    "not finite": (
        lambda s: s | {"encoder.0.0.bias": torch.full((8,), torch.nan)},
        r"encoder\.0\.0\.bias: holds numbers that are not finite",
    ),
    "integers": (
        lambda s: s | {"encoder.0.0.bias": torch.zeros(8, dtype=torch.int32)},
        r"encoder\.0\.0\.bias: holds torch\.int32",
    ),
    "another grid": (
        lambda s: s | {"encoder_pos_embedding.grid": torch.zeros(1, 7, 7, 20)},
        r"encoder_pos_embedding\.grid: is not the constant",
    ),
    "another model": (lambda s: {"dvae.weight": torch.zeros(3)}, r"seems to be of another one"),
    "published name of another model": (
        lambda s: {"state_dict": s, "hyper_parameters": {"model_type": "slate"}},
        r"model_type: 'slate' in the file, 'sa' in the config",
    ),
    "behind another name": (
        lambda s: {f"net.{key}": tensor for key, tensor in s.items()},
        r"The model's keys are there behind 'net\.'",
    ),
    "missing behind a prefix": (
        lambda s: {f"module.{key}": t for key, t in without(s, "encoder.0.0.bias").items()},
        r"encoder\.0\.0\.bias: is missing",
    ),
    "several models": (
        lambda s: {f"module.{key}": t + 1 for key, t in s.items()} | s,
        r"holds this model twice.*'(\S+)' and so on.*'module\.\1'",
    ),
    "no tensors": (lambda s: {"a": 1, "b": 2}, r"a, b are not tensors"),
    "a tensor": (lambda s: torch.zeros(3), r"holds a Tensor and no weights"),
    "empty": (lambda s: {}, r"no weights"),
    "no step": (
        lambda s: {"state_dict": s, "global_step": -1},
        r"step: \S*a\.pt names -1; .* Say with --step",
    ),
}


@pytest.mark.parametrize(("change", "message"), MISFITS.values(), ids=MISFITS.keys())
def test_misfit_is_explained_and_nothing_written(run, state, tmp_path, change, message):
    file = save(tmp_path / "a.pt", change(state))
    refuse(file, run[0], tmp_path, message)


def behind(prefix):
    return lambda state: {f"{prefix}{key}": tensor for key, tensor in state.items()}


WRAPPED = {
    "several devices": behind("module."),
    "compiled": behind("_orig_mod."),
    "all of them": behind("model.module._orig_mod."),
    "a compiled part": lambda s: {
        key.replace("slot_attention.", "slot_attention._orig_mod."): s[key] for key in s
    },
    "twice": behind("module.module."),
    "with a loss": lambda s: behind("model.")(s) | {"loss.net.weight": torch.zeros(2)},
    "with more behind the same": lambda s: behind("module.")(s | {"loss.weight": torch.zeros(2)}),
    "with an average": lambda s: s | {f"ema.{key}": tensor + 1 for key, tensor in s.items()},
    "with numbers": lambda s: s | {"epoch": 3, "n_averaged": torch.tensor(4)},
    "twice the same": lambda s: s | behind("module.")(s),
    "inside": lambda s: {"model": behind("module.")(s), "epoch": 3, "optimizer": {"state": {}}},
}
LEFT_OUT = {
    "with a loss": "loss.net.weight",
    "with more behind the same": "module.loss.weight",
    "with an average": "ema.",
    "with numbers": "n_averaged",
    "twice the same": "module.",
    "inside": "epoch, optimizer",
}


@pytest.mark.parametrize("format", ["plain", "lightning", "safetensors"])
@pytest.mark.parametrize("wrapped", WRAPPED)
def test_weights_in_wrappers_and_beside_others_are_found(tmp_path, wrapped, format):
    model = interop.create(configs.to_dict(small_config("slot_attention"))["model"])
    state, file = model.state_dict(), tmp_path / "a"
    content = WRAPPED[wrapped](state)
    if wrapped == "inside" and format != "plain":
        pytest.skip("these files hold tensors")
    if format == "safetensors":
        content = {k: v.clone() for k, v in content.items() if isinstance(v, torch.Tensor)}
        save_file(content, file)
    else:
        save(file, content if format == "plain" else {"state_dict": content})
    found = files.read(file)
    own = mapping.own(found.state, model)
    assert own.state.keys() == state.keys()
    assert all(torch.equal(own.state[key], state[key]) for key in state)
    assert ", ".join([*own.left_out, *found.others]).startswith(LEFT_OUT.get(wrapped, ""))
    assert bool(own.left_out or found.others) == (wrapped in LEFT_OUT)


def test_what_is_left_out_of_a_file_is_told(run, state, tmp_path, caplog):
    content = WRAPPED["with a loss"](state)
    convert.from_torch(save(tmp_path / "a.ckpt", content), run[0], tmp_path / "run")
    assert "Left out what the model has not: loss.net.weight." in caplog.text
    convert.to_torch(tmp_path / "run", tmp_path / "again.pt")
    again = torch.load(tmp_path / "again.pt")
    assert all(torch.equal(again[key], state[key]) for key in state)


class Harmful:
    def __reduce__(self):
        return (print, ("this code must not run",))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (torch.save, r"asks for \S*print.*could run some"),
        (lambda content, file: file.write_bytes(pickle.dumps(content, 2)), r"asks for \S*print"),
        (lambda content, file: file.write_bytes(pickle.dumps(content)), r"no pickle of tensors"),
    ],
    ids=["torch", "old pickle", "new pickle"],
)
def test_file_with_code_is_not_read(run, tmp_path, write, message, capsys):
    file = tmp_path / "a.pt"
    write({"encoder.0.0.weight": Harmful()}, file)
    refuse(file, run[0], tmp_path, message)
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("format", ["state_dict", "safetensors", "lightning"])
@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, 0.99])
def test_damaged_file_is_explained(run, tmp_path, format, keep):
    whole, file = tmp_path / "whole", tmp_path / "a"
    convert.to_torch(run[1], whole, format)
    content = whole.read_bytes()
    file.write_bytes(content[: keep if keep > 1 or keep == 0 else int(keep * len(content))])
    whole.unlink()
    refuse(file, run[0], tmp_path, r"cannot be read .* damaged")


def test_missing_file_and_used_workdir_are_explained(run, state, tmp_path):
    refuse(tmp_path / "nowhere.pt", run[0], tmp_path, r"there is no file .*nowhere\.pt")
    file = save(tmp_path / "a.pt", state)
    with pytest.raises(UserError, match="exists already"):
        convert.from_torch(file, run[0], run[1])
    with pytest.raises(UserError, match=r"no checkpoint '99'.*there are steps"):
        convert.to_torch(run[1], tmp_path / "b.pt", which="99")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        convert.to_torch(run[1], tmp_path / "file" / "b.pt")
    with pytest.raises(UserError, match="cannot be written"):
        convert.from_torch(file, run[0], tmp_path / "file" / "run")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.pt", "file", "state.pt"]


def test_weights_of_half_precision_are_read(run, state, tmp_path):
    halved = {key: tensor.bfloat16() for key, tensor in state.items()}
    convert.from_torch(save(tmp_path / "a.pt", halved), run[0], tmp_path / "run")
    first = params_of(tmp_path / "run")["encoder"]["layers"][0]["bias"]
    np.testing.assert_array_equal(first, halved["encoder.0.0.bias"].float())


def test_config_of_the_run_builds_the_torch_model(run, state):
    block = json.loads((run[1] / "config.json").read_text())["model"]
    interop.create(block).load_state_dict(state)


def test_command_line_converts_there_and_back(run, tmp_path, tetrominoes_file):
    experiment = tmp_path / "tiny.py"
    experiment.write_text(
        "from tests.conftest import tiny_experiment\n"
        f"def get_config():\n    return tiny_experiment({str(tetrominoes_file)!r})\n"
    )
    file = tmp_path / "a.safetensors"
    status, output = call("convert", "to-torch", "--workdir", run[1], "--output", file)
    assert status == 0, output
    back = ("from-torch", "--checkpoint", file, "--config", experiment, "--workdir", tmp_path / "b")
    status, output = call("convert", *back, "--config.model.num_slotz=5")
    assert status == 2
    assert "did you mean 'num_slots'" in output
    status, output = call("convert", *back, "--step", 7, "--config.model.num_slots=5")
    assert status == 0, output
    assert "num_slots: 3 in the file, 5 in the config" in output
    assert configs.load(tmp_path / "b").model.num_slots == 5
    assert "at step 7" in output


def refuse(file, config, tmp_path, message):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"(?s){message}"):
        convert.from_torch(file, config, tmp_path / "run")
    assert sorted(tmp_path.rglob("*")) == before
