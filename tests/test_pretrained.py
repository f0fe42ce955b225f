"""Pretrained models: made of a run, found by name, used wherever a run is."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from objdisc_jax import config as configs
from objdisc_jax import convert, hub, predict, pretrained, sharding
from objdisc_jax.errors import UserError
from objdisc_jax.names import flatten
from objdisc_jax.training import evaluate, loop, publishing, run_dir
from tests.conftest import tiny_experiment
from tests.training.test_train import changed

ROOT = Path(convert.__file__).parent.parent
COMMAND = "python data_scripts/generate_tetrominoes.py"
PLACE = sharding.replicated(sharding.data_mesh(jax.devices()[:1]))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, tetrominoes_file):
    folder = tmp_path_factory.mktemp("run")
    loop.train(changed(tiny_experiment(tetrominoes_file), num_train_steps=4), folder)
    evaluate.evaluate(folder)
    return folder


@pytest.fixture(scope="module")
def folder(workdir):
    folder = workdir.parent / "published" / "tiny"
    publishing.publish(workdir, folder, limits="Photographs.", data_command=COMMAND)
    return folder


def params(folder):
    return flatten(jax.device_get(run_dir.load_trained(folder, PLACE).params))


def test_a_published_model_is_that_of_the_run(workdir, folder):
    published, trained = params(folder), params(workdir)
    assert published.keys() == trained.keys()
    for name, value in trained.items():
        np.testing.assert_array_equal(published[name], value, err_msg=name)
    assert run_dir.load_trained(folder, PLACE).step == 4
    path = "data/tetrominoes.h5"  # no word of where the run's data lie
    expected = changed(configs.load(workdir), **{"data.path": path})
    assert configs.load(folder) == expected


def test_card_and_scores_tell_what_was_measured(workdir, folder):
    measured = json.loads((workdir / "eval_test.json").read_text())
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["scores"]["fg_ari"] == pytest.approx(measured["fg_ari"], abs=1e-4)
    assert scores["num_images"] == measured["num_images"]
    assert scores["data"]["command"] == COMMAND
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: objdisc_jax\n")
    assert f"| fg_ari | {scores['scores']['fg_ari']} |" in card
    assert COMMAND in card
    assert "Photographs." in card


def test_prediction_and_scores_are_those_of_the_run(workdir, folder, tmp_path):
    images = ROOT / "docs" / "demo.png"
    found = {}
    for option, value in (("--workdir", workdir), ("--pretrained", folder)):
        out = tmp_path / option.strip("-")
        arguments = ["predict", option, value, "--input", images, "--output", out]
        predict.main(predict.parse([str(argument) for argument in arguments]))
        found[option] = (out / "demo_labels.png").read_bytes()
    assert found["--workdir"] == found["--pretrained"]
    config = configs.load(workdir)
    scores = evaluate.evaluate(folder, config=config, output=tmp_path / "scores")
    measured = json.loads((workdir / "eval_test.json").read_text())
    assert scores.means["fg_ari"] == measured["fg_ari"]
    assert (tmp_path / "scores" / "eval_test.json").is_file()
    assert not (folder / "eval_test.json").exists()
    with pytest.raises(UserError, match=r"is no run directory\. Name a folder for the scores"):
        evaluate.evaluate(str(folder))


def test_torch_weights_are_those_of_the_run(workdir, folder, tmp_path):
    files = [tmp_path / name for name in ("run.safetensors", "published.safetensors")]
    for file, source in zip(files, (workdir, folder), strict=True):
        convert.to_torch(source, file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_training_begins_with_its_parameters(folder, tmp_path, tetrominoes_file):
    config = changed(tiny_experiment(tetrominoes_file), num_train_steps=1)
    config.optimizer.learning_rate = 0.0
    with config.unlocked():
        config.pretrained = str(folder)
    loop.train(config, tmp_path)
    begun, published = params(tmp_path), params(folder)
    for name, value in published.items():
        np.testing.assert_array_equal(begun[name], value, err_msg=name)
    assert run_dir.load_trained(tmp_path, PLACE).step == 1


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("sa_clever6", ("'sa_clever6'", "run directory", *pretrained.names())),
        ("no/such/folder", ("'no/such/folder'", "model.safetensors")),
    ],
)
def test_a_name_that_does_not_exist_is_an_error_that_lists_those_there_are(source, parts):
    with pytest.raises(UserError) as raised:
        pretrained.find(source)
    for part in parts:
        assert part in str(raised.value)


def test_a_run_named_as_pretrained_is_told_from_one_that_is_missing(workdir):
    with pytest.raises(UserError, match="seems to be a run directory: name it with --workdir"):
        pretrained.find(str(workdir))
    assert pretrained.locate(str(workdir)) == workdir


def test_a_repository_is_downloaded(monkeypatch, folder):
    asked = []

    def download(repository, file):
        asked.append((repository, file))
        if not (folder / file).exists():
            raise hub.HubError("there is none")
        return folder / file

    monkeypatch.setattr(hub, "download", download)
    assert pretrained.find("someone/model") == folder
    assert ("someone/model", "config.json") in asked
    assert ("someone/model", "model.safetensors") in asked


def test_a_repository_that_cannot_be_had_is_an_error(monkeypatch):
    def download(repository, file):
        raise hub.HubError("from the Hugging Face Hub it cannot be had (offline)")

    monkeypatch.setattr(hub, "download", download)
    with pytest.raises(UserError, match=r"someone/model.*offline"):
        pretrained.find("someone/model")


def test_another_config_or_step_is_refused(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "model.safetensors"):
        (other / name).write_bytes((folder / name).read_bytes())
    config = json.loads((other / "config.json").read_text())
    config["model"]["slot_size"] *= 2
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"decoder.slot_layer.kernel: has shape"):
        run_dir.load_trained(other, PLACE)
    with pytest.raises(UserError, match=r"step 4 alone"):
        run_dir.load_trained(folder, PLACE, which="3")
    (other / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read"):
        run_dir.load_trained(other, PLACE)


def test_a_run_without_its_scores_and_a_folder_that_exists_are_refused(workdir, tmp_path):
    def publish(workdir, output):
        publishing.publish(workdir, output, limits="", data_command="")

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UserError, match="exists already"):
        publish(workdir, tmp_path / "mine")
    scores = workdir / "eval_test.json"
    content = scores.read_text()
    try:
        scores.write_text(content.replace('"step": 4', '"step": 3'))
        with pytest.raises(UserError, match=r"of step 3, not 4.*objdisc eval"):
            publish(workdir, tmp_path / "new")
        other = {"data.path": "'a' -> 'b'", "background.mode": "'none' -> 'contrast'"}
        scores.write_text(json.dumps(json.loads(content) | {"differs_from_training": other}))
        with pytest.raises(UserError, match=r"other settings .*\(background\.mode: 'none' -> 'con"):
            publish(workdir, tmp_path / "new")
        scores.unlink()
        with pytest.raises(UserError, match=r"is missing.*objdisc eval"):
            publish(workdir, tmp_path / "new")
    finally:
        scores.write_text(content)
    assert not (tmp_path / "new").exists()


def test_seeds_differ_in_the_seed_alone(workdir, tmp_path):
    def publish(*others):
        publishing.publish(workdir, tmp_path / "new", limits="", data_command="", others=others)

    config = configs.load(workdir)
    for name, change in {
        "same": {},
        "other": {"seed": 5, "optimizer.learning_rate": 1.0},
        "seed": {"seed": 5, "data.path": "elsewhere.h5"},
    }.items():
        (tmp_path / name).mkdir()
        configs.save(changed(config, **change), tmp_path / name)
        (tmp_path / name / "eval_test.json").write_bytes((workdir / "eval_test.json").read_bytes())
    with pytest.raises(UserError, match=r"same is no other seed .*its seed is the same"):
        publish(tmp_path / "same")
    with pytest.raises(UserError, match=r"other is no other seed .*learning_rate: 0\.001"):
        publish(tmp_path / "other")
    publish(tmp_path / "seed")
    assert " seed 5 |" in (tmp_path / "new" / "README.md").read_text()


def test_folders_of_the_author_are_not_published(workdir, folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(workdir, run)
    config = configs.load(run)
    with config.unlocked():
        config.pretrained = str(folder)
    configs.save(config, run)
    publishing.publish(run, tmp_path / "new", limits="", data_command="")
    assert configs.load(tmp_path / "new").pretrained == folder.name
    assert (
        f"begun with the parameters of `{folder.name}`"
        in (tmp_path / "new" / "README.md").read_text()
    )


def test_scores_of_a_pretrained_model_do_not_replace_those_of_a_run(workdir, folder, tmp_path):
    config, scores = configs.load(workdir), (workdir / "eval_test.json").read_bytes()
    with pytest.raises(UserError, match=r"holds a run, whose scores .* would replace"):
        evaluate.evaluate(folder, config=config, output=workdir)
    assert (workdir / "eval_test.json").read_bytes() == scores
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tetrominoes.h5").symlink_to(config.data.path)
    command = [sys.executable, "-m", "objdisc_jax.main", "--mode=eval", f"--pretrained={folder}"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "runs" / "pretrained" / folder.name / "eval_test.json").is_file()


@pytest.mark.parametrize("name", pretrained.names())
def test_what_comes_along_is_small_and_complete(name):
    folder = pretrained.find(name)
    assert {file.name for file in folder.iterdir()} >= {"config.json", "scores.json", "README.md"}
    assert (folder / pretrained.WEIGHTS).stat().st_size <= 3e6
    assert f"--pretrained {name}" in (folder / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", pretrained.names())
def test_what_comes_along_scores_what_its_card_says(name, tmp_path):
    sys.path.append(str(ROOT / "docs"))
    import gallery

    card = json.loads((pretrained.find(name) / "scores.json").read_text())
    scores = gallery.score(name, tmp_path, num_images=192, seed=1234)
    assert scores.num_images >= 128
    for metric in ("fg_ari", "ari", "miou"):
        assert abs(scores.means[metric] - card["scores"][metric]) <= 0.03, metric
