"""Which pixels a slot paints in a colour of its own."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def contrast(
    masks: Float[Array, "b k h w"],
    recons: Float[Array, "b k h w c"],
    input_range: tuple[float, float],
) -> Float[Array, "b h w"]:
    """How firmly each pixel is painted in a colour that other slots would not give it, 0 to 1.

    The largest mask of the pixel, times how far its slot's colour is from the median of all slots'
    colours, in the channel where they differ most. Background that slots share, each of them
    paints: whichever of them claims it, the contrast is low.

    Args:
        masks: they sum to 1 over k.
        recons: what each slot paints, in the input range; beyond it counts as its end.
        input_range: what black and white are.
    """
    low, high = input_range
    colours = (jnp.clip(recons, low, high) - low) / (high - low)
    claimed = jnp.argmax(masks, axis=1)[:, None]
    own = jnp.take_along_axis(colours, claimed[..., None], axis=1)[:, 0]
    difference = jnp.max(jnp.abs(own - jnp.median(colours, axis=1)), axis=-1)
    return jnp.max(masks, axis=1) * difference
