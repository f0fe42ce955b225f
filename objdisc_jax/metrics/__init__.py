"""Metrics of object discovery, one value per image so that the caller decides what to average.

On the device, jitted: the contingency table of two label maps, ARI and FG-ARI from it, and the
reconstruction error. On the host, in float64 from the same table: mIoU (Hungarian matching),
mean best overlap, CorLoc and recovery. An image without a true foreground object has no FG-ARI, nor
any of these: its value is NaN and the caller leaves it out of the mean and reports how many were
left out.

    table = contingency_table(true, predicted, num_true=7, num_predicted=4)
    fg_adjusted_rand_index(table), adjusted_rand_index(table)
    mean_iou(table), mean_best_overlap(table)
"""

from objdisc_jax.metrics.reconstruction import mse, mse_sum
from objdisc_jax.metrics.segmentation import (
    adjusted_rand_index,
    contingency_table,
    fg_adjusted_rand_index,
    localization,
    mean_best_overlap,
    mean_iou,
    num_objects,
)

__all__ = [
    "adjusted_rand_index",
    "contingency_table",
    "fg_adjusted_rand_index",
    "localization",
    "mean_best_overlap",
    "mean_iou",
    "mse",
    "mse_sum",
    "num_objects",
]
