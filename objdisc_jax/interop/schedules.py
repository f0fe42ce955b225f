"""Annealed quantities as functions of the training step."""

import math
from collections.abc import Sequence


def cosine_ramp(step: int, weight: float, steps: tuple[int, int]) -> float:
    """A weight that rises from 0 along half a cosine between two steps."""
    first, last = steps
    progress = min(max((step - first) / max(last - first, 1), 0.0), 1.0)
    return weight * 0.5 * (1.0 - math.cos(math.pi * progress))


def linear_ramp(step: int, value: float | Sequence[float]) -> float:
    """A constant, or (first value, last value, first step, last step) at a step."""
    if not isinstance(value, Sequence):
        return value
    start_value, end_value, first, last = value
    progress = min(max((step - first) / max(last - first, 1), 0.0), 1.0)
    return start_value + (end_value - start_value) * progress
