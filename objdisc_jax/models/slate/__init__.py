"""SLATE (Singh et al. 2022, arXiv 2110.11405)."""
