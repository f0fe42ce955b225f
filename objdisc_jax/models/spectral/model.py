"""Spectral clustering of a frozen ViT's features: segments without training.

The normalised cut (Shi & Malik 2000) of a graph whose nodes are patches and whose weights are
affinities of features, as deep spectral methods have it (Melas-Kyriazi et al. 2022, arXiv
2205.07839), relaxed by eigenvectors, which k-means rounds (Ng, Jordan & Weiss 2001).
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax
from jaxtyping import Array, Float, Int

from objdisc_jax.models.backbone import BackboneModel
from objdisc_jax.models.base import Batch, Loss, Noise, Prediction, Step
from objdisc_jax.models.spectral.settings import Settings

KMEANS_ITERATIONS = 20


class Spectral(BackboneModel):
    """Segments of patches whose features are alike; all its parameters are the backbone's."""

    settings: Settings

    def noise(self, key: Array, batch_size: int) -> Noise:
        """There is none."""
        del key, batch_size
        return {}

    def loss(
        self, batch: Batch, noise: Noise, *, step: Step, dropout_key: Array | None = None
    ) -> Loss:
        """The normalised cut of the segments found, from 0 to their number; not to be trained."""
        del noise, step, dropout_key
        weights = affinity(self.features(batch), self.settings.temperature)
        segments = self._segments(weights)
        degree = jnp.einsum("bkn,bnm->bk", segments, weights)
        within = jnp.einsum("bkn,bnm,bkm->bk", segments, weights, segments)
        there = degree > 0.0
        cut = jnp.where(there, 1.0 - within / jnp.where(there, degree, 1.0), 0.0)
        return jnp.sum(cut, axis=1), {}

    def predict(self, batch: Batch, noise: Noise, *, step: Step) -> Prediction:
        """Masks, and mean features of the segments for slots; zeros where there are fewer."""
        del noise, step
        features = self.features(batch)
        segments = self._segments(affinity(features, self.settings.temperature))
        size = jnp.maximum(jnp.sum(segments, axis=2, keepdims=True), 1.0)
        slots = jnp.einsum("bkn,bnd->bkd", segments, features) / size
        return Prediction(None, self.at_resolution(segments), slots)

    def visualize(self, batch: Batch, noise: Noise, *, step: Step) -> dict[str, Array]:
        """Features by their principal components."""
        del noise, step
        return {"features": self.as_colours(self.features(batch))[0]}

    def _segments(self, weights: Float[Array, "b n n"]) -> Float[Array, "b k n"]:
        """1 where a patch is in a segment, else 0."""
        settings = self.settings
        labels = jax.vmap(
            lambda one: normalised_cut(one, settings.num_slots, eigengap=settings.eigengap)
        )(lax.stop_gradient(weights))
        return rearrange(jax.nn.one_hot(labels, settings.num_slots), "b n k -> b k n")


def affinity(features: Float[Array, "b n d"], temperature: float) -> Float[Array, "b n n"]:
    """exp((cosine − 1) / temperature) of all pairs of patches."""
    unit = features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-8)
    return jnp.exp((jnp.einsum("bnd,bmd->bnm", unit, unit) - 1.0) / temperature)


def normalised_cut(
    weights: Float[Array, "n n"], num_segments: int, *, eigengap: bool
) -> Int[Array, "n"]:
    """Segments of a graph's nodes whose normalised cut is small.

    Args:
        weights: symmetric, not negative.
        num_segments: how many there are, less than n.
        eigengap: take fewer, at least two, where the gap between two eigenvalues is largest.

    Returns:
        The number of every node's segment.
    """
    scale = jax.lax.rsqrt(jnp.sum(weights, axis=0))
    values, vectors = jnp.linalg.eigh(scale[:, None] * weights * scale[None])
    values, vectors = values[::-1], vectors[:, ::-1][:, :num_segments]  # largest first
    count = jnp.int32(num_segments)
    if eigengap:
        gaps = values[1:num_segments] - values[2 : num_segments + 1]
        count = 2 + jnp.argmax(gaps)
    counted = jnp.arange(num_segments) < count
    points = jnp.where(counted[None], vectors, 0.0)
    points = points / jnp.maximum(jnp.linalg.norm(points, axis=1, keepdims=True), 1e-8)
    return k_means(points, seeds(points), counted)


def seeds(points: Float[Array, "n k"]) -> Float[Array, "k k"]:
    """As many points as there are axes, far from each other: the pivots of a QR decomposition.

    The next is the one that is furthest from the span of those before (Damle, Minden & Ying 2016,
    arXiv 1609.08251).
    """

    def choose(rest: Float[Array, "n k"], _: None) -> tuple[Float[Array, "n k"], Int[Array, ""]]:
        lengths = jnp.linalg.norm(rest, axis=1)
        pivot = jnp.argmax(lengths)
        axis = rest[pivot] / jnp.maximum(lengths[pivot], 1e-8)
        return rest - (rest @ axis)[:, None] * axis[None], pivot

    _, pivots = lax.scan(choose, points, None, length=points.shape[1])
    return points[pivots]


def k_means(
    points: Float[Array, "n d"], centres: Float[Array, "k d"], counted: Array
) -> Int[Array, "n"]:
    """Every point's nearest centre, after Lloyd's iterations from some centres.

    Centres that are not `counted` have no points; one that loses its points stays where it is.
    """

    def nearest(centres: Array) -> Int[Array, "n"]:
        distance = jnp.sum(centres**2, axis=1)[None] - 2.0 * points @ centres.T
        return jnp.argmin(jnp.where(counted[None], distance, jnp.inf), axis=1)

    def move(_: Array, centres: Array) -> Array:
        members = jax.nn.one_hot(nearest(centres), len(centres))
        size = jnp.sum(members, axis=0)[:, None]
        return jnp.where(size > 0, members.T @ points / jnp.maximum(size, 1.0), centres)

    return nearest(lax.fori_loop(0, KMEANS_ITERATIONS, move, centres))
