"""Imports run one way (nn < models < evaluation < training < entry points); data has no JAX."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "objdisc_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

# What each part may import from this project besides itself. Parts not listed are leaves that
# everyone may import.
LEAVES = {
    "errors",
    "experiment_file",
    "files",
    "hub",
    "names",
    "pretrained",
    "progress",
    "registry",
    "run_files",
    "segmentation",
    "settings",
    "__init__",
}
ALLOWED = {
    **{leaf: set() for leaf in LEAVES},
    "__init__": {"api", "config", "data", "models", "training"},  # the public face, imported lazily
    "cli": set(),
    "compiling": set(),
    "local_devices": set(),
    "sharding": set(),
    "nn": set(),
    "metrics": set(),
    "render": {"cli"},
    "visualize": set(),
    "data": set(),
    "models": {"nn"},
    "interop": {"models"},
    "config": {"models", "data"},
    "preprocessing": {"models"},
    "evaluation": {
        "models",
        "metrics",
        "data",
        "visualize",
        "sharding",
        "preprocessing",
        "compiling",
    },
    "training": {
        "models",
        "data",
        "config",
        "local_devices",
        "sharding",
        "preprocessing",
        "evaluation",
        "visualize",
        "compiling",
    },
    "testing": {"models", "data", "config", "preprocessing"},
    "launch": {"cli", "local_devices"},
    "main": {"training", "cli"},
    "__main__": {"cli"},
    "prediction": {
        "models",
        "config",
        "data",
        "sharding",
        "preprocessing",
        "evaluation",
        "training",
        "visualize",
        "compiling",
    },
    "api": {
        "prediction",
        "models",
        "data",
        "preprocessing",
        "training",
        "visualize",
        "compiling",
    },
    "predict": {"prediction", "models", "config", "data", "cli"},
    "data/inspect": {"data", "visualize", "cli", "config"},
    "features": {
        "models",
        "data",
        "config",
        "sharding",
        "preprocessing",
        "evaluation",
        "training",
        "cli",
    },
    "exploration": {"api", "models", "data", "visualize"},
    "explore": {"exploration", "cli"},
    "comparison": {"config", "visualize"},
    "compare": {"comparison", "cli"},
    "convert": {"training", "models", "config", "cli", "interop", "sharding"},
}
NO_JAX = ("data", "data/inspect", "config", "settings", "registry")
TORCH_ONLY_IN = ("data", "interop")


def imports(file):
    """Names of the modules that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(file):
    name = str(file.relative_to(PACKAGE).with_suffix(""))
    return name if name in ALLOWED else name.split("/")[0]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_run_one_way(file):
    part = part_of(file)
    allowed = ALLOWED[part] | LEAVES | {part}
    for name in imports(file):
        if not name.startswith("objdisc_jax."):
            continue
        target = name.split(".")[1]
        assert target == "__version__" or target in allowed, f"{file.name} may not import {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_frameworks_stay_where_they_belong(file):
    part = part_of(file)
    roots = {name.split(".")[0] for name in imports(file)}
    if part in NO_JAX:
        assert not roots & {"jax", "flax", "optax", "clu"}
    assert not any(name.startswith("jax._src") for name in imports(file))
    if part not in TORCH_ONLY_IN:
        assert "torch" not in roots
    if file != PACKAGE / "training" / "checkpoint.py":
        assert "orbax" not in roots
    if file != PACKAGE / "training" / "writers.py":
        assert not any(name.startswith("clu.metric_writers") for name in imports(file))
    assert "tensorflow" not in roots


ENTRY_POINTS = [
    str(file.relative_to(PACKAGE).with_suffix("")).replace("/", ".")
    for file in FILES
    if '__name__ == "__main__"' in file.read_text()
]


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_entry_points_import_no_jax_at_module_level(name):
    # Data-loading workers import the entry point again and must not start a second JAX.
    module = ast.parse((PACKAGE / f"{name.replace('.', '/')}.py").read_text())
    top = {alias.name for n in module.body if isinstance(n, ast.Import) for alias in n.names}
    top |= {n.module or "" for n in module.body if isinstance(n, ast.ImportFrom)}
    starts_jax = ("jax", "flax", "optax", "objdisc_jax.training", "objdisc_jax.models.")
    assert not [m for m in top if m.startswith(starts_jax)]


def test_entry_points_start_without_jax():
    modules = ", ".join(f"objdisc_jax.{name}" for name in ENTRY_POINTS)
    code = f"import sys, {modules}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_part_has_its_rule():
    assert {part_of(file) for file in FILES} <= ALLOWED.keys()
