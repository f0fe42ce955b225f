"""How far long work has come, on a terminal and elsewhere."""

import io
import sys

from objdisc_jax import cli, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_there_is_a_bar_that_goes(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress.Progress(3, "steps", "training", begun=1) as told:
        told.update(5)  # a batch that is padded
        assert "training" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")
    assert not caplog.text


def test_lines_of_the_log_have_lines_of_their_own(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress.Progress(3, "steps"):
        stream = cli._BesideBars()
        stream.write("a line\n")
        assert "\ra line\n" in terminal.getvalue()


def test_elsewhere_there_are_lines(caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    with progress.Progress(9, "images", "scoring test") as told:
        told.update(4)
    assert "scoring test: 4 of 9 images, " in caplog.text
    caplog.clear()
    for options in ({"has_lines": False}, {"is_shown": False}):
        with progress.Progress(9, "steps", **options) as told:
            told.update(4)
    assert not caplog.text
