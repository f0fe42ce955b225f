"""Slot Attention auto-encoder (Locatello et al. 2020, arXiv 2006.15055)."""
