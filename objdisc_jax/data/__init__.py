"""Data sets and the input pipeline; nothing below this package imports jax.

A data set is a declaration (`declaration.py`, one file each in `datasets/`) and a reader
(`hdf5.py`, `folder.py`). `dataset.py` joins the two for one split, `sampler.py` decides which
examples make up which batch, `loader.py` reads batches with worker processes, and `synthetic/`
generates data.
"""
