"""Tetrominoes scenes as in the published data set, deterministic in (seed, index).

An image is 35x35 and black, with three pieces of four 5x5 blocks. What the published records
show, and what is drawn here:

- the shape of a piece is one of 17 fixed tetrominoes (of the 19, the horizontal bar and
  `.#/.#/##` do not occur), uniform and independent;
- its colour is one of six, uniform and independent; every block has the same bevelled pattern;
- its position is uniform over all integer positions with the bounding box inside the image;
  pieces may touch but never overlap. All three positions of a scene are drawn anew, shapes and
  colours kept, until no two pieces overlap: every placement without overlap is equally likely.
  (Placing one after another would run into scenes where the last piece fits nowhere.)
- the order of the entities says nothing: the pieces are exchangeable.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Integer, UInt8

# Bumped whenever the images of a seed change.
VERSION = 1
SIZE = 35
BLOCK = 5
NUM_PIECES = 3

# One block of a piece, before colouring.
PATTERN = np.array(
    [
        [191, 255, 255, 255, 223],
        [127, 159, 159, 159, 191],
        [127, 159, 159, 159, 191],
        [127, 159, 159, 159, 191],
        [95, 63, 63, 63, 127],
    ],
    np.uint8,
)

# Red, green, blue, yellow, magenta, cyan.
COLORS = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)], np.uint8)

# The pieces by their published number, rows separated by "/"; 0 is the background.
SHAPES: Mapping[int, str] = {
    2: "#/#/#/#",
    3: "###/#..",
    4: "#../###",
    5: "..#/###",
    6: "###/..#",
    7: "##/.#/.#",
    9: "##/#./#.",
    10: "#./#./##",
    11: "##./.##",
    12: ".##/##.",
    13: ".#/##/#.",
    14: "#./##/.#",
    15: ".#./###",
    16: "###/.#.",
    17: ".#/##/.#",
    18: "#./##/#.",
    19: "##/##",
}

_ENTITIES = np.arange(NUM_PIECES + 1, dtype=np.uint8)[:, None, None]
# Scenes are drawn in blocks of this many, each from its own random stream.
_SCENES_PER_STREAM = 1024


class Scenes(NamedTuple):
    """What three pieces (k = 3) per image are and where, in the order of the entities."""

    shape: Int[np.ndarray, "b k"]  # published number of each piece
    color: Int[np.ndarray, "b k"]  # index into `COLORS`
    corner: Int[np.ndarray, "b k 2"]  # row and column of the bounding box's top left, in pixels


def generate(seed: int, start: int, stop: int) -> dict[str, np.ndarray]:
    """Generates the records start ... stop - 1 of a seed, at least 0.

    A record depends on the seed and its number alone, not on which others are asked for.

    Returns:
        The arrays of the published data, with entity 0 the background:
            image: uint8 [n, 35, 35, 3];
            mask: uint8 [n, 4, 35, 35, 1], 0 or 255, a partition of the image;
            x, y: float32 [n, 4], row (x) and column (y) of the bounding box's top left corner;
            shape: float32 [n, 4], numbers of `SHAPES`;
            color: float32 [n, 4, 3], RGB, 0 or 1;
            visibility: float32 [n, 4], always 1;
        and in the layout that this project reads:
            segmentation: uint8 [n, 35, 35], number of the entity at each pixel;
            num_objects: uint8 [n], always 3.
    """
    streams = range(start // _SCENES_PER_STREAM, -(-stop // _SCENES_PER_STREAM))
    drawn = [_draw_scenes(np.random.default_rng((seed, stream))) for stream in streams]
    first = streams.start * _SCENES_PER_STREAM
    wanted = slice(start - first, stop - first)
    scenes = Scenes(*(np.concatenate(parts)[wanted] for parts in zip(*drawn, strict=True)))
    image, segmentation = render(scenes)
    return {
        "image": image,
        # One plane per entity, 255 where it is seen.
        "mask": np.uint8(255) * (segmentation[:, None] == _ENTITIES)[..., None],
        "x": _with_background(scenes.corner[..., 0]),
        "y": _with_background(scenes.corner[..., 1]),
        "shape": _with_background(scenes.shape),
        "color": _with_background(COLORS[scenes.color]),
        "visibility": np.ones((len(image), NUM_PIECES + 1), np.float32),
        "segmentation": segmentation,
        "num_objects": np.full(len(image), NUM_PIECES, np.uint8),
    }


def render(
    scenes: Scenes,
) -> tuple[UInt8[np.ndarray, "b 35 35 3"], UInt8[np.ndarray, "b 35 35"]]:
    """Returns the images of scenes and the number of the entity at each pixel."""
    num_scenes, num_pieces = scenes.shape.shape
    image = np.zeros((num_scenes, SIZE, SIZE, 3), np.uint8)
    segmentation = np.zeros((num_scenes, SIZE, SIZE), np.uint8)
    # Index arrays over [b, k, 4 blocks, 5 rows, 5 columns].
    scene = np.arange(num_scenes)[:, None, None, None, None]
    entity = np.arange(1, num_pieces + 1, dtype=np.uint8)[:, None, None, None]
    block = _block_corners(scenes.shape, scenes.corner)[..., None, None]
    row = block[:, :, :, 0] + np.arange(BLOCK)[:, None]
    col = block[:, :, :, 1] + np.arange(BLOCK)
    color = COLORS[scenes.color][:, :, None, None, None]
    image[scene, row, col] = PATTERN[..., None] * color
    segmentation[scene, row, col] = entity
    return image, segmentation


def _draw_scenes(rng: np.random.Generator) -> Scenes:
    """Draws the scenes of one random stream, always all of them."""
    size = (_SCENES_PER_STREAM, NUM_PIECES)
    shape = rng.choice(np.array(list(SHAPES)), size)
    color = rng.integers(len(COLORS), size=size)
    corner = np.zeros((*size, 2), np.int64)
    pending = np.arange(_SCENES_PER_STREAM)
    while len(pending):
        # Both ends are allowed: at 35 minus the box a piece touches the border.
        corner[pending] = rng.integers(SIZE - _BOXES[shape[pending]], endpoint=True)
        pending = pending[_any_overlap(_block_corners(shape[pending], corner[pending]))]
    return Scenes(shape, color, corner)


def _any_overlap(blocks: Int[np.ndarray, "b k 4 2"]) -> Bool[np.ndarray, " b"]:
    """Says in which scenes pieces, given by the corners of their blocks, overlap."""
    first, second = np.triu_indices(blocks.shape[1], k=1)
    distance = np.abs(blocks[:, first, :, None] - blocks[:, second, None, :]).max(-1)
    return (distance < BLOCK).any((1, 2, 3))


def _block_corners(
    shape: Int[np.ndarray, "b k"], corner: Int[np.ndarray, "b k 2"]
) -> Int[np.ndarray, "b k 4 2"]:
    """Returns row and column of the top left corner of each piece's four blocks."""
    return corner[:, :, None] + _BLOCKS[shape]


# Where the blocks of a piece lie in its bounding box, in pixels; of unused numbers, zeros.
_BLOCKS = np.zeros((max(SHAPES) + 1, 4, 2), np.int64)
for _number, _piece in SHAPES.items():
    _BLOCKS[_number] = BLOCK * np.argwhere([[c == "#" for c in row] for row in _piece.split("/")])
_BOXES = _BLOCKS.max(1) + BLOCK  # rows and columns of the bounding box, [number, 2]


def _with_background(values: Integer[np.ndarray, "b k *c"]) -> Float32[np.ndarray, "b k+1 *c"]:
    """Puts zeros for the background before the pieces' values."""
    return np.insert(values, 0, 0, axis=1).astype(np.float32)
