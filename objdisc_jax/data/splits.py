"""Split ranges in files: those of another size scale the published ranges and state them."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from objdisc_jax.data.errors import DataError

_PREFIX = "split_"


def consecutive(**sizes: int) -> dict[str, range]:
    """Returns splits of these sizes, one after another from record 0 on."""
    stops = itertools.accumulate(sizes.values())
    return {name: range(stop - sizes[name], stop) for name, stop in zip(sizes, stops, strict=True)}


def scaled_splits(splits: Mapping[str, range], num_records: int) -> dict[str, range]:
    """Scales published splits, ranges from 0 on, to a file of another size; none may be empty.

    Every split but the largest gets its share rounded down, at least one record; the largest gets
    what is left. The splits keep their order in the file.
    """
    total = max(split.stop for split in splits.values())
    if num_records == total:
        return dict(splits)
    if num_records < len(splits):
        raise DataError(
            f"{num_records} images cannot be divided into the splits {', '.join(splits)}: "
            f"ask for at least {len(splits)}."
        )
    sizes = {name: max(1, len(split) * num_records // total) for name, split in splits.items()}
    largest = max(sizes, key=lambda name: len(splits[name]))
    sizes[largest] += num_records - sum(sizes.values())
    in_order = sorted(splits, key=lambda name: splits[name].start)
    return consecutive(**{name: sizes[name] for name in in_order})


def to_attributes(splits: Mapping[str, range]) -> dict[str, list[int]]:
    """Returns the file attributes that state the splits: `split_<name>` = [start, stop]."""
    return {_PREFIX + name: [split.start, split.stop] for name, split in splits.items()}


def from_attributes(attributes: Mapping[str, Any]) -> dict[str, range]:
    """Returns the splits, pairs of integers, that a file's attributes state, if any."""
    splits = {}
    for key in filter(lambda key: key.startswith(_PREFIX), attributes):
        bounds = np.asarray(attributes[key])
        if bounds.shape != (2,) or bounds.dtype.kind not in "iu":
            raise DataError(f"Attribute '{key}' is {attributes[key]!r}, not two integers.")
        splits[key.removeprefix(_PREFIX)] = range(int(bounds[0]), int(bounds[1]))
    return splits
