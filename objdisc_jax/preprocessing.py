"""From the bytes of a data set to what a model takes, on the device."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from objdisc_jax.models.base import Batch, Model


def prepare_batch(fields: Mapping[str, Array], model: Model) -> Batch:
    """What a model is given of a data set's fields: those that it names, images prepared."""
    found = {name: fields[name] for name in model.fields}
    if "image" in found:
        found["image"] = prepare_images(found["image"], model.resolution, model.input_range)
    return Batch(found)


def prepare_images(
    image: UInt8[Array, "b h w 3"],
    resolution: tuple[int, int],
    input_range: tuple[float, float],
) -> Float[Array, "b h2 w2 3"]:
    """Scales bytes to a model's input range, then resizes to its resolution.

    Bilinear with half-pixel centres and no antialiasing, as the published pipelines do.
    """
    low, high = input_range
    scaled = low + (high - low) * (image.astype(jnp.float32) / 255.0)
    shape = (len(image), *resolution, image.shape[-1])
    return jax.image.resize(scaled, shape, method="bilinear", antialias=False)


def resize_labels(
    segmentation: UInt8[Array, "b h w"], resolution: tuple[int, int]
) -> UInt8[Array, "b h2 w2"]:
    """Resizes label maps to a model's resolution, nearest neighbour with half-pixel centres."""
    return jax.image.resize(segmentation, (len(segmentation), *resolution), method="nearest")


def to_unit_range(
    image: Float[Array, "*b h w 3"], input_range: tuple[float, float]
) -> Float[Array, "*b h w 3"]:
    """Maps a model's input range to [0, 1]."""
    low, high = input_range
    return (image - low) / (high - low)
