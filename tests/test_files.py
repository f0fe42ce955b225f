"""Files and folders that appear whole, and locks."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from objdisc_jax import files

HOLD = """
import sys
from pathlib import Path
from objdisc_jax import files
with files.locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def _fill(partial, kind):
    if kind == "file":
        partial.write_text("new")
    else:
        partial.mkdir()
        (partial / "a").write_text("new")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_replacement_appears_at_the_end(tmp_path, kind):
    path = tmp_path / "new folder" / "thing"
    with files.replacing(path, durable=kind == "file") as partial:
        _fill(partial, kind)
        assert not path.exists()
    assert [*path.parent.iterdir()] == [path]
    assert (path if kind == "file" else path / "a").read_text() == "new"


def test_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    """255 bytes; two files that differ in the last are made at the same time."""
    paths = [tmp_path / ("\u00e4" * 127 + end) for end in "xy"]
    with files.replacing(paths[0]) as first, files.replacing(paths[1]) as second:
        for partial in (first, second):
            assert partial.name.startswith(".")
            partial.write_text("new" if partial == first else "other")
    assert [path.read_text() for path in paths] == ["new", "other"]
    assert sorted(tmp_path.iterdir()) == paths


def test_folder_replaces_an_empty_one(tmp_path):
    (tmp_path / "thing").mkdir()
    with files.replacing(tmp_path / "thing") as partial:
        _fill(partial, "folder")
    assert (tmp_path / "thing" / "a").read_text() == "new"


def test_folder_that_holds_something_is_kept(tmp_path):
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / "old").touch()
    with pytest.raises(OSError, match="not empty"), files.replacing(tmp_path / "thing") as partial:
        _fill(partial, "folder")
    assert [*tmp_path.rglob("*")] == [tmp_path / "thing", tmp_path / "thing" / "old"]


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_error_removes_what_was_made_and_keeps_what_was_there(tmp_path, kind, error):
    (tmp_path / "thing").write_text("old")

    def fail():
        with files.replacing(tmp_path / "thing") as partial:
            _fill(partial, kind)
            raise error

    with pytest.raises(error):
        fail()
    assert [*tmp_path.iterdir()] == [tmp_path / "thing"]
    assert (tmp_path / "thing").read_text() == "old"


def test_what_a_killed_process_left_is_removed(tmp_path):
    partial = tmp_path / "partial"
    _fill(partial, "folder")
    with files.replacing(tmp_path / "thing", partial=partial):
        partial.write_text("new")
    assert (tmp_path / "thing").read_text() == "new"
    assert [*tmp_path.iterdir()] == [tmp_path / "thing"]


def test_lock_of_another_process_says_which_holds_it(tmp_path):
    lock = tmp_path / "new folder" / ".lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(files.InUse) as error, files.locked(lock):
            pass
        assert str(error.value).startswith(f"process {holder.pid} on ")
        holder.stdin.close()
    with files.locked(lock, remove_after=True):
        assert lock.exists()
    assert not lock.exists()


def test_lock_is_released_by_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), files.locked(tmp_path / ".lock"):
            raise KeyError


def test_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError("No locks available")

    monkeypatch.setattr(files.fcntl, "flock", unsupported)
    with files.locked(tmp_path / ".lock"):
        pass
    assert "cannot be locked" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_system_without_locks_hinders_nobody(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    assert files.has_locks(tmp_path)
    monkeypatch.setattr(fcntl, "flock", flock)
    assert not files.has_locks(tmp_path)
    with files.locked(tmp_path / ".lock", remove_after=True):
        pass
    assert not [*tmp_path.iterdir()]


def test_locks_of_a_folder_that_cannot_be_written_are_known():
    assert files.has_locks(Path("/proc/self"))
