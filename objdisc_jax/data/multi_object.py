"""What DeepMind's Multi-Object Datasets hold, and how their records become ours.

A record is a `tf.train.Example` whose lists of values have no shape: the number of values is all
that tells data sets and variants apart. What is decoded from it:

    image         uint8 [n, h, w, 3]; one channel (binarized) is repeated
    segmentation  uint8 [n, h, w], the entity at each pixel, instead of one plane per entity
    num_objects   uint8 [n], without the background

and every other feature as it is. Entity 0 is the background, except in Objects Room.

Objects Room has four background entities: sky, floor and two halves of the walls. Where only one
half is in view it is entity 2, and the objects follow from 3 on. Here objects always have labels
from 4 on, and label 3 is empty then. Nothing in a record says so. Our own rule, not a published
one, rests on the walls spanning the image from side to side and meeting at a vertical edge:
entity 3 is a wall half if the last entity has pixels (so no place was given up), or if entity 2
does not reach one side of the image, entity 3 comes nearer to it, and the two share no columns.
An object that hides the end of the only wall has a rounded or slanted outline, so it shares some.
(A box that stands higher than the wall and hides its end altogether is taken for a wall half.)
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from objdisc_jax.data import conversion, tfrecord
from objdisc_jax.data.errors import DataError
from objdisc_jax.names import closest

_WALL, _WALL_OR_OBJECT, _FIRST_OBJECT = 2, 3, 4
# Records are decoded in blocks of about this many bytes.
_BLOCK_BYTES = 1 << 21
# Columns that both wall halves may have: their edge is hardly ever tilted.
_SHARED_COLUMNS = 2


@dataclasses.dataclass(frozen=True)
class Layout:
    """The features of one data set, or of one variant of it."""

    dataset: str
    variant: str  # "" if the data set has but one
    features: Mapping[str, tuple[tuple[int, ...], type[np.generic]]]  # shape and type of each
    entity_axis: int = 0  # the axis of `mask` that counts the entities, in a record

    @property
    def record_bytes(self) -> int:
        """About how long a serialized record is."""
        pixels = (math.prod(shape) for shape, dtype in self.features.values() if dtype == np.uint8)
        return 3 * sum(pixels)

    def arguments(self) -> str:
        """Returns the command line arguments that choose it."""
        return f"--dataset {self.dataset}" + (f" --variant {self.variant}" if self.variant else "")


def _layout(
    name: str,
    image: tuple[int, ...],
    mask: tuple[int, ...],
    floats: Mapping[str, tuple[int, ...]],
    integers: Sequence[str] = (),
    entity_axis: int = 0,
) -> Layout:
    """Returns a layout, NAME or NAME/VARIANT; `floats` have the shapes of one entity's."""
    dataset, _, variant = name.partition("/")
    features = {"image": (image, np.uint8), "mask": (mask, np.uint8)}
    entities = mask[entity_axis]
    features |= {key: ((entities, *shape), np.float32) for key, shape in floats.items()}
    features |= {key: ((entities,), np.uint8) for key in integers}
    return Layout(dataset, variant, features, entity_axis)


def _multi_dsprites(variant: str, entities: int, channels: int = 3) -> Layout:
    mask = (64, 64, entities, 1)
    keys = ("x", "y", "shape", "visibility", "orientation", "scale")
    floats = {"color": (channels,), **dict.fromkeys(keys, ())}
    name = f"multi_dsprites/{variant}"
    return _layout(name, (64, 64, channels), mask, floats, entity_axis=2)


LAYOUTS = (
    _layout(
        "clevr_with_masks",
        (240, 320, 3),
        (11, 240, 320, 1),
        {"pixel_coords": (3,), **dict.fromkeys(("x", "y", "z", "rotation", "visibility"), ())},
        integers=("size", "material", "shape", "color"),
    ),
    _layout(
        "tetrominoes",
        (35, 35, 3),
        (4, 35, 35, 1),
        {"color": (3,), **dict.fromkeys(("x", "y", "shape", "visibility"), ())},
    ),
    _multi_dsprites("binarized", 4, channels=1),
    _multi_dsprites("colored_on_grayscale", 6),
    _multi_dsprites("colored_on_colored", 5),
    _layout("objects_room/train", (64, 64, 3), (7, 64, 64, 1), {}),
    _layout("objects_room/empty_room", (64, 64, 3), (4, 64, 64, 1), {}),
    _layout("objects_room/six_objects", (64, 64, 3), (10, 64, 64, 1), {}),
    _layout("objects_room/identical_color", (64, 64, 3), (10, 64, 64, 1), {}),
)


def layout(dataset: str, variant: str = "") -> Layout:
    """Returns the layout of a data set's variant; a `DataError` lists what there is."""
    variants = {each.variant: each for each in LAYOUTS if each.dataset == dataset}
    if not variants:
        known = sorted({each.dataset for each in LAYOUTS})
        raise DataError(
            f"There are no TFRecord files of the data set '{dataset}'{closest(dataset, known)}. "
            f"Choose with --dataset one of: {', '.join(known)}."
        )
    if variant not in variants:
        allowed = ", ".join(filter(None, variants))
        found = f"no variant '{variant}'{closest(variant, variants)}" if variant else "variants"
        raise DataError(
            f"The data set '{dataset}' has {found}. "
            + (f"Choose with --variant one of: {allowed}." if allowed else "Leave out --variant.")
        )
    return variants[variant]


def source(layout: Layout, path: pathlib.Path, num_records: int) -> conversion.Source[bytes]:
    """Returns the first records of a TFRecord file, for `conversion.convert`."""
    return conversion.Source(
        identity={
            "dataset": layout.dataset,
            "variant": layout.variant,
            "num_records": num_records,
            **conversion.identity_of(path),
        },
        num_records=num_records,
        items=lambda start: tfrecord.read_records(path, start),
        decode=lambda first, records: decode(layout, records, source=path, first=first),
        block=max(1, _BLOCK_BYTES // layout.record_bytes),
    )


def decode(
    layout: Layout, records: Sequence[bytes], *, source: object, first: int
) -> dict[str, np.ndarray]:
    """Decodes at least one serialized record to our arrays, [n, ...] each.

    A record that is not as the layout says, or whose masks are no partition, is a `DataError` that
    names the source and the record, by the number of the first.
    """
    try:
        return arrange(layout, _features(layout, records))
    except DataError as error:
        if len(records) == 1:
            raise DataError(f"Record {first} of {source} cannot be converted. {error}") from None
    # Which one is it?
    each = [
        decode(layout, [record], source=source, first=number)
        for number, record in enumerate(records, first)
    ]
    return {key: np.concatenate([arrays[key] for arrays in each]) for key in each[0]}


def arrange(layout: Layout, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns our arrays, [n, ...] each, of records' features, after checking them."""
    arrays = dict(features)
    planes = np.moveaxis(arrays.pop("mask")[..., 0], layout.entity_axis + 1, 1)
    segmentation = label_map(planes)
    if layout.dataset == "objects_room":
        segmentation = with_objects_from_4(segmentation, planes.shape[1])
        objects = np.arange(_FIRST_OBJECT, planes.shape[1])[:, None, None, None]
        num_objects = (segmentation == objects).any((2, 3)).sum(0)  # those that have pixels
    else:
        num_objects = _num_foreground(arrays["visibility"])
    image = arrays.pop("image")
    return {
        "image": np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image,
        "segmentation": segmentation,
        "num_objects": num_objects.astype(np.uint8),
        **arrays,
    }


def label_map(planes: UInt8[np.ndarray, "n e h w"]) -> UInt8[np.ndarray, "n h w"]:
    """Returns the number of the plane that is 255 at each pixel; the others must be 0."""
    # If every sum is 255 no pixel is without a plane, and the count leaves each with just one.
    sums = planes.sum(1, dtype=np.uint16)
    if (sums != 255).any() or np.count_nonzero(planes) != sums.size:
        raise DataError(
            "The mask planes are no partition of the image: at every pixel one plane must be 255 "
            "and all others 0. The file is damaged, or of another data set."
        )
    entities = np.arange(planes.shape[1], dtype=np.uint8)[:, None, None]
    return np.bitwise_or.reduce(planes & entities, axis=1)


def with_objects_from_4(
    segmentation: UInt8[np.ndarray, "n h w"], num_entities: int
) -> UInt8[np.ndarray, "n h w"]:
    """Returns label maps of Objects Room, of so many entities, with objects from label 4 on."""
    wall, other = ((segmentation == label).any(1) for label in (_WALL, _WALL_OR_OBJECT))
    nearer = ~wall[:, 0] & (other.argmax(1) < wall.argmax(1))
    nearer |= ~wall[:, -1] & (other[:, ::-1].argmax(1) < wall[:, ::-1].argmax(1))
    apart = (other & wall).sum(1) <= _SHARED_COLUMNS
    all_in_use = (segmentation == num_entities - 1).any((1, 2))
    is_object = ~(all_in_use | other.any(1) & nearer & apart)
    moved = is_object[:, None, None] & (segmentation >= _WALL_OR_OBJECT)
    return segmentation + moved.astype(np.uint8)


def _num_foreground(visibility: Float32[np.ndarray, "n e"]) -> np.ndarray:
    """Counts the entities that are there, less the background."""
    if not np.isin(visibility, (0, 1)).all() or (visibility[:, 0] != 1).any():
        raise DataError(
            "'visibility' must be 0 or 1, and 1 for the background: the file is damaged, or of "
            "another data set."
        )
    return visibility.sum(1) - 1


def _features(layout: Layout, records: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Returns the features of the records, [n, ...] each, in their shapes."""
    examples = [tfrecord.split_example(record) for record in records]
    arrays = {}
    if all(example.keys() == layout.features.keys() for example in examples):
        for key, (shape, dtype) in layout.features.items():
            values = tfrecord.stack_values([example[key] for example in examples])
            if values is not None and values.dtype == dtype and values.shape[1] == math.prod(shape):
                arrays[key] = values.reshape(-1, *shape)
    if len(arrays) == len(layout.features):
        return arrays
    # Stored in an unusual way, or not as declared: slowly, one by one.
    parsed = [tfrecord.parse_example(record) for record in records]
    for example in parsed:
        if problem := _mismatch(layout, example):
            fitting = [each.arguments() for each in LAYOUTS if not _mismatch(each, example)]
            hint = f"It fits {' or '.join(fitting) or 'no known data set'}."
            raise DataError(f"It is not of {layout.arguments()}: {problem} {hint}")
    return {
        key: np.stack([np.reshape(example[key], shape) for example in parsed])
        for key, (shape, _) in layout.features.items()
    }


def _mismatch(layout: Layout, example: Mapping[str, tfrecord.Feature]) -> str:
    """Says what keeps an example from having the features of a layout; empty if nothing does."""
    if example.keys() != layout.features.keys():
        return (
            f"it holds {', '.join(sorted(example)) or 'nothing'}, but should hold "
            f"{', '.join(sorted(layout.features))}."
        )
    for key, (shape, dtype) in layout.features.items():
        values = example[key]
        name = values.dtype.name if isinstance(values, np.ndarray) else "strings"
        if len(values) != math.prod(shape) or name != np.dtype(dtype).name:
            return (
                f"'{key}' has {len(values)} values ({name}), but must have {math.prod(shape)} "
                f"({np.dtype(dtype).name}) for its shape {shape}."
            )
    return ""
