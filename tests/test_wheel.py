"""What pip installs: the command, the pretrained models, the Python interface."""

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
USE = """
import sys
import objdisc_jax as od
assert od.__file__.startswith(sys.prefix), od.__file__
result = od.load("sa_clevr6_cpu").segment(sys.argv[1])
assert result.segmentation.shape == (192, 192)
assert 3 <= len(set(result.segmentation.ravel().tolist())) <= 8
"""


def pins(file):
    """Versions by package that a file of requirements states."""
    found = re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)", (ROOT / file).read_text(), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in found}


def test_there_is_one_list_of_pins():
    tested = pins("constraints.txt")
    installed = pins("requirements.txt")
    assert installed.items() - tested.items() == set()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w-]+", line)[0].lower() for line in project["dependencies"]}
    assert needed == installed.keys()


@pytest.mark.slow
def test_the_wheel_is_complete(tmp_path):
    source, environment = tmp_path / "source", tmp_path / "environment"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "objdisc_jax", source / "objdisc_jax")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([*pip, *built, str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 20e6

    # An environment with what the package depends on, but not the package itself.
    venv.create(environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python, sample = environment / "bin" / "python", ROOT / "docs" / "samples" / "clevr_1.jpg"
    install = ["--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, *install], check=True)
    subprocess.run([python, "-c", USE, sample], check=True, cwd=tmp_path)
    predict = ["predict", "--pretrained", "sa_clevr6_cpu", "--input", sample, "--output", "out"]
    subprocess.run([environment / "bin" / "objdisc", *predict], check=True, cwd=tmp_path)
    assert (tmp_path / "out" / "clevr_1_overlay.png").is_file()
