"""The entry points as a user calls them: what goes wrong is said in a paragraph."""

import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from objdisc_jax import experiment_file
from objdisc_jax.errors import ConfigError

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
    ("expected", "flag", "message"),
    [
        (2, "--config.batch_sice=4", r"no key 'batch_sice' \(did you mean 'batch_size'\?\)"),
        (2, "--config.model.num_slotz=4", r"no key 'num_slotz' \(did you mean 'num_slots'\?\)"),
        (2, "--config.batch_size=many", r"--config\.batch_size=many: invalid literal for int"),
        (1, "--config.seed=-1", r"seed: got -1; it must be at least 0"),
        (1, "--config.eval.every=0", r"eval\.every: got 0; it must be at least 1"),
        (1, "--config.data.path=missing.h5", r"missing\.h5, but there is no such file.*generate_"),
        (2, "--wrokdir=x", r"Unknown command line flag 'wrokdir'"),
        (2, "stray", r"Unknown arguments: stray"),
    ],
)
def test_wrong_flags_are_explained(config_file, tmp_path, expected, flag, message):
    workdir = tmp_path / "run"
    status, output = call("main", "--config", config_file, "--workdir", workdir, flag)
    assert status == expected
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
    assert status == 2
    assert "Name an experiment" in output


NO_CONFIGS = {
    "run.json": ('{"ema": false, "batch_size": 8}', r"run\.json' is no Python file.*--workdir RUN"),
    "run.yaml": ("a: [1, 2", r"run\.yaml' is no Python file"),
    "notes": ("Some notes.", r"notes' is no Python file"),
    "code.txt": ("raise SystemExit(7)", r"code\.txt' is no Python file"),  # not executed
    "json.py": ('{"ema": false}', r"json\.py, line 1 .*: NameError: name 'false'"),
    "prose.py": ("\nSome notes.\n", r"prose\.py, line 2 \(Some notes\.\): SyntaxError"),
    "binary.py": ("\0\1\2", r"binary\.py.*null bytes"),
    "empty.py": ("", r"empty\.py defines no function get_config"),
    "value.py": ("get_config = 3", r"value\.py defines no function get_config"),
    "none.py": ("def get_config():\n    pass", r"must return a ConfigDict .* returned None"),
    "dict.py": ("def get_config():\n    return {'a': 1}", r"but returned \{'a': 1\}"),
    "bare.py": (
        "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'a': 1})",
        r"but returned one without `model` and `data`",
    ),
    "bug.py": (
        "def inner():\n    return 1 / 0\n\ndef get_config():\n    return inner()",
        r"bug\.py, line 2 \(return 1 / 0\): ZeroDivisionError: division by zero",
    ),
    "type.py": ("def get_config():\n    return len(3)", r"type\.py, line 2 .*TypeError: object of"),
    "import.py": ("import nowhere_to_be_found", r"import\.py, line 1 .*ModuleNotFoundError"),
    "open.py": ("open('/nowhere/file')", r"open\.py, line 1 .*FileNotFoundError"),
    "key.py": (
        "from objdisc_jax.config import experiment\n\ndef get_config():\n"
        "    config = experiment(model='slot_attention', data='tetrominoes')\n"
        "    config.batch_sice = 3\n    return config\n",
        r"key\.py, line 5 \(config\.batch_sice = 3\): there is no key 'batch_sice'",
    ),
    "plain.py:argument": (
        "def get_config():\n    pass",
        r"names an argument .* is get_config\(\);",
    ),
    "asking.py": ("def get_config(size):\n    pass", r"names no argument .* get_config\(size\);"),
}


@pytest.mark.parametrize("name", NO_CONFIGS)
def test_what_is_no_config_is_explained(tmp_path, monkeypatch, name):
    content, message = NO_CONFIGS[name]
    (tmp_path / name.partition(":")[0]).write_text(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"(?s)--config: .*{message}"):
        experiment_file.load(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "is a folder"), ("demo", "there is .*demo.py"), ("x" * 300, "does not exist")],
)
def test_folder_and_name_without_suffix_are_explained(tmp_path, name, message):
    (tmp_path / "demo.py").touch()
    with pytest.raises(ConfigError, match=message):
        experiment_file.load(str(tmp_path / name))


@pytest.mark.parametrize(
    "command",
    [
        ("main",),
        ("features",),
        ("data.inspect",),
        ("convert", "from-torch", "--checkpoint", "a.pt", "--workdir", "never"),
        ("launch", "--processes", "1", "--"),
    ],
    ids=lambda command: command[0],
)
def test_every_entry_point_explains_what_is_no_config(tmp_path, command):
    content, message = NO_CONFIGS[name := "run.json" if command[0] == "features" else "bug.py"]
    (tmp_path / name).write_text(content)
    status, output = call(*command, "--config", tmp_path / name)
    assert status == 1
    assert "Traceback" not in output
    assert re.search(f"error: --config: .*{message}", output, re.DOTALL), output


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
        "import os, sys; from absl.flags import FLAGS; from objdisc_jax.cli import run;"
        "run(lambda argv: print(argv[1:], os.environ['GLIBC_TUNABLES'], sys.flags.optimize), FLAGS)"
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
