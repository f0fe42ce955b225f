"""The persistent compilation cache, each time in a fresh process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "docs/samples"
CODE = """
import sys
import jax, jax.numpy as jnp
from objdisc_jax.config import experiment
from objdisc_jax.training import compilation

config = experiment(model="slot_attention", data="tetrominoes")
config.compilation_cache = sys.argv[1] == "True"
compilation.MIN_SECONDS = 0.0
jax.jit(jnp.cos)(1.0)  # JAX has compiled before
compilation.use_cache(config)
jax.monitoring.register_event_listener(lambda name, **_: print(name))
jax.jit(lambda x: jnp.sort(x) * 2)(jnp.arange(9.0))
"""
HIT = "/jax/compilation_cache/cache_hits"


def compile_in(folder, *, enabled=True, code=CODE, **environment):
    """What JAX said when it compiled, and the files in the folder afterwards."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(enabled)],
        env={**inherited, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split(), {path for path in folder.rglob("*-cache")}


def test_second_start_does_not_compile(tmp_path):
    first, files = compile_in(tmp_path)
    second, same_files = compile_in(tmp_path)
    assert HIT not in first
    assert HIT in second
    assert files == same_files
    assert all("objdisc_jax/compiled" in str(file) for file in files)


def test_cache_can_be_switched_off(tmp_path):
    assert compile_in(tmp_path, enabled=False)[1] == set()


NO_LOCKS = """
import errno, fcntl

def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")

fcntl.flock = flock
"""


def test_folder_that_cannot_be_locked_is_not_used(tmp_path):
    # JAX would fail to lock it, and warn, with every program that it compiles.
    assert compile_in(tmp_path, code=NO_LOCKS + CODE)[1] == set()


def test_a_folder_that_jax_was_told_is_left_to_it(tmp_path):
    theirs = tmp_path / "theirs"
    options = {
        "JAX_COMPILATION_CACHE_DIR": str(theirs),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    _, files = compile_in(tmp_path, **options)
    assert files
    assert all(theirs in file.parents for file in files)


@pytest.mark.slow
def test_second_predict_compiles_nothing(tmp_path):
    command = [sys.executable, "-m", "objdisc_jax.predict", "--pretrained", "sa_clevr6_cpu"]
    command += ["--input", str(SAMPLES), "--output", str(tmp_path / "out")]
    compiled = tmp_path / "compiled"
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # however quick this machine is
    }
    subprocess.run(command, env=environment, check=True)
    first = set(compiled.glob("*-cache"))
    assert first
    subprocess.run(command, env=environment, check=True)
    assert set(compiled.glob("*-cache")) == first
