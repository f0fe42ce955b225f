"""Generators of data sets that need no download: pure functions of (seed, index), in NumPy."""
