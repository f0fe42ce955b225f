"""DINOSAUR (Seitzer et al. 2022, arXiv 2209.14860): slots of a frozen ViT's features."""
