"""Visualization: label colours, panels of image rows, overlays, training curves, PNG files.

Everything here takes and returns NumPy arrays (RGB uint8) on the host and knows nothing of models.
"""

from objdisc_jax.visualize.curves import overlay_curves, plot_curves, read_metrics
from objdisc_jax.visualize.images import (
    PIXELS_PER_OUTLINE,
    encode_labels,
    encode_png,
    overlay,
    save_labels,
    save_png,
)
from objdisc_jax.visualize.palette import colorize
from objdisc_jax.visualize.panels import panel

__all__ = [
    "PIXELS_PER_OUTLINE",
    "colorize",
    "encode_labels",
    "encode_png",
    "overlay",
    "overlay_curves",
    "panel",
    "plot_curves",
    "read_metrics",
    "save_labels",
    "save_png",
]
