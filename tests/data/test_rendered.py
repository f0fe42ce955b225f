"""The scripts that render data sets, and whether their files are read as the published ones are."""

import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from objdisc_jax import files, run_files
from objdisc_jax.data import conversion, datasets, loader, outputs
from objdisc_jax.data.datasets.clevrtex import NUM_IMAGES
from objdisc_jax.data.errors import DataError
from objdisc_jax.data.synthetic import multi_dsprites
from objdisc_jax.render import clevr, clevrtex, shapes3d
from objdisc_jax.training import loop
from tests.training.test_train import changed

SCRIPTS = Path(__file__).parents[2] / "data_scripts"


def _script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(name, *arguments):
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def _render_clevr(path, **changes):
    arguments = {
        "num_images": 40,
        "seed": 2,
        "max_objects": 10,
        "resolution": (60, 80),
        "samples": 2,
        "workers": 2,
        "overwrite": False,
    }
    _script("render_clevr").generate(output=str(path), **(arguments | changes))


def _datasets(file):
    with h5py.File(file) as opened:
        return {key: opened[key][()] for key in opened}, dict(opened.attrs)


@pytest.fixture(scope="module")
def clevr_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("rendered") / "clevr.h5"
    _render_clevr(path)
    return path


def test_clevr_file_has_the_arrays_and_says_how_it_was_made(clevr_file):
    arrays, attributes = _datasets(clevr_file)
    assert all(len(values) == 40 for values in arrays.values())
    assert arrays["image"].shape == (40, 60, 80, 3)
    for i, count in enumerate(arrays["num_objects"]):
        assert set(np.unique(arrays["segmentation"][i])) <= set(range(count + 1))
    assert attributes["seed"] == 2
    assert attributes["generator_version"] == clevr.VERSION
    assert list(attributes["color_names"]) == list(clevr.COLORS)


def test_reader_reads_the_rendered_clevr_file(clevr_file):
    config = datasets.get("clevr_with_masks").default_config()
    config.path = str(clevr_file)
    config.max_objects = 6
    config.num_test_images = None
    with pytest.raises(DataError, match=r"must be uint8 of shape \(any, 240, 320, 3\)"):
        loader.load(config, "train")
    config.image_size = (60, 80)
    with h5py.File(clevr_file) as file:
        counts = file["num_objects"][()]
    found = []
    for split in ("train", "val", "test"):
        dataset = loader.load(config, split)
        for batch in loader.eval_batches(dataset, batch_size=8):
            assert batch["image"].shape == (8, 48, 48, 3)
            assert batch["segmentation"].max() <= 6
            found.extend(batch["index"][batch["valid"]])
    np.testing.assert_array_equal(np.sort(found), np.flatnonzero(counts <= 6))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gnm_clevr6", "sa_clevr6_cpu"])
def test_configs_of_clevr_train_on_rendered_scenes(clevr_file, tmp_path, name):
    file = Path(__file__).parents[2] / "configs" / f"{name}.py"
    config = changed(
        runpy.run_path(str(file))["get_config"](),
        **{
            "data.path": str(clevr_file),
            "data.image_size": (60, 80),
            "data.num_workers": 0,
            "batch_size": 4,
            "num_train_steps": 2,
            "eval.batch_size": 4,
            "visualize.every": 2,
            "visualize.num_images": 2,
        },
    )
    loop.train(config, tmp_path)
    scores = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert scores["step"] == 2
    for key in ("loss", "fg_ari", "ari", "miou"):
        assert np.isfinite(scores[f"val/{key}"]), key
    assert (tmp_path / run_files.VISUALIZATIONS / "step_0000002.png").exists()


def test_interrupted_clevr_goes_on_and_ends_in_the_same_file(clevr_file, tmp_path, monkeypatch):
    path = tmp_path / "clevr.h5"
    monkeypatch.setattr(conversion, "_PART_RECORDS", 16)
    arrays = clevr.arrays
    made = []

    def interrupted(scene, rendering):
        made.append(len(scene.num_objects))
        if len(made) == 3:
            raise KeyboardInterrupt
        return arrays(scene, rendering)

    monkeypatch.setattr(clevr, "arrays", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _render_clevr(path, workers=1)
    assert not path.exists()
    with pytest.raises(DataError, match="interrupted"):
        _render_clevr(path, seed=3)
    made.clear()
    monkeypatch.setattr(clevr, "arrays", lambda *a: made.append(len(a[0].camera)) or arrays(*a))
    _render_clevr(path, workers=1)
    assert 0 < sum(made) < 40
    whole, _ = _datasets(clevr_file)
    for key, values in _datasets(path)[0].items():
        np.testing.assert_array_equal(values, whole[key])
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("render_clevr", ["--num-images", 2], "must be a whole number, at least 3"),
        ("render_clevr", ["--max-objects", 11], "must be a whole number, 3 to 10"),
        ("render_clevr", ["--resolution", 4, 4], "a whole number, 16 to 4096"),
        ("render_clevr", ["--seed", -1], "a whole number, 0 to"),
        ("render_clevrtex", ["--samples", 0], "a whole number, 1 to 64"),
        ("render_clevrtex", ["--variant", "none"], "invalid choice"),
        ("render_shapes3d", ["--num-images", 480_001], "a whole number, 3 to 480000"),
        ("generate_multi_dsprites", ["--seed", "one"], "is one, but must be"),
        ("generate_multi_dsprites", ["--num-images", 2], "at least 3"),
    ],
)
def test_wrong_arguments_are_errors(tmp_path, name, arguments, message):
    ended = _run(name, *arguments, "--output", tmp_path / "a.h5")
    assert ended.returncode in (1, 2)
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not [*tmp_path.iterdir()]


def test_shapes3d_enumerates_all_factors_in_the_published_order():
    assert shapes3d.NUM_IMAGES == 480_000
    numbers = np.array([0, 1, 15, 60, 480, 4800, 48_000, 479_999])
    expected = [
        (0, 0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 1, 0),
        (0, 0, 0, 1, 0, 0),
        (0, 0, 1, 0, 0, 0),
        (0, 1, 0, 0, 0, 0),
        (1, 0, 0, 0, 0, 0),
        (9, 9, 9, 7, 3, 14),
    ]
    np.testing.assert_array_equal(shapes3d.factors(numbers), expected)
    np.testing.assert_allclose(shapes3d.labels(numbers)[-1], (0.9, 0.9, 0.9, 1.25, 3, 30))


def test_shapes3d_file_is_read_and_shows_its_labels(tmp_path):
    path = tmp_path / "3dshapes.h5"
    script = _script("render_shapes3d")
    script.generate(output=str(path), num_images=600, seed=1, workers=2, overwrite=False)
    arrays, attributes = _datasets(path)
    assert attributes["seed"] == 1
    assert arrays["images"].shape == (600, 64, 64, 3)
    assert len(np.unique(arrays["labels"], axis=0)) == 600
    config = datasets.get("shapes3d").default_config()
    config.path = str(path)
    sizes = [len(loader.load(config, split)) for split in ("train", "val", "test")]
    assert sum(sizes) == 600
    # Red floors are red, others are not; larger objects cover more.
    floor = arrays["images"][:, 62, 8].astype(int)
    red = (floor[:, 0] > 150) & (floor[:, 1:] < 20).all(1)
    np.testing.assert_array_equal(red, arrays["labels"][:, 0] == 0)
    area = arrays["segmentation"].sum((1, 2))
    spheres = arrays["labels"][:, 4] == 2
    assert np.corrcoef(arrays["labels"][spheres, 3] ** 2, area[spheres])[0, 1] > 0.99


@pytest.mark.parametrize("variant", multi_dsprites.VARIANTS)
def test_multi_dsprites_file_is_read_and_obeys_its_variant(variant, tmp_path):
    path = tmp_path / "sprites.h5"
    script = _script("generate_multi_dsprites")
    script.generate(output=str(path), variant=variant, num_images=60, seed=4, overwrite=False)
    arrays, attributes = _datasets(path)
    assert (attributes["seed"], attributes["variant"]) == (4, variant)
    for key, values in multi_dsprites.generate(variant, 4, 20, 30).items():
        np.testing.assert_array_equal(arrays[key][20:30], values)
    least, most = {
        "binarized": (2, 3),
        "colored_on_grayscale": (2, 5),
        "colored_on_colored": (1, 4),
    }[variant]
    assert arrays["num_objects"].min() == least
    assert arrays["num_objects"].max() == most
    for i, count in enumerate(arrays["num_objects"]):
        labels = arrays["segmentation"][i]
        assert set(np.unique(labels)) == set(range(count + 1))
        for label in range(count + 1):  # flat colours, without antialiasing
            assert len(np.unique(arrays["image"][i][labels == label], axis=0)) == 1
    config = datasets.get("multi_dsprites").default_config()
    config.path = str(path)
    config.variant = variant
    (batch,) = loader.eval_batches(loader.load(config, "train"), batch_size=64)
    assert batch["segmentation"].max() == most


def test_sprites_are_as_large_as_those_of_dsprites():
    for shape, area in ((1, 375), (2, 241), (3, 237)):
        angles = multi_dsprites.ORIENTATIONS
        sizes = [multi_dsprites.inside(shape, 1.0, angle, 0.5, 0.5).sum() for angle in angles]
        assert np.mean(sizes) == pytest.approx(area, rel=0.02)
        small = multi_dsprites.inside(shape, 0.5, 0.3, 0.1, 0.9).sum()
        assert small == pytest.approx(area / 4, rel=0.1)


def test_sprites_stay_inside_the_image():
    for shape in (1, 2, 3):
        for x in (0.0, 1.0):
            for angle in multi_dsprites.ORIENTATIONS:
                cover = multi_dsprites.inside(shape, 1.0, angle, x, 1 - x)
                assert not cover[[0, -1]].any()
                assert not cover[:, [0, -1]].any()


def test_clevrtex_has_all_published_variants():
    assert set(clevrtex.VARIANTS) == set(NUM_IMAGES)


def _render_clevrtex(folder, **changes):
    arguments = {
        "variant": "outd",
        "num_images": 20,
        "seed": 5,
        "max_objects": 6,
        "resolution": (120, 160),
        "samples": 2,
        "workers": 1,
        "overwrite": False,
    }
    _script("render_clevrtex").generate(output=str(folder), **(arguments | changes))


@pytest.mark.slow
def test_clevrtex_folder_is_complete_after_interruptions(tmp_path, monkeypatch):
    describe = clevrtex.describe
    made = []

    def interrupted(*arguments):
        made.append(arguments)
        if len(made) == 18:
            raise KeyboardInterrupt
        return describe(*arguments)

    monkeypatch.setattr(clevrtex, "describe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _render_clevrtex(tmp_path)
    assert not (tmp_path / "clevrtex_outd").exists()
    with pytest.raises(DataError, match="of other arguments"):
        _render_clevrtex(tmp_path, seed=6)
    partial = tmp_path / ".clevrtex_outd.parts" / "0"
    lost = partial / "CLEVRTEX_outd_000002.json"  # as if another kind of machine had left it out
    lost.unlink()
    with (
        files.locked(tmp_path / ".clevrtex_outd.lock"),
        pytest.raises(DataError, match="Another command is writing"),
    ):
        _render_clevrtex(tmp_path)
    _render_clevrtex(tmp_path)
    folder = tmp_path / "clevrtex_outd"
    assert len([*folder.rglob("*.json")]) == 20 + 1
    assert len([*folder.rglob("*.png")]) == 40
    with pytest.raises(DataError, match="exists already"):
        _render_clevrtex(tmp_path)
    _render_clevrtex(tmp_path, num_images=4, overwrite=True)
    assert len([*folder.rglob("*.png")]) == 8
    assert [*tmp_path.iterdir()] == [folder]
    (folder / outputs.MANIFEST).unlink()  # like a published set
    with pytest.raises(DataError, match="does not overwrite it"):
        _render_clevrtex(tmp_path, overwrite=True)
    assert len([*folder.rglob("*.png")]) == 8


@pytest.mark.slow
@pytest.mark.parametrize("variant", clevrtex.VARIANTS)
def test_clevrtex_variant_is_read_and_obeys_its_rules(tmp_path, variant):
    _render_clevrtex(tmp_path, variant=variant, num_images=12)
    config = datasets.get("clevrtex").default_config()
    config.path = str(tmp_path)
    config.variant = variant
    config.resolution = (96, 96)
    with pytest.raises(DataError, match=r"set data\.image_size"):
        next(loader.eval_batches(loader.load(config, "test"), batch_size=4))
    config.image_size = (120, 160)
    (batch,) = loader.eval_batches(loader.load(config, "test"), batch_size=12)
    assert batch["image"].shape == (12, 96, 96, 3)
    assert 0 < batch["segmentation"].max() <= 6
    materials = []
    for file in sorted((tmp_path / f"clevrtex_{variant}" / "0").glob("*.json")):
        scene = json.loads(file.read_text())
        with Image.open(file.with_name(scene["mask_filename"])) as image:
            assert image.mode == "P"
            mask = np.asarray(image)
        assert 3 <= scene["num_objects"] == len(scene["objects"]) <= 6
        for listed in scene["objects"]:
            assert (mask == listed["index"]).sum() == listed["visible_pixels"] > 0
            assert listed["shape"] in clevrtex.VARIANTS[variant].shapes
        materials.append([scene["ground_material"], *(o["material"] for o in scene["objects"])])
    grounds = {ground for ground, *_ in materials}
    objects = {material for _, *others in materials for material in others}
    assert all(ground.endswith("rubber") for ground in grounds)
    assert (grounds == {"rubber"}) == (variant == "pbg")
    assert (objects <= {"rubber", "metal"}) == (variant == "vbg")
    assert (len(grounds) == 1) == (variant in ("pbg", "grassbg"))
    assert all(len(set(scene)) == 1 for scene in materials) == (variant == "camo")
