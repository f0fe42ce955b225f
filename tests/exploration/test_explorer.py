"""What models offer to visitors, and what visitors get."""

import numpy as np
import pytest
from PIL import Image

from objdisc_jax import models
from objdisc_jax.data import datasets
from objdisc_jax.data.synthetic import tetrominoes
from objdisc_jax.errors import UserError
from objdisc_jax.exploration import explorer
from objdisc_jax.exploration.explorer import Explorer, Options
from tests.exploration import small


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    file = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(tetrominoes.generate(0, 0, 1)["image"][0]).save(file)
    return file


@pytest.fixture(scope="module", params=models.names())
def explored(request, tmp_path_factory):
    folder = small.write(request.param, tmp_path_factory.mktemp("models") / request.param)
    if folder is None:
        pytest.skip("has frozen parts, which are not here")
    return Explorer(folder, max_pixels=10_000)


def test_every_model_does_what_the_page_offers(explored, photo):
    abilities, result = explored.abilities, explored.segment(photo)
    assert result.segmentation.shape == (35, 35)
    assert abilities.boxes == (result.boxes is not None)
    assert abilities.background == (result.background is None)
    if abilities.renders:
        assert explored.render(result.slots, result).shape == (*explored.resolution, 3)
    if abilities.attends:
        assert explored.attention(result.image).shape[1] == len(result.slots)
    if abilities.samples:
        assert len(explored.sample(seed=1, temperature=0.5)) == 8
    if abilities.latents:
        widest = explorer.widest_latents(result, 0)
        deviations = result.extras["z_std"][0]
        assert max(deviations[widest]) <= np.sort(deviations)[len(widest) - 1]
    if abilities.num_slots is not None:
        more = explored.segment(photo, Options(num_slots=abilities.num_slots + 1))
        assert len(more.masks) == abilities.num_slots + 1


def test_what_each_model_can_is_known(explored):
    can = {name for name, value in explored.abilities._asdict().items() if value}
    expected = {
        "slot_attention": {"num_slots", "background", "renders", "attends"},
        "slate": {"num_slots", "background", "renders", "attends"},
        "iodine": {"num_slots", "background", "renders", "latents"},
        "gnm": {"samples", "boxes", "renders", "moves"},
    }
    name = explored.name.split(", ")[1]
    if name not in expected:
        pytest.skip("not one that this test knows")
    assert can == expected[name]


def test_what_is_not_possible_is_told(explored, photo):
    for options, message in (
        (Options(num_slots=0), "1 to 24"),
        (Options(num_slots=1000), "1 to 24"),
        (Options(seed=-1), "seed: got -1"),
        (Options(background="all"), "background: got 'all'"),
    ):
        with pytest.raises(UserError, match=message):
            explored.segment(photo, options)
    result = explored.segment(photo)
    if explored.abilities.moves:  # it has a background of its own
        empty = explored.render(result.slots[:0], result)
        np.testing.assert_array_equal(empty, result.extras["background"])
    elif explored.abilities.renders:
        with pytest.raises(UserError, match="no slot left"):
            explored.render(result.slots[:0], result)


@pytest.mark.parametrize("explored", ["gnm"], indirect=True)  # its background is no slot
def test_slots_are_painted_before_the_background_of_their_image(explored, photo):
    assert explored.abilities.moves
    result = explored.segment(photo)
    np.testing.assert_allclose(explored.render(result.slots, result), result.recon, atol=1e-5)


def test_samples_are_of_the_runs_data_if_it_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = small.write("slot_attention", tmp_path / "model")
    explored = Explorer(folder, max_pixels=10_000)
    assert explored.samples(tmp_path) == sorted(explorer.SAMPLES.glob("*.jpg"))
    (folder / "samples").mkdir()
    Image.new("RGB", (8, 8)).save(own := folder / "samples" / "own.png")
    assert explored.samples(tmp_path) == [own]
    config = explored._trained.config.data
    (tmp_path / config.path).parent.mkdir(exist_ok=True)
    example = datasets.get(config.name).write_example(tmp_path / config.path)
    files = explored.samples(tmp_path)
    first = example.splits["test"][0]
    assert files[0].name == f"tetrominoes_test_{first}.png"
    assert len(files) == min(explorer.NUM_SAMPLES, len(example.splits["test"]))
    assert np.asarray(Image.open(files[0])).shape == (35, 35, 3)


def test_few_variants_are_kept(tmp_path, photo, monkeypatch):
    explored = Explorer(small.write("slot_attention", tmp_path / "model"), max_pixels=10_000)
    monkeypatch.setattr(explorer, "_MAX_MODELS", 1)
    for num_slots in (2, 4):
        assert len(explored.segment(photo, Options(num_slots=num_slots)).slots) == num_slots
    assert list(explored._variants) == [4]
