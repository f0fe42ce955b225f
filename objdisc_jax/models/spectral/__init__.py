"""Spectral clustering of a frozen ViT's features (Melas-Kyriazi et al. 2022, arXiv 2205.07839)."""
