"""Multi-dSprites scenes as the published data set describes them, deterministic in (seed, index).

An image is 64x64, flat colours without antialiasing, with squares, ellipses and hearts that cover
one another in the order of their numbers. Of dSprites they take six scales (0.5 to 1), forty
orientations and 32x32 places. Three variants:

- `binarized`: 2 or 3 white sprites on black;
- `colored_on_grayscale`: 2 to 5 sprites of random HSV colours on random grey;
- `colored_on_colored`: 1 to 4 sprites of random RGB colours on a random RGB colour.

How the published images treat hidden sprites is not known. Here all of an image's sprites are
drawn anew, colours excepted, until every one is seen in at least one pixel.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

# Bumped whenever the images of a seed change.
VERSION = 1
SIZE = 64
SHAPES = ("square", "ellipse", "heart")
SCALES = np.linspace(0.5, 1, 6)
ORIENTATIONS = np.linspace(0, 2 * np.pi, 40)
# Centres, in pixels, in both directions.
PLACES = np.linspace(16, 48, 32)

# Measured on dSprites at scale 1, in pixels: half the square's side, and the ellipse's half axes.
# The heart is the curve below, of that size for which it has the 237 pixels that were counted.
_SQUARE = 9.7
_ELLIPSE = (6.6, 11.6)
_HEART = 0.647


@dataclasses.dataclass(frozen=True)
class Variant:
    """How many sprites there are, and how they are coloured."""

    least: int  # the smallest number of sprites
    most: int  # the largest
    sprites: str  # how their colours are drawn: white, hsv or rgb
    background: str  # how its colour is drawn: black, gray or rgb


VARIANTS: Mapping[str, Variant] = {
    "binarized": Variant(2, 3, "white", "black"),
    "colored_on_grayscale": Variant(2, 5, "hsv", "gray"),
    "colored_on_colored": Variant(1, 4, "rgb", "rgb"),
}


def generate(variant: str, seed: int, start: int, stop: int) -> dict[str, np.ndarray]:
    """Generates the records start ... stop - 1 of a seed, at least 0, and a variant in `VARIANTS`.

    A record depends on the seed and its number alone, not on which others are asked for.

    Returns:
        What `data_scripts/convert_tfrecords.py` makes of the published records; e is the largest
        number of sprites and 1 for the background, entity 0; absent sprites have zeros:
            image: uint8 [n, 64, 64, 3];
            segmentation: uint8 [n, 64, 64], number of the entity at each pixel;
            num_objects: uint8 [n];
            x, y: float32 [n, e], the sprite's place, 0 to 1 of the places there are;
            shape: float32 [n, e], 1 square, 2 ellipse, 3 heart;
            scale, orientation: float32 [n, e];
            color: float32 [n, e, 3], 0 to 1 (`binarized`: [n, e, 1]);
            visibility: float32 [n, e], 1 for background and sprites that are there.
    """
    assert start < stop
    records = [_record(VARIANTS[variant], (seed, number)) for number in range(start, stop)]
    arrays = {key: np.stack([record[key] for record in records]) for key in records[0]}
    if variant == "binarized":
        arrays["color"] = arrays["color"][..., :1]
    return arrays


def _record(variant: Variant, stream: tuple[int, int]) -> dict[str, np.ndarray]:
    """Draws one record from its own random stream."""
    rng = np.random.default_rng(stream)
    num_sprites = rng.integers(variant.least, variant.most, endpoint=True)
    while True:
        sprites = {
            "shape": rng.integers(len(SHAPES), size=num_sprites) + 1,
            "scale": rng.choice(SCALES, num_sprites),
            "orientation": rng.choice(ORIENTATIONS, num_sprites),
            "x": rng.integers(len(PLACES), size=num_sprites) / (len(PLACES) - 1),
            "y": rng.integers(len(PLACES), size=num_sprites) / (len(PLACES) - 1),
        }
        segmentation = np.zeros((SIZE, SIZE), np.uint8)
        for number in range(num_sprites):
            cover = inside(**{key: values[number].item() for key, values in sprites.items()})
            segmentation[cover] = number + 1
        if len(np.unique(segmentation)) == num_sprites + 1:
            break
    kinds = [variant.background] + [variant.sprites] * int(num_sprites)
    color = np.stack([_color(rng, kind) for kind in kinds])

    def padded(values: np.ndarray, before: int) -> np.ndarray:
        after = 1 + variant.most - before - len(values)
        widths = [(before, after)] + [(0, 0)] * (values.ndim - 1)
        return np.pad(values, widths).astype(np.float32)

    return {
        "image": np.round(255 * color[segmentation]).astype(np.uint8),
        "segmentation": segmentation,
        "num_objects": np.array(num_sprites, np.uint8),
        **{key: padded(values, 1) for key, values in sprites.items()},
        "color": padded(color, 0),
        "visibility": padded(np.ones(num_sprites + 1), 0),
    }


def inside(
    shape: int, scale: float, orientation: float, x: float, y: float
) -> Bool[np.ndarray, "64 64"]:
    """Says which pixels' centres a sprite covers; the arguments are those of `generate`."""
    rows, cols = np.mgrid[:SIZE, :SIZE] + 0.5
    first, last = PLACES[[0, -1]]
    right, down = cols - (first + x * (last - first)), rows - (first + y * (last - first))
    cos, sin = np.cos(orientation) / scale, np.sin(orientation) / scale
    u, v = cos * right + sin * down, cos * down - sin * right
    if SHAPES[shape - 1] == "square":
        return np.maximum(np.abs(u), np.abs(v)) < _SQUARE
    if SHAPES[shape - 1] == "ellipse":
        return (u / _ELLIPSE[0]) ** 2 + (v / _ELLIPSE[1]) ** 2 < 1
    # px = 16 sin³ t, py = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, from -17 to 12.
    px, py = np.abs(u) / _HEART, -v / _HEART - 2.5
    t = np.arcsin(np.cbrt(np.minimum(px / 16, 1)))

    def outline(t: np.ndarray) -> np.ndarray:
        return 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)

    return (px < 16) & (py < outline(t)) & (py > outline(np.pi - t))


def _color(rng: np.random.Generator, kind: str) -> Float[np.ndarray, "3"]:
    """Draws a colour, RGB, 0 to 1."""
    if kind in ("white", "black"):
        return np.full(3, float(kind == "white"))
    if kind == "gray":
        return np.full(3, rng.uniform())
    if kind == "rgb":
        return rng.uniform(size=3)
    hue, saturation, value = rng.uniform(size=3)
    wheel = np.clip(np.abs((6 * hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return value * (1 - saturation * (1 - wheel))
