"""The ViTs compute what Hugging Face's do, from the same files (golden/README.md)."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from objdisc_jax.names import flatten, unflatten
from objdisc_jax.nn import vit
from objdisc_jax.nn.vit import VisionTransformer
from objdisc_jax.settings import VITS, ViT
from tests.backbones import hugging_face_keys
from tests.golden import published


@pytest.fixture(scope="module")
def golden():
    return published.load_npz("vit.npz")


def strong(key, shape):
    """A parameter by the recipe, enlarged so that a wrong LayerScale or position shows."""
    value = published.recipe(key, shape)
    if key == "embeddings.position_embeddings":
        return value * 20
    if value.ndim >= 2:
        return value * 2
    return value * 10 if key.endswith("lambda1") else value


def build(sizes, tensors, positions="size"):
    """A model with the tensors of a file, every one of which has its place."""
    model = VisionTransformer(sizes, positions=positions, dtype=jnp.float32, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    params = nnx.to_pure_dict(state)
    found = vit.from_hugging_face(tensors)
    shapes = {name: value.shape for name, value in flatten(params).items()}
    assert {name: value.shape for name, value in found.items()} == shapes
    filled = unflatten(params, lambda name, _: jnp.asarray(found[name]))
    return nnx.merge(graphdef, nnx.State(filled))


@nnx.jit
def outputs(model, image):
    """All tokens after every block, and the patches that a call returns, by the block's number."""
    x, found = model.embed(image), {}
    for block, layer in enumerate(model.blocks, 1):
        x = layer(x)
        found[str(block)] = x, model(image, block=block)
    return found | {"norm": (model.norm(x), model(image, block=block, final_norm=True))}


@pytest.mark.parametrize("name", ["dinov2", "dino_vit"])
def test_every_block_equals_hugging_faces(golden, name):
    config = json.loads(str(golden["config"]))[name]
    sizes = ViT(
        "",
        config["patch_size"],
        config["width"],
        config["blocks"],
        config["heads"],
        config["image_size"] // config["patch_size"],
        layer_scale=name == "dinov2",
    )
    model = build(sizes, {key: strong(key, shape) for key, shape in config["keys"]})
    for size, (height, width) in config["sizes"].items():
        seed, batch = config["image_seed"][size], config["batch"]
        image = published.make_image(seed, batch, height, width, 0.0, 1.0)
        found = jax.device_get(outputs(model, image))
        for block in (config["blocks"] - 1, config["blocks"]):
            whole, patches = found[str(block)]
            expected = golden[f"{name}/strong/{size}/block_{block}"]
            np.testing.assert_allclose(whole[:, ::3, ::2], expected, rtol=0, atol=5e-4)
            np.testing.assert_allclose(patches, whole[:, 1:], rtol=0, atol=1e-5)
        whole, patches = found["norm"]
        expected = golden[f"{name}/strong/{size}/norm"]
        np.testing.assert_allclose(whole[:, ::3, ::2], expected, rtol=0, atol=1e-4)
        np.testing.assert_allclose(patches, whole[:, 1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "side"), [("dinov2", 37), ("dino_vit", 14)])
def test_positions_are_resampled_as_three_projects_do(golden, name, side):
    count = 1 + side**2
    table = published.recipe(f"pos{side}", (1, count, 8))[0, 1:] * np.float32(np.sqrt(8 * count))
    cases = [key for key in golden if key.startswith(f"{name}/big_pos/")]
    assert len(cases) >= 6
    for key in cases:
        *_, size, how = key.split("/")
        grid = tuple(map(int, size.split("x")))
        found = vit.resampled(jnp.asarray(table), grid, how)
        np.testing.assert_allclose(found[::7], golden[key], rtol=0, atol=3e-5, err_msg=key)


def test_table_of_the_images_own_size_is_kept():
    table = jax.random.normal(jax.random.key(0), (25, 3))
    for how in ("size", "offset", "antialias"):
        np.testing.assert_array_equal(vit.resampled(table, (5, 5), how), table)
        assert (vit.resampled(table, (5, 6), how)[:25] != table).any()


def test_registers_are_seen_and_left_out():
    sizes = VITS["tiny"]
    tensors = {key: strong(key, shape) for key, shape in hugging_face_keys(sizes).items()}
    image = published.make_image(1, 2, 24, 24, 0.0, 1.0)
    found = build(sizes, tensors)(image, block=2)
    assert found.shape == (2, 36, sizes.width)
    tensors["embeddings.register_tokens"] *= -1
    assert np.abs(build(sizes, tensors)(image, block=2) - found).max() > 1e-3


def test_file_with_a_classifier_is_read():
    sizes = VITS["tiny"]
    tensors = {key: strong(key, shape) for key, shape in hugging_face_keys(sizes).items()}
    plain = vit.from_hugging_face(tensors)
    prefixed = {f"dinov2_with_registers.{key}": value for key, value in tensors.items()}
    found = vit.from_hugging_face(prefixed | {"classifier.weight": np.zeros((3, 4))})
    assert found.keys() == plain.keys()
    for name, value in plain.items():
        np.testing.assert_array_equal(found[name], value)


def test_image_smaller_than_a_patch_is_an_error():
    model = VisionTransformer(VITS["tiny"], dtype=jnp.float32, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"got 3x24 pixels, but a patch has 4x4"):
        model(jnp.zeros((1, 3, 24, 3)), block=1)


@pytest.mark.parametrize("name", [name for name in VITS if name != "tiny"])
def test_sizes_are_the_published(name):
    counts = {
        "dinov2_s14": 22_056_576,
        "dinov2_b14": 86_580_480,
        "dinov2_s14_registers": 22_056_576 + 4 * 384,
        "dinov2_b14_registers": 86_580_480 + 4 * 768,
        "dino_s16": 21_665_664,
        "dino_s8": 21_670_272,
        "dino_b16": 85_798_656,
        "dino_b8": 85_807_872,
    }
    sizes = VITS[name]
    model = nnx.eval_shape(lambda: VisionTransformer(sizes, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    count = sum(np.prod(x.shape) for x in jax.tree.leaves(nnx.state(model)))
    mask_token = sizes.width if re.match("dinov2", name) else 0
    assert count + mask_token == counts[name]


@pytest.mark.parametrize("name", ["dinov2", "dinov2_with_registers", "vit"])
def test_features_equal_those_of_transformers(name, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    import torch

    sizes = {
        "dinov2": ViT("", 14, 48, 3, 4, 5),
        "dinov2_with_registers": ViT("", 14, 48, 3, 4, 5, registers=2),
        "vit": ViT("", 16, 48, 3, 4, 5, layer_scale=False),
    }[name]
    options = {
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.num_blocks,
        "num_attention_heads": sizes.num_heads,
        "intermediate_size": 4 * sizes.width,
        "patch_size": sizes.patch,
        "image_size": sizes.table * sizes.patch,
        "layer_norm_eps": 1e-6,
    }
    if sizes.registers:
        options["num_register_tokens"] = sizes.registers
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(name, **options)
    theirs = transformers.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    theirs.save_pretrained(tmp_path)
    positions = "antialias" if sizes.registers else "size"
    ours = build(sizes, load_file(tmp_path / "model.safetensors"), positions)
    side = sizes.patch
    for height, width in ((5 * side, 5 * side), (4 * side, 7 * side)):
        image = np.random.default_rng(2).uniform(size=(2, height, width, 3)).astype(np.float32)
        normal = (image - np.float32(vit.MEAN)) / np.float32(vit.STD)
        pixels = torch.from_numpy(np.ascontiguousarray(normal.transpose(0, 3, 1, 2)))
        more = {"interpolate_pos_encoding": True} if name == "vit" else {}
        with torch.no_grad():
            expected = theirs(pixels, **more).last_hidden_state[:, 1 + sizes.registers :]
        found = ours(jnp.asarray(image), block=3, final_norm=True)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
