"""Vectors in space whose coordinates are separate arrays, so that XLA keeps each in registers."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Vec:
    """A vector, or an array of them: three coordinates of shapes that broadcast together."""

    x: jax.Array
    y: jax.Array
    z: jax.Array

    def __add__(self, other: "Vec") -> "Vec":
        return Vec(self.x + other.x, self.y + other.y, self.z + other.z)

    def __sub__(self, other: "Vec") -> "Vec":
        return Vec(self.x - other.x, self.y - other.y, self.z - other.z)

    def __neg__(self) -> "Vec":
        return Vec(-self.x, -self.y, -self.z)

    def __mul__(self, other: "Vec | jax.Array | float") -> "Vec":
        if isinstance(other, Vec):
            return Vec(self.x * other.x, self.y * other.y, self.z * other.z)
        return Vec(self.x * other, self.y * other, self.z * other)

    def dot(self, other: "Vec") -> jax.Array:
        """Returns the scalar product."""
        return self.x * other.x + self.y * other.y + self.z * other.z

    def cross(self, other: "Vec") -> "Vec":
        """Returns the vector product."""
        return Vec(
            self.y * other.z - self.z * other.y,
            self.z * other.x - self.x * other.z,
            self.x * other.y - self.y * other.x,
        )

    def length(self) -> jax.Array:
        """Returns the Euclidean length."""
        return jnp.sqrt(self.dot(self))

    def unit(self) -> "Vec":
        """Returns the vector of length 1 in the same direction; of the zero vector, zero."""
        return self * jax.lax.rsqrt(jnp.maximum(self.dot(self), 1e-20))

    def map(self, function: Callable[[jax.Array], jax.Array]) -> "Vec":
        """Applies a function to each coordinate."""
        return Vec(function(self.x), function(self.y), function(self.z))

    def turned(self, cos: jax.Array, sin: jax.Array) -> "Vec":
        """Returns the vector turned about the z axis by the angle of that cosine and sine."""
        return Vec(cos * self.x - sin * self.y, sin * self.x + cos * self.y, self.z)

    def stack(self) -> jax.Array:
        """Returns one array whose last axis is the coordinate."""
        return jnp.stack(jnp.broadcast_arrays(self.x, self.y, self.z), axis=-1)


def vec(array: jax.Array) -> Vec:
    """Returns the vectors along the last axis of an array [..., 3]."""
    return Vec(array[..., 0], array[..., 1], array[..., 2])


def where(condition: jax.Array, a: Tree, b: Tree) -> Tree:
    """Chooses between vectors, or whatever else is made of arrays."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)
