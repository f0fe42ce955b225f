"""Decoders of features: every patch alone from all slots, or one patch after another."""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax import lax
from jax.nn.initializers import normal
from jaxtyping import Array, Float, Int

from objdisc_jax.models.dinosaur.orders import patch_orders
from objdisc_jax.models.dinosaur.settings import Settings
from objdisc_jax.nn.mlp import MLP, linear
from objdisc_jax.nn.norms import layer_norm
from objdisc_jax.nn.transformer import TransformerDecoder


class MLPDecoder(nnx.Module):
    """Spatial broadcast decoder of features (DINOSAUR, section 3.2).

    To every slot the position of a patch is added, learned, and an MLP makes features of it and a
    mask logit. Its first layer is linear in both, so it is computed once per slot and once per
    patch. With `top_k` only the slots whose attention to a patch is largest are decoded for it
    (Didolkar et al. 2024, arXiv 2408.09162); that choice has no gradient.
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        self.settings = settings
        self.grid = settings.position_grid or settings.grid
        shape = (1, self.grid[0] * self.grid[1], settings.slot_size)
        self.positions = nnx.Param(normal(0.02)(rngs.params(), shape, jnp.float32))
        self.mlp = MLP(
            (settings.slot_size, *settings.decoder_hidden, settings.d_model + 1),
            init="kaiming",
            dtype=jnp.dtype(settings.dtype),
            rngs=rngs,
        )

    def __call__(
        self,
        slots: Float[Array, "b k d"],
        attn: Float[Array, "b n k"],
        patches: Int[Array, "b m"] | None = None,
    ) -> tuple[Float[Array, "b m f"], Float[Array, "b k m"]]:
        """Features and masks.

        Args:
            slots: of every image.
            attn: how its patches are divided among them.
            patches: numbers of those to decode; None means all.
        """
        first, *others = self.mlp.layers
        by_slot = first(slots)
        by_patch = jnp.dot(
            self._positions().astype(by_slot.dtype), first.kernel[...].astype(by_slot.dtype)
        )
        if patches is not None:
            by_patch = by_patch[0][patches]
            attn = jnp.take_along_axis(attn, patches[..., None], axis=1)
        if self.settings.top_k is None:
            chosen, x = None, by_slot[:, None]
        else:
            _, index = lax.top_k(lax.stop_gradient(attn), self.settings.top_k)
            # A product rather than a selection: its gradient is one, too, and no scattered sum.
            chosen = jax.nn.one_hot(index, slots.shape[1], dtype=by_slot.dtype)
            x = jnp.einsum("bmjk,bkh->bmjh", chosen, by_slot)
        x = x + by_patch[:, :, None]
        for layer in others:
            x = layer(jax.nn.relu(x))
        x = x.astype(jnp.float32)
        masks = jax.nn.softmax(x[..., -1], axis=-1)
        recon = jnp.einsum("bmj,bmjf->bmf", masks, x[..., :-1])
        if chosen is None:
            return recon, rearrange(masks, "b m k -> b k m")
        return recon, jnp.einsum("bmj,bmjk->bkm", masks, chosen.astype(jnp.float32))

    def _positions(self) -> Float[Array, "1 n d"]:
        """Positions of the patches; a table of another grid is resampled as VideoSAUR does."""
        table, grid = self.positions[...], self.settings.grid
        if grid == self.grid:
            return table
        square = rearrange(table, "1 (h w) d -> 1 h w d", h=self.grid[0])
        found = jax.image.resize(square, (1, *grid, square.shape[-1]), "cubic", antialias=True)
        return rearrange(found, "1 h w d -> 1 (h w) d")


class AutoregressiveDecoder(nnx.Module):
    """A transformer predicts every patch from those before it and from the slots.

    As in SPOT (Kakogeorgiou et al. 2023, arXiv 2312.00648), in one or in nine orders of the
    patches, each with a first token of its own, or with `plain_blocks` as in DINOSAUR (section
    3.2); features need no position. The masks are the last block's cross-attention, mean over
    heads. True features are the input in evaluation, too.
    """

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        self.grid, size = settings.grid, settings.d_model
        self.num_orders = 9 if settings.orders == "random" else 1

        def project(n_in: int) -> nnx.Linear:
            dtype = jnp.dtype(settings.dtype)
            return linear(n_in, size, init="xavier", use_bias=False, dtype=dtype, rngs=rngs)

        self.bos = nnx.Param(
            normal(0.02)(rngs.params(), (self.num_orders, 1, 1, size), jnp.float32)
        )
        self.input_projection, self.input_norm = project(size), layer_norm(size, rngs=rngs)
        self.slot_projection = project(settings.slot_size)
        self.slot_norm = layer_norm(size, rngs=rngs)
        self.transformer = TransformerDecoder(settings, plain=settings.plain_blocks, rngs=rngs)

    def __call__(
        self,
        slots: Float[Array, "b k d"],
        features: Float[Array, "b n f"],
        order: Int[Array, "b"],
    ) -> Float[Array, "b n f"]:
        """What is predicted of the features, the patches taken in an order of `patch_orders`."""
        found = self.transformer(self._sequence(features, order), self._memory(slots))
        return self._in_rows(found, order).astype(jnp.float32)

    def masks(
        self,
        slots: Float[Array, "b k d"],
        features: Float[Array, "b n f"],
        order: Int[Array, "b"],
    ) -> Float[Array, "b k n"]:
        """How the predictions of patches divide their attention among the slots."""
        weights = self.transformer.cross_weights(
            self._sequence(features, order), self._memory(slots)
        )
        return rearrange(self._in_rows(jnp.mean(weights, axis=1), order), "b n k -> b k n")

    def _sequence(self, features: Array, order: Array) -> Array:
        """What comes before each patch, in the order."""
        if self.num_orders > 1:
            places = jnp.asarray(patch_orders(*self.grid))[order]
            features = jnp.take_along_axis(features, places[..., None], axis=1)
        begin = self.bos[...][order, 0]
        before = jnp.concatenate([begin, features[:, :-1]], axis=1)
        return self.input_norm(self.input_projection(before))

    def _memory(self, slots: Array) -> Array:
        return self.slot_norm(self.slot_projection(slots))

    def _in_rows(self, x: Array, order: Array) -> Array:
        """Puts what was found in an order back, row by row."""
        if self.num_orders == 1:
            return x
        places = jnp.asarray(np.argsort(patch_orders(*self.grid), axis=1))[order]
        return jnp.take_along_axis(x, places[..., None], axis=1)
