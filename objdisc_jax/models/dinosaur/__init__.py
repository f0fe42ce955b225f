"""DINOSAUR (Seitzer et al. 2022, arXiv 2209.14860): slots that reconstruct a frozen ViT's features."""
