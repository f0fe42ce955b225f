"""The command `objdisc`, and how options are spelled."""

import ast
import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from objdisc_jax import __main__ as command
from objdisc_jax import cli, compare, predict


def run(monkeypatch, *arguments):
    """What `objdisc` with these arguments would run: a module and its command line."""
    ran = []
    monkeypatch.setattr(cli, "called_as", None)
    monkeypatch.setattr(sys, "argv", ["objdisc", *arguments])
    monkeypatch.setattr(
        runpy, "run_module", lambda module, **_: ran.append((module, list(sys.argv)))
    )
    command.main()
    return ran


def test_a_command_runs_its_module_with_what_follows(monkeypatch):
    assert run(monkeypatch, "predict", "--input", "a b.png") == [
        ("objdisc_jax.predict", ["objdisc predict", "--input", "a b.png"])
    ]
    assert run(monkeypatch, "eval", "--workdir", "runs/demo") == [
        ("objdisc_jax.main", ["objdisc eval", "--mode=eval", "--workdir", "runs/demo"])
    ]


@pytest.mark.parametrize("name", command.COMMANDS)
def test_every_command_has_its_module(name):
    assert importlib.util.find_spec(f"objdisc_jax.{command.COMMANDS[name].module}")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
def test_help_lists_every_command(monkeypatch, capsys, arguments):
    assert run(monkeypatch, *arguments) == []
    text = capsys.readouterr().out
    for name, one in command.COMMANDS.items():
        assert f"    {name}" in text
        assert one.summary in text


def test_a_command_that_does_not_exist_is_an_error_that_suggests_one(monkeypatch, capsys):
    with pytest.raises(SystemExit) as raised:
        run(monkeypatch, "pedict")
    assert raised.value.code == 2
    assert "no command 'pedict' (did you mean 'predict'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train", "eval", "inspect", "features", "compare"])
def test_help_of_a_command_has_its_name_options_and_examples(name):
    done = subprocess.run(
        [sys.executable, "-m", "objdisc_jax", name, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: objdisc {name} [-h] ")
    assert f"\n    objdisc {name} " in done.stdout
    (option,) = {"compare": ["--html"]}.get(name, ["--config"])
    assert f"\n  {option} " in done.stdout
    assert not re.search(r"\.py:|--\w+_", done.stdout)


@pytest.mark.parametrize("name", command.COMMANDS)
def test_examples_of_a_command_begin_with_its_name(name):
    file = Path(importlib.util.find_spec(f"objdisc_jax.{command.COMMANDS[name].module}").origin)
    doc = ast.get_docstring(ast.parse(file.read_text()))
    assert re.search(rf"\n    (objdisc |python -m objdisc_jax\.){name} ", doc)


def test_underscores_and_hyphens_are_the_same_in_options():
    given = ["--workdir", "r", "--input", "a_b", "--output", "c"]
    given += ["--batch_size=3", "--num_workers", "2"]
    arguments = predict.parse(["predict", *given])
    assert (arguments.batch_size, arguments.num_workers) == (3, 2)
    assert str(arguments.input[0]) == "a_b"
    assert compare.parse(["compare", "runs_of_mine", "--split=my_split"]).split == "my_split"


def test_flags_of_training_take_hyphens_and_leave_config_keys_alone():
    done = subprocess.run(
        [sys.executable, "-m", "objdisc_jax", "train", "--num-processes=0"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "num_processes" in done.stderr
    assert "Unknown" not in done.stderr
