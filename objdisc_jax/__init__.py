"""Unsupervised object discovery in JAX/Flax."""

__version__ = "0.1.0"
