"""A small backbone in a file, as Hugging Face writes them."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from objdisc_jax.settings import VITS, ViT
from tests.conftest import small_config
from tests.golden.published import recipe


def hugging_face_keys(sizes: ViT) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of `Dinov2WithRegistersModel`, by key."""
    d, p = sizes.width, sizes.patch
    shapes = {
        "embeddings.cls_token": (1, 1, d),
        "embeddings.mask_token": (1, d),
        "embeddings.register_tokens": (1, sizes.registers, d),
        "embeddings.position_embeddings": (1, 1 + sizes.table**2, d),
        "embeddings.patch_embeddings.projection.weight": (d, 3, p, p),
        "embeddings.patch_embeddings.projection.bias": (d,),
        "layernorm.weight": (d,),
        "layernorm.bias": (d,),
    }
    layers = {f"attention.attention.{name}": (d, d) for name in ("query", "key", "value")}
    layers |= {"attention.output.dense": (d, d), "mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}
    for i in range(sizes.num_blocks):
        block = {f"{name}.weight": shape for name, shape in layers.items()}
        block |= {f"{name}.bias": shape[:1] for name, shape in layers.items()}
        block |= {f"norm{n}.{kind}": (d,) for n in (1, 2) for kind in ("weight", "bias")}
        block |= {f"layer_scale{n}.lambda1": (d,) for n in (1, 2)}
        shapes |= {f"encoder.layer.{i}.{name}": shape for name, shape in block.items()}
    return shapes


def write_tiny(file: Path, gain: float = 2.0) -> Path:
    """Writes the backbone "tiny", with random weights that tell patches apart."""
    tensors = {}
    for key, shape in hugging_face_keys(VITS["tiny"]).items():
        scale = 10.0 if key.endswith("lambda1") else gain if len(shape) > 1 else 1.0
        tensors[key] = (recipe(key, shape) * scale).astype(np.float32)
    save_file(tensors, file)
    return file


def cached_dinosaur(folder: Path, data_file: Path):
    """The experiment of a small DINOSAUR on features of Tetrominoes that are yet to be stored."""
    config = small_config("dinosaur")
    config.data.update(path=str(data_file), num_workers=0)
    config.data.features = str(folder / "features.h5")
    config.model.update(weights=str(write_tiny(folder / "tiny.safetensors")), cached=True)
    return config
