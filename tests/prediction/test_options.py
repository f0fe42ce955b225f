"""What the command line asks of a model: background, crop, slots, backbone."""

import numpy as np
import pytest
from PIL import Image

import objdisc_jax
from objdisc_jax import features, segmentation
from objdisc_jax.data.synthetic import tetrominoes
from objdisc_jax.errors import UserError
from objdisc_jax.training import loop
from tests.backbones import write_tiny
from tests.conftest import small_config, tiny_experiment
from tests.prediction.running import ALL, contents, labels, run
from tests.training.test_train import changed


def test_background_modes_and_crops_reach_the_result(workdir, images, tmp_path):
    run(workdir, images / "a.png", tmp_path / "none", "--background", "none")
    assert labels(tmp_path / "none" / "a_labels.png").min() >= 1
    run(
        workdir,
        images / "a.png",
        tmp_path / "spread",
        *("--background", "low_confidence", "--threshold", 1.0, "--crop", "5,35,0,30", *ALL),
    )
    assert not labels(tmp_path / "spread" / "a_labels.png").any()
    with np.load(tmp_path / "spread" / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["crop"], [5, 35, 0, 30])
    run(workdir, images / "wide.jpg", tmp_path / "whole", "--crop", "none", *ALL)
    with np.load(tmp_path / "whole" / "wide.npz") as arrays:
        np.testing.assert_array_equal(arrays["crop"], [0, 70, 0, 120])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--crop", "1,2,3"), r"--crop: got '1,2,3'; allowed are"),
        (("--crop", "9,2,0,5"), r"crop: got \(9, 2, 0, 5\).* 0 <= top < bottom"),
        (("--threshold", "7"), r"--threshold: got 7\.0"),
        (("--batch-size", "0"), r"--batch-size: got 0"),
        (("--step", "worst"), r"no checkpoint 'worst'"),
        (("--matte", "1,2"), r"--matte: got '1,2'; it is red, green and blue, from 0 to 255"),
        (("--matte", "1,2,256"), r"--matte: got '1,2,256'"),
        (
            ("--save", "labels,masks"),
            r"--save: got 'masks'.*; allowed are labels, overlay, pan",
        ),
        (("--process-index", 2, "--process-count", 2), r"--process-index: got 2 .*from 0 to 1"),
    ],
)
def test_wrong_arguments_are_explained(workdir, images, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        run(workdir, images, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def spectral(tmp_path_factory, tetrominoes_file):
    """A run of a model on features of patches, which were stored for its training, and these."""
    folder = tmp_path_factory.mktemp("spectral")
    config = small_config("spectral")
    config.data.update(path=str(tetrominoes_file), num_workers=0)
    config.data.features = str(folder / "features.h5")
    config.model.update(weights=str(write_tiny(folder / "tiny.safetensors")), cached=True)
    config.update(batch_size=8, num_train_steps=1)
    features.write(config)
    loop.train(config, folder / "run")
    return folder


def test_photographs_are_seen_whole_and_divided_smoothly(spectral, tmp_path):
    image = np.zeros((300, 480, 3), np.uint8)
    image[90:210, 160:] = (255, 200, 0)
    Image.fromarray(image).save(tmp_path / "wide.png")
    more = ("--save", "labels,npz", "--background", "none")
    run(spectral / "run", tmp_path / "wide.png", tmp_path / "out", *more)
    found = labels(tmp_path / "out" / "wide_labels.png")
    assert found.shape == (300, 480)
    stored = np.load(tmp_path / "out" / "wide.npz")
    assert stored["crop"].tolist() == [0, 300, 0, 480]
    expected = segmentation.segment_enlarged(stored["masks"], (300, 480))
    np.testing.assert_array_equal(found, expected)
    # 24 pixels to 480: the borders of copied pixels would all lie at multiples of 20.
    borders = np.flatnonzero((found[:, 1:] != found[:, :-1]).any(0)) + 1
    assert len(borders)
    assert (borders % 20).any()


def test_number_of_slots_may_be_another_than_in_training(spectral, workdir, images, tmp_path):
    for run_directory, most in ((spectral / "run", 3), (workdir, 3)):
        for asked in (None, 2):
            more = () if asked is None else ("--num-slots", asked)
            output = tmp_path / f"{most}{asked}{run_directory.name}"
            run(run_directory, images, output, "--save", "npz", *more)
            assert len(np.load(output / "a.npz")["masks"]) == (asked or most)


def test_few_photographs_are_divided_as_among_many(spectral, tmp_path):
    (tmp_path / "in").mkdir()
    for i, scene in enumerate(tetrominoes.generate(5, 0, 40)["image"]):
        Image.fromarray(scene).save(tmp_path / "in" / f"{i:02}.png")
    outputs = {size: tmp_path / f"by_{size}" for size in (1, 32)}
    for size, output in outputs.items():
        more = ("--save", "npz", "--batch-size", size)
        run(spectral / "run", tmp_path / "in", output, *more)
    assert contents(outputs[1]) == contents(outputs[32])


def test_photographs_keep_their_aspect_ratio(spectral, scenes_of_many_shapes, tmp_path):
    inputs, output = scenes_of_many_shapes, tmp_path / "out"
    run(spectral / "run", inputs, output, "--save", "npz,panel,labels", "--keep-aspect")
    # Patches of 4x4 pixels, at most 36 of them: 6x6 in training.
    expected = {"square": (24, 24), "wide": (16, 36), "high": (36, 16), "strip": (4, 144)}
    for name, shape in expected.items():
        assert np.load(output / f"{name}.npz")["masks"].shape[1:] == shape
        with Image.open(inputs / f"{name}.png") as image:
            assert labels(output / f"{name}_labels.png").shape == (image.height, image.width)
    model = objdisc_jax.load(spectral / "run", keep_aspect=True)
    found = model.segment(inputs / "high.png")
    np.testing.assert_array_equal(found.masks, np.load(output / "high.npz")["masks"])
    stretched = objdisc_jax.load(spectral / "run").segment(inputs / "square.png")
    np.testing.assert_array_equal(stretched.masks, np.load(output / "square.npz")["masks"])


@pytest.fixture
def scenes_of_many_shapes(tmp_path):
    sizes = {"square": (70, 70), "wide": (45, 100), "high": (100, 45), "strip": (3, 200)}
    folder = tmp_path / "shapes"
    folder.mkdir()
    scene = Image.fromarray(tetrominoes.generate(0, 0, 1)["image"][0])
    for name, (rows, columns) in sizes.items():
        scene.resize((columns, rows)).save(folder / f"{name}.png")
    return folder


def test_models_of_one_shape_refuse_to_keep_the_aspect_ratio(workdir, images, tmp_path):
    message = r"keep_aspect: the model sees every image in 35 rows and 35 columns"
    with pytest.raises(UserError, match=message):
        run(workdir, images, tmp_path / "out", "--keep-aspect")
    with pytest.raises(UserError, match=message):
        objdisc_jax.load(workdir, keep_aspect=True)


def test_resolution_may_be_another_than_in_training(spectral, workdir, images, tmp_path):
    for folder, resolution in ((spectral / "run", (36, 24)), (workdir, (24, 20))):
        output = tmp_path / folder.parent.name
        run(folder, images, output, "--save", "npz", "--resolution", *resolution)
        assert np.load(output / "a.npz")["masks"].shape[1:] == resolution
    with pytest.raises(UserError, match=r"model\.resolution: got \(30, 24\); the patches of tiny"):
        run(spectral / "run", images, tmp_path / "out", "--resolution", 30, 24)


def test_slots_that_were_learned_stay_as_many(images, tetrominoes_file, tmp_path):
    config = tiny_experiment(tetrominoes_file)
    config.model.gradient = "bo_qsa"
    loop.train(changed(config, num_train_steps=1), tmp_path / "run")
    with pytest.raises(UserError, match=r"do not fit (?s:.)*slots_init"):
        run(tmp_path / "run", images, tmp_path / "out", "--num-slots", 2)


def test_models_without_slots_or_backbone_refuse_the_options(images, tetrominoes_file, tmp_path):
    config = small_config("gnm")
    config.data.update(path=str(tetrominoes_file), num_workers=0)
    config.update(batch_size=8, num_train_steps=1)
    loop.train(config, tmp_path / "run")
    for flag, value in (("--num-slots", 2), ("--backbone", "file")):
        with pytest.raises(UserError, match=r"The model 'gnm' has no setting"):
            run(tmp_path / "run", images, tmp_path / "out", flag, value)


def test_backbone_may_have_moved_but_must_be_the_same(spectral, images, tmp_path):
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes((spectral / "tiny.safetensors").read_bytes())
    (spectral / "tiny.safetensors").rename(spectral / "gone.safetensors")
    try:
        with pytest.raises(UserError, match=r"tiny\.safetensors, but there is no such file"):
            run(spectral / "run", images, tmp_path / "out")
        run(spectral / "run", images, tmp_path / "out", "--backbone", moved)
        write_tiny(moved, gain=1.0)
        with pytest.raises(UserError, match=r"is not the one that the run"):
            run(spectral / "run", images, tmp_path / "out", "--backbone", moved)
    finally:
        (spectral / "gone.safetensors").rename(spectral / "tiny.safetensors")
    assert len(list((tmp_path / "out").glob("*_labels.png"))) == 2
