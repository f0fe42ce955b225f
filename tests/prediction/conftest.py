"""A run, and images for it."""

import pytest
from PIL import Image

from objdisc_jax.data.synthetic import tetrominoes
from objdisc_jax.training import loop
from tests.conftest import tiny_experiment
from tests.prediction.running import ALL, contents, run
from tests.training.test_train import changed


@pytest.fixture(scope="session")
def workdir(tmp_path_factory, tetrominoes_file):
    folder = tmp_path_factory.mktemp("run")
    loop.train(changed(tiny_experiment(tetrominoes_file), num_train_steps=4), folder)
    return folder


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    scenes = tetrominoes.generate(0, 0, 3)["image"]
    Image.fromarray(scenes[0]).save(folder / "a.png")
    Image.fromarray(scenes[1]).resize((120, 70)).save(folder / "wide.jpg")
    Image.fromarray(scenes[2]).convert("RGBA").save(folder / "sub" / "alpha.png")
    return folder


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """Images of two sizes, one that the model resizes itself and one that is resized for it."""
    folder = tmp_path_factory.mktemp("many")
    for i, scene in enumerate(tetrominoes.generate(1, 0, 70)["image"]):
        image = Image.fromarray(scene)
        if i % 3 == 0:
            image = image.resize((70, 50))
        image.save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def expected(workdir, many, tmp_path_factory):
    run(workdir, many, tmp_path_factory.getbasetemp() / "expected", *ALL, "--num-workers", 0)
    return contents(tmp_path_factory.getbasetemp() / "expected")
