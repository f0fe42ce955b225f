"""IODINE: iterative object decomposition (Greff et al. 2019, arXiv 1903.00450)."""
