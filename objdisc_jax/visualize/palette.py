"""Colours of labels: a dark neutral background and 24 colours that stay apart.

The order matters: any first n colours are as distinct as n allows. The first eight were chosen to
be far apart in OKLab for normal, deuteranopic and protanopic sight alike; each later one is the
colour furthest from all before it. All of them are brighter than the background.
"""

import numpy as np
from jaxtyping import Int, UInt8
from numpy.typing import ArrayLike

BACKGROUND = (38, 38, 44)
COLORS = (
    (41, 185, 255),
    (239, 152, 40),
    (13, 126, 112),
    (250, 238, 56),
    (212, 43, 37),
    (255, 116, 184),
    (44, 81, 198),
    (122, 255, 231),
    (136, 119, 238),
    (255, 204, 153),
    (187, 85, 170),
    (68, 170, 136),
    (204, 204, 255),
    (221, 204, 34),
    (238, 102, 68),
    (187, 187, 136),
    (255, 170, 204),
    (136, 68, 153),
    (51, 119, 0),
    (170, 85, 85),
    (187, 153, 221),
    (51, 119, 204),
    (102, 153, 255),
    (119, 153, 68),
)


def palette(num_labels: int = 1 + len(COLORS)) -> UInt8[np.ndarray, "n 3"]:
    """RGB colours of labels 0 (background) to num_labels - 1; beyond 24 objects they repeat."""
    objects = [COLORS[label % len(COLORS)] for label in range(num_labels - 1)]
    return np.array([BACKGROUND, *objects], np.uint8)


def colorize(labels: ArrayLike, name: str = "labels") -> UInt8[np.ndarray, "*shape 3"]:
    """Paints a label map.

    Args:
        labels: integer labels of any shape, 0 for background, at least 0.
        name: what the error calls them.

    Returns:
        uint8 RGB [*shape, 3].

    Raises:
        ValueError: if labels are negative or not integers.
    """
    checked = check_labels(labels, name)
    return palette(int(checked.max(initial=0)) + 1)[checked]


def check_labels(labels: ArrayLike, name: str) -> Int[np.ndarray, "*shape"]:
    """The labels as an array, or a ValueError if they are negative or not integers."""
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        raise ValueError(
            f"{name}: got {labels.dtype} from {labels.min(initial=0)}; allowed are integers from 0 "
            "(background). Turn soft masks into labels with objdisc_jax.segmentation.segment."
        )
    return labels
