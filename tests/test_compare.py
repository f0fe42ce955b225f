"""Runs beside each other: groups of seeds, what does not count, the files written."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from objdisc_jax import compare
from objdisc_jax import config as configs
from objdisc_jax.comparison import runs
from objdisc_jax.errors import UserError


def write_run(folder, *, seed, fg_ari, steps=100, reached=100, slots=4, scored_at=None):
    """A run directory as training and evaluation leave it."""
    config = configs.experiment(model="slot_attention", data="tetrominoes")
    config.seed, config.num_train_steps, config.model.num_slots = seed, steps, slots
    folder.mkdir(parents=True)
    configs.save(config, folder)
    lines = [
        {"step": step, "seconds": 2.0 * step, "train/loss": 1 / step, "val/fg_ari": step / steps}
        for step in range(10, reached + 1, 10)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "environment.json").write_text(json.dumps({"device": "cpu", "num_devices": 2}))
    if fg_ari is not None:
        scores = {"fg_ari": fg_ari, "mse": 0.5, "num_images": 320, "data": "tetrominoes"}
        scores |= {"step": scored_at or reached, "differs_from_training": {}}
        (folder / "eval_test.json").write_text(json.dumps(scores))
    (folder / "visualizations").mkdir()
    pixels = np.full((20, 30, 3), 40 * seed, np.uint8)
    Image.fromarray(pixels).save(folder / "visualizations" / "test.png")
    return folder


@pytest.fixture
def folders(tmp_path):
    return [
        write_run(tmp_path / "four_seed0", seed=0, fg_ari=0.9),
        write_run(tmp_path / "five", seed=0, fg_ari=0.5, slots=5),
        write_run(tmp_path / "four_seed1", seed=1, fg_ari=0.8),
        write_run(tmp_path / "four_seed2", seed=2, fg_ari=0.1, reached=40),
        write_run(tmp_path / "four_seed3", seed=3, fg_ari=None),
        write_run(tmp_path / "four_seed4", seed=4, fg_ari=0.2, scored_at=50),
    ]


def command(*arguments):
    compare.main(compare.parse(["compare", *map(str, arguments)]))


def test_runs_that_differ_in_the_seed_alone_are_a_group(folders):
    four, five = runs.group(runs.read(folder, "test") for folder in folders)
    assert [run.config.seed for run in four.runs] == [0, 1, 2, 3, 4]
    assert (four.name, five.name) == ("four", "five")
    assert runs.differences([four, five]) == {"model.num_slots": [4, 5]}


def test_mean_and_spread_are_those_of_the_runs_that_count(folders):
    four, five = runs.group(runs.read(folder, "test") for folder in folders)
    assert str(four.summary("fg_ari")) == "0.8500 ± 0.0707"
    assert str(five.summary("fg_ari")) == "0.5000"
    assert [run.config.seed for run in four.counted] == [0, 1]


def test_what_does_not_count_is_named_with_its_reason(folders, capsys):
    command(*folders)
    text = capsys.readouterr().out
    assert re.search(r"^four +2 of 5 +0, 1, 2, 3, 4 +100 +03:20 +2 x cpu +0\.8500 ±", text, re.M)
    for name, reason in (
        ("four_seed2", "stopped at step 40 of 100"),
        ("four_seed3", r"not scored on test \(objdisc eval --split test --workdir \.\.\.\)"),
        ("four_seed4", "scored at step 50, trained to step 100"),
    ):
        assert re.search(rf"{name} does not count: {reason}\.", text)


def test_a_run_counts_once_however_often_it_lies_there(folders, tmp_path, capsys):
    write_run(tmp_path / "copy", seed=1, fg_ari=0.8)
    command(folders[0], folders[2], tmp_path / "copy", "--metrics", "fg_ari, mse")
    text = capsys.readouterr().out
    assert re.search(r"2 of 3 +0, 1, 1 .* 0\.8500 ± 0\.0707 ", text)
    assert re.search(r"copy does not count: .*four_seed1 has the same seed\.", text)


def test_what_was_not_trained_here_is_told(folders, tmp_path, capsys):
    configs.save(configs.load(folders[0]), tmp_path / "bare")
    command(tmp_path / "bare")
    assert "bare does not count: not trained here: there is no metrics.jsonl." in (
        capsys.readouterr().out
    )


def test_csv_has_a_line_for_every_run(folders, tmp_path, capsys):
    command(*folders, "--csv", tmp_path / "out" / "runs.csv")
    with (tmp_path / "out" / "runs.csv").open() as file:
        lines = {line["run"]: line for line in csv.DictReader(file)}
    assert len(lines) == len(folders)
    first = lines[str(folders[0])]
    assert (first["group"], first["seed"], first["fg_ari"]) == ("four", "0", "0.9")
    assert lines[str(folders[3])]["problem"] == "stopped at step 40 of 100"


def test_the_report_stands_alone(folders, tmp_path, capsys):
    command(*folders, "--html", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "model.num_slots" in page
    assert "0.8500 ± 0.0707" in page
    assert page.count("<figure>") == 4  # three of the group of five, one of the other
    assert "<svg" in page


def test_a_name_is_text_in_the_report(tmp_path, capsys):
    folder = write_run(tmp_path / "<b>bold</b>", seed=0, fg_ari=0.5)
    command(folder, "--html", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;bold" in page


def test_bad_input_is_told(folders, tmp_path, capsys):
    with pytest.raises(UserError, match="holds no run"):
        command(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"--metrics: no run has 'ari'; there are fg_ari, mse"):
        command(*folders, "--metrics", "fg_ari,ari")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        command(*folders, "--csv", tmp_path / "file" / "runs.csv")
    (folders[0] / "eval_test.json").write_text("{")
    with pytest.raises(UserError, match=r"eval_test\.json cannot be read"):
        command(*folders)
