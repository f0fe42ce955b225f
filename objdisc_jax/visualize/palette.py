"""Colours of labels: a dark neutral background and 24 colours that stay apart.

The order matters: any first n colours are as distinct as n allows. The first eight were chosen to
be far apart in OKLab for normal, deuteranopic and protanopic sight alike; each later one is the
colour furthest from all before it. All of them are brighter than the background.
"""

import numpy as np
from jaxtyping import Integer, UInt8
from numpy.typing import ArrayLike

BACKGROUND = (38, 38, 44)
COLORS = tuple(
    (*bytes.fromhex(code),)
    for code in (
        "29b9ff ef9828 0d7e70 faee38 d42b25 ff74b8 2c51c6 7affe7 "
        "8877ee ffcc99 bb55aa 44aa88 ccccff ddcc22 ee6644 bbbb88 "
        "ffaacc 884499 337700 aa5555 bb99dd 3377cc 6699ff 779944"
    ).split()
)


def palette(num_labels: int = 1 + len(COLORS)) -> UInt8[np.ndarray, "n 3"]:
    """RGB colours of labels 0 (background) to num_labels - 1; beyond 24 objects they repeat."""
    objects = [COLORS[label % len(COLORS)] for label in range(num_labels - 1)]
    return np.array([BACKGROUND, *objects], np.uint8)


def colorize(labels: ArrayLike, name: str = "labels") -> UInt8[np.ndarray, "*shape 3"]:
    """Paints a label map, integers from 0 (background) on; errors call it by its name."""
    checked = check_labels(labels, name)
    return palette(int(checked.max(initial=0)) + 1)[checked]


def check_labels(labels: ArrayLike, name: str) -> Integer[np.ndarray, "*shape"]:
    """The labels as an array, or a ValueError if they are negative or not integers."""
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        raise ValueError(
            f"{name}: got {labels.dtype} from {labels.min(initial=0)}; allowed are integers from 0 "
            "(background). Turn soft masks into labels with objdisc_jax.segmentation.segment."
        )
    return labels
