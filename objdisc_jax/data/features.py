"""Fields that a model has computed of all of a data set's images, in a file beside it.

An HDF5 file in our layout, an array for each field with a chunk for each record, in the order of
the data set's records. Its attribute `computed_with` says in JSON what they were computed of and
with; a file of other images than the data set's is refused here, one of another model by the model.
"""

import contextlib
import dataclasses
import functools
import json
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Int64

from objdisc_jax.data import hdf5_file
from objdisc_jax.data.declaration import DatasetDeclaration, Field, Reader
from objdisc_jax.data.errors import BadImageError, DataError
from objdisc_jax.data.hdf5 import RecordArray

ATTRIBUTE = "computed_with"
_COMMAND = "objdisc features --config CONFIG"


def num_records(reader: Reader) -> int:
    """Returns how many records a data set has, whatever split they are in."""
    return max(split.stop for split in reader.splits().values())


def identity(declaration: DatasetDeclaration, reader: Reader) -> dict[str, Any]:
    """Returns what distinguishes a data set's images, as a model is given them, from others."""
    matte, names = declaration.read_options.matte, getattr(reader, "names", None)
    return {
        **({} if names is None else {"names": zlib.crc32(b"\0".join(names().tolist()))}),
        **({"matte": list(matte)} if any(matte) else {}),  # as older files say nothing of black
        "dataset": declaration.name,
        "images": declaration.source("image"),
        "num_records": num_records(reader),
        "first_image": zlib.crc32(reader.read(0, ["image"])["image"].tobytes()),
        "crop": declaration.crop and [list(side) for side in declaration.crop],
        "image_size": list(reader.image_size()),
    }


def attach(
    declaration: DatasetDeclaration, reader: Reader, path: str
) -> tuple[DatasetDeclaration, Reader]:
    """Adds a file's fields to what a data set has.

    Args:
        declaration: the data set.
        reader: of its records.
        path: the file.

    Raises:
        DataError: there is no such file, it cannot be read, or it is of other images.
    """
    file = FeatureFile(Path(path).expanduser().absolute())
    stored = dict(file.computed_with)
    refuse_others(file.path, stored.pop("data", {}), identity(declaration, reader))
    fields = {
        name: Field(str(array.dtype), tuple(array.shape[1:]), computed_with=stored)
        for name, array in file.arrays.items()
    }
    together = dataclasses.replace(declaration, fields={**declaration.fields, **fields})
    return together, WithFeatures(reader, file, tuple(fields))


def refuse_others(path: Any, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises a `DataError` that names what fields were computed with other than wanted."""
    differing = [
        f"  {key}: {stored.get(key)!r} there, {wanted.get(key)!r} in the config"
        for key in sorted(stored.keys() | wanted.keys())
        if stored.get(key) != wanted.get(key)
    ]
    if differing:
        raise DataError(
            f"data.features: {path} was computed with something else:\n"
            + "\n".join(differing)
            + f"\nSet the config to what is there, or compute the file anew: {_COMMAND} --overwrite"
        )


class FeatureFile:
    """An HDF5 file of computed fields, opened when it is first needed, in whatever process.

    Attributes:
        path: the file; what is asked of it raises a `DataError` if it is missing or damaged.
    """

    def __init__(self, path: Path):
        self.path = path

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    @functools.cached_property
    def computed_with(self) -> dict[str, Any]:
        """What the fields were computed of and with."""
        with self._explained():
            attributes = dict(self._file.attrs)
        try:
            return json.loads(str(attributes[ATTRIBUTE]))
        except (KeyError, TypeError, ValueError):
            raise self._invalid(f"it has no attribute {ATTRIBUTE!r}") from None

    @functools.cached_property
    def arrays(self) -> dict[str, RecordArray]:
        """The fields, [n, ...] each."""
        with self._explained():
            found = {name: a for name, a in self._file.items() if isinstance(a, h5py.Dataset)}
            return {name: RecordArray(array) for name, array in found.items()}

    def read(self, name: str, record: int) -> np.ndarray:
        """Reads a field of a record."""
        with self._explained(f"record {record} of {name!r}: "):
            return self.arrays[name].read(record)

    @functools.cached_property
    def _file(self) -> h5py.File:
        if not self.path.is_file():
            raise DataError(
                f"data.features: there is no file {self.path}. Name another with "
                f"--config.data.features=PATH, or compute it: {_COMMAND}"
            )
        with self._explained():
            return hdf5_file.open_to_read(self.path)

    @contextlib.contextmanager
    def _explained(self, where: str = "") -> Iterator[None]:
        try:
            with hdf5_file.explained(self.path):
                yield
        except hdf5_file.Unreadable as error:
            if error.is_unsound:
                raise self._invalid(f"{where}{error}") from error
            raise DataError(f"data.features: {self.path} cannot be read. {error}") from error

    def _invalid(self, reason: str) -> DataError:
        return DataError(
            f"data.features: {self.path} is no sound file of features ({reason}). Compute it anew: "
            f"{_COMMAND} --overwrite"
        )


class WithFeatures:
    """A reader of a data set's own fields and of computed ones."""

    def __init__(self, reader: Reader, file: FeatureFile, names: Collection[str]):
        self._reader, self._features, self._names = reader, file, names

    def splits(self) -> Mapping[str, range]:
        """Returns those of the data set."""
        return self._reader.splits()

    def image_size(self) -> tuple[int, int]:
        """Returns that of the data set."""
        return self._reader.image_size()

    def object_counts(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns those of the data set."""
        return self._reader.object_counts(records)

    def read(self, record: int, names: Collection[str]) -> dict[str, np.ndarray]:
        """Returns the fields of a record that are asked for; reads an image only if it is."""
        own = [name for name in names if name not in self._names]
        found = self._reader.read(record, own) if own else {}
        stored = {n: self._features.read(n, record) for n in names if n in self._names}
        if any(np.isnan(values.flat[0]) for values in stored.values()):
            raise BadImageError(
                f"The image of record {record} could not be read when {self._features.path} was "
                f"computed. Restore the image and compute the file anew: {_COMMAND} --overwrite"
            )
        return {**found, **stored}
