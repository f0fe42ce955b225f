"""A model and a data set for objdisc_jax, in a package of their own."""
