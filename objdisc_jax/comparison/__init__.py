"""Runs beside each other: read, grouped by what but the seed they share, told in a report."""
