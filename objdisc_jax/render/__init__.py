"""Procedural scenes, rendered in JAX: images with exact segmentations, depth and factors.

A scene (`scene.Scene`) is a pytree of what there is to see; samplers make one from a key, and
`caster.render` turns it into arrays. Everything is a pure function of its arguments, so image i of
a seed is the same alone, in any batch and on any number of devices.
"""
