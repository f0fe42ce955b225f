"""One split of a data set: which records it has, and batches of them as NumPy arrays."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence

import ml_collections
import numpy as np
from jaxtyping import Int

from objdisc_jax.data import datasets, features
from objdisc_jax.data.declaration import DatasetDeclaration, Field, Reader
from objdisc_jax.data.errors import SKIPPING, BadImageError, DataError
from objdisc_jax.data.sampler import PADDING
from objdisc_jax.names import closest

# The fields that were asked for: image uint8 [b, h, w, 3], segmentation uint8 [b, h, w] and those
# that the set declares, [b, ...]. Always valid bool [b], False for padding, where fields are zeros,
# and index int64 [b], record number, -1 for padding.
Batch = dict[str, np.ndarray]
Positions = Sequence[int] | Int[np.ndarray, " b"]

# So many images that cannot be read are no accident.
_MOST_TRIES = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A split of a data set; other processes that it is sent to open its files anew."""

    declaration: DatasetDeclaration  # the data set
    split: str  # name of the split
    # Numbers, int64 [n], of the split's records that pass the filter, ascending.
    indices: np.ndarray
    image_size: tuple[int, int]  # rows and columns of the images
    reader: Reader  # reads the records

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def fields(self) -> Mapping[str, Field]:
        """What there is of every example, by name."""
        fields = {"image": Field("uint8", (*self.image_size, 3))}
        if self.declaration.has_masks:
            fields["segmentation"] = Field("uint8", self.declaration.mask_size or self.image_size)
        return {**fields, **self.declaration.fields}

    def check_fields(self, names: Collection[str], who: str) -> None:
        """Raises a `DataError` if the set lacks a field that `who`, say "model 'x'", needs."""
        for name in names:
            if name not in self.fields:
                raise DataError(
                    f"{who} needs the field '{name}', but data set '{self.declaration.name}' has "
                    f"{', '.join(self.fields)}. Declare it in the data set's `fields`, name a "
                    "file that has it with --config.data.features, or choose another data set."
                )

    def read(self, positions: Positions, names: Collection[str] | None = None) -> Batch:
        """Reads the examples at these positions of the split.

        Args:
            positions: numbers from 0 to len(self) - 1; -1 gives padding, zeros with `valid` False
                and `index` -1.
            names: the fields to read; None reads all.

        Raises:
            DataError: the set lacks a field, or a record cannot be read.
        """
        return self.read_or_replace(positions, names=names, replace=False)[0]

    def read_or_replace(
        self,
        positions: Positions,
        *,
        names: Collection[str] | None = None,
        replace: bool,
    ) -> tuple[Batch, dict[int, str]]:
        """Reads as `read` does and, if the set skips bad images, tells those it skipped.

        Args:
            positions: as for `read`.
            names: as for `read`.
            replace: whether another example takes the place of one that cannot be read; which one
                depends on the position alone. If not, its place becomes padding.

        Returns:
            The batch, and what is wrong with the records that were skipped, by number. That very
            many are skipped one after another is an error.
        """
        fields = self.fields
        names = fields if names is None else names
        self.check_fields(names, "A batch")
        count = len(positions)
        batch = {"valid": np.zeros(count, bool), "index": np.full(count, PADDING, np.int64)}
        for name in names:
            batch[name] = np.zeros((count, *fields[name].shape), fields[name].dtype)
        skipped: dict[int, str] = {}
        for row, position in enumerate(map(int, positions)):
            if position == PADDING:
                continue
            for record in self._candidates(position):
                try:
                    example = self._read_one(record, names)
                except BadImageError as error:
                    if self.declaration.on_bad_image == "raise":
                        raise BadImageError(f"{error}\n{SKIPPING}") from error
                    skipped[record] = str(error)
                    if not replace:
                        break
                    continue
                batch["valid"][row], batch["index"][row] = True, record
                for name in names:
                    batch[name][row] = example[name]
                break
            else:
                raise DataError(
                    f"{_MOST_TRIES} images that were tried one after another cannot be read, too "
                    f"many to skip. The last: {skipped[record]}"
                )
        return batch, skipped

    def _candidates(self, position: int) -> Iterator[int]:
        """Yields the record at a position, and substitutes, drawn from the whole split."""
        yield int(self.indices[position])
        others = np.random.default_rng(position).integers(len(self), size=_MOST_TRIES - 1)
        yield from self.indices[others].tolist()

    def _read_one(self, record: int, names: Collection[str]) -> dict[str, np.ndarray]:
        example = self.reader.read(record, names)
        if "segmentation" in example:
            lowest, highest = example["segmentation"].min(), example["segmentation"].max()
            num_entities = self.declaration.num_entities
            if lowest < 0 or highest >= num_entities:
                raise DataError(
                    f"The segmentation of record {record} of data set '{self.declaration.name}' "
                    f"has labels from {lowest} to {highest}, but they must lie between 0 and "
                    f"{num_entities - 1}: the data may be of another variant. "
                    f"{self.declaration.how_to_fix()}"
                )
        return example


def load(config: ml_collections.ConfigDict, split: str) -> Dataset:
    """Returns a split of the data set that a configuration describes.

    Args:
        config: a data set's `default_config()`, possibly changed; `config.name` says which set.
        split: name of the split, usually "train", "val" or "test".

    Raises:
        ConfigError: there is no such data set.
        DataError: the split is unknown, the file is missing or invalid, or no image of the split
            passes the filter.
    """
    declaration = datasets.get(str(config.name)).declare(config)
    reader = declaration.reader(declaration)
    if config.get("features") is not None:
        declaration, reader = features.attach(declaration, reader, config.features)
    splits = reader.splits()
    if split not in splits:
        raise DataError(
            f"Data set '{declaration.name}' has no split '{split}'{closest(split, splits)}. "
            f"Ask for one of: {', '.join(splits)}."
        )
    indices = np.asarray(splits[split], np.int64)
    if not len(indices):
        raise DataError(
            f"There is no image of split '{split}' of data set '{declaration.name}' in "
            f"{declaration.absolute_path}. {declaration.how_to_fix()}"
        )
    if declaration.shuffle_seed is not None:
        num_records = max(members.stop for members in splits.values())
        order = np.random.default_rng(declaration.shuffle_seed).permutation(num_records)
        indices = np.sort(order[indices])
    if declaration.max_objects is not None:
        if declaration.largest_num_objects is None:
            raise DataError(
                f"Data set '{declaration.name}' does not tell how many objects its images have, so "
                "they cannot be chosen by it. Leave out --config.data.max_objects."
            )
        most = declaration.max_objects - declaration.counts_background
        indices = indices[reader.object_counts(indices) <= most]
        if not len(indices):
            raise DataError(
                f"No image is left in split '{split}' of data set '{declaration.name}': of its "
                f"{len(splits[split])} images, none has at most max_objects = "
                f"{declaration.max_objects} objects. Raise --config.data.max_objects, or leave it "
                "out to use all images."
            )
    if split == "test":
        indices = indices[: declaration.num_test_images]
    return Dataset(declaration, split, indices, reader.image_size(), reader)
