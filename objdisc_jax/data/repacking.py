"""Repacks published HDF5 files into our layout: the same records, many times quicker to read.

Published files cut an image into dozens of chunks, or a chunk out of many images, and some hold
one mask plane per entity. Here every image is one chunk, and a label map replaces the planes:

    mask [n,e,h,w,1]    becomes    segmentation [n,h,w]
    visibility [n,e]    adds       num_objects [n], unless that is there

under the data set's own names for them. All other arrays, and visibility, are copied as they are;
so are the file's attributes.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from objdisc_jax.data import conversion, hdf5_file, multi_object
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.errors import DataError

# Records are read in blocks of about this many bytes of images.
_BLOCK_BYTES = 1 << 23


def repack(
    declaration: DatasetDeclaration,
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    **options: Any,
) -> int:
    """Writes the records of a published file to a new one, under a progress bar.

    The declaration's `sources` name the arrays in both; options are `conversion.convert`'s.
    Returns the number of records.

    Raises:
        DataError: the file is missing, damaged or not as declared, or the new one exists or
            cannot be written.
    """
    path = pathlib.Path(path).expanduser().absolute()
    identity = {"dataset": declaration.name, **conversion.identity_of(path)}
    with contextlib.ExitStack() as stack:
        with _explained(path, declaration):
            file = stack.enter_context(hdf5_file.open_to_read(path))
            published, attributes = _Published(file, declaration), dict(file.attrs)
            others = published.others()

        def decode(first: int, items: list[int]) -> dict[str, np.ndarray]:
            with _explained(path, declaration):
                return published.read(slice(first, first + len(items)))

        attributes |= {
            "dataset": declaration.name,
            "source": path.name,
            "converter": __name__,
            "converter_version": conversion.VERSION,
        }
        attributes.pop("layout_version", None)  # that of the new file is ours
        return conversion.convert(
            conversion.Source(
                identity=identity,
                num_records=published.num_records,
                items=lambda start: iter(range(start, published.num_records)),
                decode=decode,
                block=published.block(),
                images=(declaration.source("image"), declaration.source("segmentation")),
            ),
            output,
            attributes=lambda num_records: attributes,
            arrays=others,
            **options,
        )


class _Published:
    """The arrays of a published file; a `_Problem` says what is wrong with them."""

    def __init__(self, file: h5py.File, declaration: DatasetDeclaration):
        self._source = declaration.source
        self._num_background = len(declaration.background_labels)
        groups = [key for key, value in file.items() if not isinstance(value, h5py.Dataset)]
        if groups:
            raise _Problem(f"Only arrays can be repacked, but {', '.join(groups)} are none.")
        self._arrays = dict(file.items())
        self._image = self._array("image", 4)
        self.num_records = len(self._image)
        self._by_record = {
            key: array
            for key, array in self._arrays.items()
            if array.ndim and len(array) == self.num_records
        }
        if self._source("segmentation") in self._arrays:
            self._array("segmentation", 3)
        elif declaration.has_masks:
            self._array("mask", 5)

    def _array(self, role: str, num_axes: int) -> h5py.Dataset:
        """Returns an array that must be there."""
        key = self._source(role)
        array = self._arrays.get(key)
        if array is None:
            raise _Problem(f"It has no array '{key}'; it holds {', '.join(self._arrays)}.")
        if array.ndim != num_axes or array.dtype.kind not in "iu":
            raise _Problem(
                f"Its array '{key}' is {array.dtype} of shape {array.shape}, but must hold "
                f"integers and have {num_axes} axes."
            )
        return array

    def block(self) -> int:
        """Returns how many records to read at once: those of whole chunks, if that is possible."""
        record_bytes = max(1, self._image.nbytes // max(1, self.num_records))
        wanted = max(1, _BLOCK_BYTES // record_bytes)
        chunk = self._image.chunks[0] if self._image.chunks else 1
        return wanted if chunk > 4 * wanted else max(1, wanted // chunk) * chunk

    def read(self, records: slice) -> dict[str, np.ndarray]:
        """Reads consecutive records."""
        read = {key: array[records] for key, array in self._by_record.items()}
        planes = read.pop(self._source("mask"), None)
        labels, counts = self._source("segmentation"), self._source("num_objects")
        if planes is not None and labels not in read:
            try:
                read[labels] = multi_object.label_map(planes[..., 0])
            except DataError as error:
                raise _Problem(f"Records from {records.start} on: {error}") from None
        if labels in read:
            least, most = read[labels].min(), read[labels].max()
            if least < 0 or most > 255:
                raise _Problem(f"It has labels from {least} to {most}, not 0 to 255.")
            read[labels] = read[labels].astype(np.uint8, copy=False)
        visibility = read.get(self._source("visibility"))
        if visibility is not None and counts not in self._arrays:
            read[counts] = (visibility.sum(1) - self._num_background).astype(np.uint8)
        return read

    def others(self) -> dict[str, np.ndarray]:
        """Reads the arrays that do not have one entry for each record."""
        return {key: array[()] for key, array in self._arrays.items() if key not in self._by_record}


class _Problem(Exception):
    """What is wrong with the published file."""


@contextlib.contextmanager
def _explained(path: pathlib.Path, declaration: DatasetDeclaration) -> Iterator[None]:
    """Turns what goes wrong with the published file into a `DataError`."""
    remedy = " Name the published file with --input FILE."
    try:
        with hdf5_file.explained(path):
            yield
        return
    except hdf5_file.Unreadable as error:
        reason = f"{error}{remedy if error.is_unsound else ''}"
    except _Problem as error:
        reason = f"{error}{remedy}"
    raise DataError(
        f"The file {path} cannot be repacked as data set '{declaration.name}'. {reason}"
    )
