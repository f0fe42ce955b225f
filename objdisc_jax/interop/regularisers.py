"""Regularisers of masks, and how their weights rise during training."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


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


def separation(masks: Tensor, kind: str) -> Tensor:
    """How undecided masks `[b, k, h, w]` are: `entropy` over slots, or 1 − the largest (`max`)."""
    if kind == "max":
        return _mean_over_pixels(1.0 - masks.amax(1))
    p = masks + 1e-8
    return _mean_over_pixels(-(p * p.log()).sum(1))


def area(masks: Tensor, object_area: float) -> Tensor:
    """Pulls every mask towards the area of two objects or that of what they leave (BoxWorld)."""
    k, height, width = masks.shape[1:]
    areas = masks.sum((2, 3))
    rest = height * width - (k - 1) * object_area - areas
    as_object = (areas - 2.0 * object_area) ** 2
    as_background = rest.clamp(min=0.0) * rest
    # torch.where rather than torch.minimum: on a tie the gradient goes to the first branch alone.
    least = torch.where(as_object <= as_background, as_object, as_background)
    return least.mean(1) / (2.0 * object_area) ** 2


def _mean_over_pixels(x: Tensor) -> Tensor:
    """The mean over all axes but the first."""
    return x.flatten(1).mean(1)
