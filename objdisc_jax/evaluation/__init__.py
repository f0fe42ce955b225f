"""Scores and visualisations of predictions: evaluators found by name, and what runs them."""
