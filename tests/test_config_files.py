"""Errors in a config file itself: one message, whichever entry point reads it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IN_GET_CONFIG = """
from objdisc_jax.errors import ConfigError
def get_config():
    raise ConfigError("model: there is no such thing. Choose another.")
"""
AT_IMPORT = """
from objdisc_jax.errors import ConfigError
raise ConfigError("model: there is no such thing. Choose another.")
"""
# Both ways of setting a key; what was meant is suggested.
ATTRIBUTE = """
from ml_collections import ConfigDict
def get_config():
    config = ConfigDict({"batch_size": 8, "model": {"num_slots": 4}}).lock()
    config.model.num_slotz = 5
    return config
"""
ITEM = ATTRIBUTE.replace("config.model.num_slotz = 5", "config['batch_sice'] = 5")
ABSENT = ATTRIBUTE.replace("config.model.num_slotz = 5", "config.batch_size = config.nothing_alike")
BROKEN = "def get_config():\n    return [].nothing\n"
ENTRY_POINTS = {
    "main": [],
    "data.inspect": [],
    "convert": ["from-torch", "--checkpoint", "a.pt", "--workdir", "run"],
}


def _call(entry_point, folder, content):
    """Runs an entry point with a config file; its exit status and what it said."""
    (folder / "own.py").write_text(content)
    arguments = [*ENTRY_POINTS[entry_point], "--config", "own.py"]
    done = subprocess.run(
        [sys.executable, "-m", f"objdisc_jax.{entry_point}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize("content", [IN_GET_CONFIG, AT_IMPORT], ids=["in get_config", "at import"])
def test_config_error_is_one_message(tmp_path, entry_point, content):
    status, said = _call(entry_point, tmp_path, content)
    assert status == 1
    assert said == "error: model: there is no such thing. Choose another.\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ATTRIBUTE, "there is no key 'num_slotz' (did you mean 'num_slots'?). The keys are"),
        (ITEM, "there is no key 'batch_sice' (did you mean 'batch_size'?). The keys are"),
        (ABSENT, "there is no key 'nothing_alike'. The keys are"),
    ],
    ids=["attribute", "item", "absent"],
)
@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_unknown_key_in_a_config_file_is_named(tmp_path, entry_point, content, message):
    status, said = _call(entry_point, tmp_path, content)
    assert status == 1
    assert message in said
    assert "objdisc_jax/models/NAME/settings.py" in said
    assert "Traceback" not in said


def test_other_mistakes_in_a_config_file_are_told_with_their_line(tmp_path):
    status, said = _call("main", tmp_path, BROKEN)
    assert status == 1
    assert "own.py, line 2 (return [].nothing)" in said
    assert "Traceback" not in said
    assert "'list' object has no attribute 'nothing'" in said
