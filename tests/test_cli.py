"""The entry points as a user calls them: what goes wrong is said in a paragraph."""

import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EXPERIMENT = """
from tests.conftest import tiny_experiment

def get_config():
    return tiny_experiment({path!r})
"""


def call(module, *arguments):
    """Runs an entry point and returns its exit status and everything it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"objdisc_jax.{module}", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout


@pytest.fixture
def config_file(tmp_path, tetrominoes_file):
    file = tmp_path / "tiny.py"
    file.write_text(EXPERIMENT.format(path=str(tetrominoes_file)))
    return file


def damaged(source, file, keep):
    file.write_bytes(source.read_bytes()[:keep])
    return file


def without_key(source, file, key):
    file.write_bytes(source.read_bytes())
    with h5py.File(file, "a") as hdf5:
        del hdf5[key]
    return file


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.batch_sice=4", r"no key 'batch_sice' \(did you mean 'batch_size'\?\)"),
        ("--config.model.num_slotz=4", r"no key 'num_slotz' \(did you mean 'num_slots'\?\)"),
        ("--config.batch_size=many", r"--config\.batch_size=many: invalid literal for int"),
        ("--config.seed=-1", r"seed: got -1; it must be at least 0"),
        ("--config.eval.every=0", r"eval\.every: got 0; it must be at least 1"),
        ("--config.data.path=missing.h5", r"missing\.h5, but there is no such file.*generate_"),
        ("--wrokdir=x", r"Unknown command line flag 'wrokdir'"),
        ("stray", r"Unknown arguments: stray"),
    ],
)
def test_wrong_flags_are_explained(config_file, tmp_path, flag, message):
    workdir = tmp_path / "run"
    status, output = call("main", "--config", config_file, "--workdir", workdir, flag)
    assert status == 1
    assert "Traceback" not in output
    assert re.search(message, output, re.DOTALL), output
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda source, file: damaged(source, file, 20_000), r"bad\.h5.*(truncated|cut off)"),
        (lambda source, file: without_key(source, file, "image"), r"bad\.h5.*'image'"),
    ],
)
def test_damaged_data_is_explained(config_file, tetrominoes_file, tmp_path, damage, message):
    file = damage(tetrominoes_file, tmp_path / "bad.h5")
    status, output = call(
        "main", "--config", config_file, "--workdir", tmp_path / "run", f"--config.data.path={file}"
    )
    assert status == 1
    assert "Traceback" not in output
    assert re.search(message, output, re.DOTALL), output


def test_missing_config_is_explained(tmp_path):
    status, output = call("main", "--config", tmp_path / "nowhere.py")
    assert status == 1
    assert "Traceback" not in output
    assert "nowhere.py" in output
    status, output = call("main")
    assert status == 1
    assert "Name an experiment" in output


def test_config_of_an_unknown_model_is_explained(tmp_path):
    file = tmp_path / "strange.py"
    file.write_text(
        "from objdisc_jax.config import experiment\n"
        "def get_config():\n"
        "    return experiment(model='slot_atention', data='tetrominoes')\n"
    )
    status, output = call("main", "--config", file, "--workdir", tmp_path / "run")
    assert status == 1
    assert "did you mean 'slot_attention'" in output


@pytest.mark.skipif(
    "[madvise]" not in HUGE_PAGES.read_text() if HUGE_PAGES.exists() else True,
    reason="Linux gives huge pages always or never here",
)
@pytest.mark.parametrize("tunables", [None, "", "glibc.malloc.check=0"])
def test_memory_comes_in_huge_pages_unless_the_user_has_decided(tunables):
    program = (
        "import os, sys; from objdisc_jax.cli import run;"
        "run(lambda argv: print(argv[1:], os.environ['GLIBC_TUNABLES'], sys.flags.optimize))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    if tunables is not None:
        environment["GLIBC_TUNABLES"] = tunables
    done = subprocess.run(
        [sys.executable, "-O", "-c", program, "a b", "c"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = "glibc.malloc.hugetlb=1" if tunables is None else tunables
    assert done.stdout.splitlines()[-1] == f"['a b', 'c'] {expected} 1"
