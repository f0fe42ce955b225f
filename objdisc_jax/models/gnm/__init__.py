"""GNM: generative neurosymbolic machines (Jiang & Ahn 2020, arXiv 2010.12152)."""
