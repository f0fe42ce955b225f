"""Squared reconstruction error per image, in the two conventions of the literature."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.jit
def mse(recon: Float[Array, "b h w c"], image: Float[Array, "b h w c"]) -> Float[Array, "b"]:
    """Squared error, mean over pixels and channels.

    Images are in [0, 1] whatever range the model works in; they are not clipped.
    """
    return _squared_error(recon, image).mean((1, 2, 3))


@jax.jit
def mse_sum(recon: Float[Array, "b h w c"], image: Float[Array, "b h w c"]) -> Float[Array, "b"]:
    """Squared error, sum over pixels and channels (the ClevrTex benchmark's MSE); else as `mse`."""
    return _squared_error(recon, image).sum((1, 2, 3))


def _squared_error(recon: Array, image: Array) -> Float[Array, "b h w c"]:
    if recon.shape != image.shape or image.ndim != 4:
        raise ValueError(
            f"recon and image: got shapes {recon.shape} and {image.shape}; both must be the same "
            "[b, h, w, c]. Resize the image to the model's resolution first."
        )
    return jnp.square(recon.astype(jnp.float32) - image.astype(jnp.float32))
