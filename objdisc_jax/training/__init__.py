"""Training and evaluation: everything between a config and a run directory."""
