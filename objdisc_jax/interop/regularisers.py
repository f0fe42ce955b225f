"""Regularisers of masks."""

import torch
from torch import Tensor


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
