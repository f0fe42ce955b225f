"""Vision transformers as DINO and DINOv2 publish them, and their weights in Hugging Face's layout.

DINO: Caron et al. 2021, arXiv 2104.14294; DINOv2: Oquab et al. 2023, arXiv 2304.07193; registers:
Darcet et al. 2023, arXiv 2309.16588.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.nn.initializers import normal
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from objdisc_jax.nn.mlp import linear
from objdisc_jax.settings import ViT

# Of ImageNet, red, green and blue in [0, 1]: every model of the family saw such images.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Block(nnx.Module):
    """Self-attention and an MLP, each after a LayerNorm and added to the tokens.

    Norms, softmax and the tokens are float32. GELU is exact.
    """

    def __init__(self, sizes: ViT, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.num_heads, width = sizes.num_heads, sizes.width

        def layer(n_in: int, n_out: int) -> nnx.Linear:
            return linear(n_in, n_out, init="xavier", dtype=dtype, rngs=rngs)

        self.norm1, self.norm2 = _layer_norm(width, rngs), _layer_norm(width, rngs)
        self.qkv, self.out = layer(width, 3 * width), layer(width, width)
        self.fc1, self.fc2 = layer(width, 4 * width), layer(4 * width, width)
        self.scale1 = nnx.Param(jnp.ones(width)) if sizes.layer_scale else None
        self.scale2 = nnx.Param(jnp.ones(width)) if sizes.layer_scale else None

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Applies the block."""
        parts = rearrange(
            self.qkv(self.norm1(x)), "b t (n h e) -> n b h t e", n=3, h=self.num_heads
        )
        queries, keys, values = parts
        logits = jnp.einsum(
            "bhqe,bhte->bhqt",
            queries * queries.shape[-1] ** -0.5,
            keys,
            preferred_element_type=jnp.float32,
        )
        attn = jax.nn.softmax(logits, axis=-1).astype(values.dtype)
        found = rearrange(jnp.einsum("bhqt,bhte->bhqe", attn, values), "b h t e -> b t (h e)")
        x = x + _scaled(self.out(found), self.scale1)
        hidden = jax.nn.gelu(self.fc1(self.norm2(x)), approximate=False)
        return x + _scaled(self.fc2(hidden), self.scale2)


class VisionTransformer(nnx.Module):
    """A ViT without a head; its tokens are cls, the registers if any, and the patches row by row.

    Args:
        sizes: of the model.
        positions: how its table of positions is resampled to images of other sizes than its own,
            see `resampled`.
        dtype: compute type of matrix products; parameters are float32.
        rngs: source of the initial values.
    """

    def __init__(self, sizes: ViT, *, positions: str = "size", dtype: DTypeLike, rngs: nnx.Rngs):
        self.sizes = sizes
        self.resampling = positions
        width = sizes.width

        def learned(count: int) -> nnx.Param:
            return nnx.Param(normal(0.02)(rngs.params(), (count, width), jnp.float32))

        self.patch = linear(3 * sizes.patch**2, width, dtype=dtype, rngs=rngs)
        self.cls, self.positions = learned(1), learned(1 + sizes.table**2)
        self.registers = learned(sizes.registers) if sizes.registers else None
        self.blocks = nnx.List(
            Block(sizes, dtype=dtype, rngs=rngs) for _ in range(sizes.num_blocks)
        )
        self.norm = _layer_norm(width, rngs)

    def embed(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b t d"]:
        """The first block's input: tokens with their positions.

        Rows and columns of the image, in [0, 1], that fill no patch are left out.
        """
        side = self.sizes.patch
        height, width = (n // side for n in image.shape[1:3])
        if not height * width:
            raise ValueError(
                f"image: got {image.shape[1]}x{image.shape[2]} pixels, but a patch has "
                f"{side}x{side}. Enlarge the image."
            )
        image = (image - jnp.asarray(MEAN)[None, None, None]) / jnp.asarray(STD)[None, None, None]
        pixels = rearrange(
            image[:, : height * side, : width * side],
            "b (h p) (w q) c -> b (h w) (p q c)",
            p=side,
            q=side,
        )
        table = resampled(self.positions[...][1:], (height, width), self.resampling)
        patches = self.patch(pixels).astype(jnp.float32) + table[None]
        first = [self.cls[...] + self.positions[...][:1]]
        if self.registers is not None:
            first.append(self.registers[...])
        first = jnp.broadcast_to(
            jnp.concatenate(first)[None], (len(image), 1 + self.sizes.registers, table.shape[1])
        )
        return jnp.concatenate([first, patches], axis=1)

    def __call__(
        self, image: Float[Array, "b h w 3"], *, block: int, final_norm: bool = False
    ) -> Float[Array, "b n d"]:
        """What a block makes of the patches of images in [0, 1]; float32.

        Args:
            image: `[b, h, w, 3]`.
            block: whose output, counted from 1.
            final_norm: whether the model's last LayerNorm is applied to it.
        """
        x = self.embed(image)
        for layer in self.blocks[:block]:
            x = layer(x)
        x = self.norm(x) if final_norm else x
        return x[:, 1 + self.sizes.registers :]


def resampled(table: Float[Array, "m d"], grid: tuple[int, int], how: str) -> Float[Array, "n d"]:
    """A square table of positions, row by row, brought to another grid by bicubic interpolation.

    `size` and `offset` interpolate without antialiasing by PyTorch's kernel (a = -0.75): from the
    sizes of both grids, as Hugging Face does, or from the scale (n + 0.1) / m, as Meta's code does.
    `antialias` stretches the kernel (a = -0.5) when shrinking, as timm does. A table of the grid's
    own size is kept.
    """
    side = round(len(table) ** 0.5)
    if grid == (side, side):
        return table
    square = table.reshape(side, side, -1)
    if how == "antialias":
        found = jax.image.resize(square, (*grid, square.shape[-1]), "cubic", antialias=True)
    else:
        more = 0.1 if how == "offset" else 0.0
        rows, columns = (_bicubic(side, n, (n + more) / side) for n in grid)
        found = jnp.einsum("ra,cb,abd->rcd", rows, columns, square)
    return found.reshape(-1, square.shape[-1])


def _bicubic(num_in: int, num_out: int, scale: float) -> Float[np.ndarray, "o i"]:
    """The matrix of bicubic interpolation along one axis: half-pixel centres, repeated edges."""
    position = (np.arange(num_out) + 0.5) / scale - 0.5
    first = np.floor(position).astype(int)
    matrix = np.zeros((num_out, num_in))
    for source in (first + k for k in range(-1, 3)):
        a, t = -0.75, np.abs(position - source)
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        far = a * (t**3 - 5 * t**2 + 8 * t - 4)
        weight = np.where(t <= 1, near, np.where(t < 2, far, 0.0))
        np.add.at(matrix, (np.arange(num_out), np.clip(source, 0, num_in - 1)), weight)
    return matrix.astype(np.float32)


# Names in Hugging Face's files, of DINO (ViTModel) or DINOv2 (Dinov2Model), and here.
_NAMES = (
    (r"embeddings\.cls_token", "cls"),
    (r"embeddings\.position_embeddings", "positions"),
    (r"embeddings\.register_tokens", "registers"),
    (r"embeddings\.patch_embeddings\.projection\.weight", "patch.kernel"),
    (r"embeddings\.patch_embeddings\.projection\.bias", "patch.bias"),
    (r"encoder\.layer\.(\d+)\.(?:norm1|layernorm_before)\.(\w+)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.(?:norm2|layernorm_after)\.(\w+)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1", r"blocks.\1.scale\2"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(\w+)\.(\w+)", r"blocks.\1.qkv.\3.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(\w+)", r"blocks.\1.out.\2"),
    (r"encoder\.layer\.(\d+)\.(?:mlp\.fc1|intermediate\.dense)\.(\w+)", r"blocks.\1.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.(?:mlp\.fc2|output\.dense)\.(\w+)", r"blocks.\1.fc2.\2"),
    (r"layernorm\.(\w+)", r"norm.\1"),
)
_UNUSED = r"embeddings\.mask_token|pooler\..*"  # by features of images that nothing is hidden of
_PREFIX = r"^(?:dinov2|dinov2_with_registers|vit)\."  # of files that have a classifier, too


def from_hugging_face(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The parameters of a `VisionTransformer` by their paths, from a file of Hugging Face's.

    Tensors that this module has no place for keep their names, so that whoever checks the result
    finds them; those that no feature depends on (mask token, pooler, classifier) are left out.
    """
    prefixed = any(re.match(_PREFIX, key) for key in tensors)
    found: dict[str, Any] = {}
    for key, value in tensors.items():
        if prefixed and key.startswith("classifier."):
            continue
        name = re.sub(_PREFIX, "", key)
        if not re.fullmatch(_UNUSED, name):
            ours = next(
                (re.sub(theirs, to, name) for theirs, to in _NAMES if re.fullmatch(theirs, name)),
                key,
            )
            found[ours] = np.asarray(value, np.float32)
    for name in [name for name in found if name.endswith((".query", ".key", ".value"))]:
        whole = name.rpartition(".")[0]
        parts = [f"{whole}.{part}" for part in ("query", "key", "value")]
        if all(part in found for part in parts):
            found[whole] = np.concatenate([found.pop(part) for part in parts])
    return dict(_converted(name, value) for name, value in found.items())


def _converted(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """A parameter in our layout, under our name."""
    if name == "patch.kernel" and value.ndim == 4:
        return name, rearrange(value, "d c p q -> (p q c) d")
    if name in ("cls", "positions", "registers"):
        return name, value.reshape(value.shape[-2:])
    if re.search(r"norm\d?\.weight$", name):
        return name.replace("weight", "scale"), value
    if name.endswith(".weight") and value.ndim == 2:
        return name.replace("weight", "kernel"), value.T
    return name, value


def _scaled(x: Array, scale: nnx.Param | None) -> Array:
    x = x.astype(jnp.float32)
    return x if scale is None else x * scale[...][None, None]


def _layer_norm(features: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(
        features, epsilon=1e-6, use_fast_variance=False, dtype=jnp.float32, rngs=rngs
    )
