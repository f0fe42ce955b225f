"""The files that are kept of segmented images, written by threads beside the model.

Decoding, encoding and the arithmetic between them leave Python's lock to other threads.
"""

import contextlib
import errno
import io
import tempfile
import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from objdisc_jax import visualize
from objdisc_jax.data import marks
from objdisc_jax.data.errors import BadImageError
from objdisc_jax.data.images import DEFAULT_OPTIONS, ReadOptions, read_rgb
from objdisc_jax.data.inputs import File, Input, Skipped, Unwritten
from objdisc_jax.errors import UserError
from objdisc_jax.evaluation import visualization
from objdisc_jax.files import write_atomically
from objdisc_jax.prediction import targets
from objdisc_jax.prediction.segmenter import Segmented
from objdisc_jax.segmentation import segment_enlarged

# Errors that the next image would meet as well.
_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_WAYS_OUT = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Make room, or name another folder."),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "See to its permissions, or name another folder."),
}
_PIXELS_PER_THREAD = 1 << 24
"""Pixels of images that all threads together hold at a time, per thread; or one larger image. Each
takes about 20 bytes."""


class Writer:
    """Writes the results of images.

    Args:
        output: the folder; made if it doesn't exist.
        outputs: what is written, names in `prediction.OUTPUTS`.
        background: how background is told from objects: the config's `background` block.
        num_threads: how many images are written at a time.
        read_options: how images are read again, as they were before.
        overwrite: whether files that `predict` did not write are replaced.

    Raises:
        UserError: nothing can be written to the folder.
    """

    def __init__(
        self,
        output: Path,
        outputs: Collection[str],
        background: Mapping[str, Any],
        num_threads: int,
        read_options: ReadOptions = DEFAULT_OPTIONS,
        overwrite: bool = False,
    ):
        try:
            output.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=output, prefix=".", suffix=".partial"):
                pass
        except OSError as error:
            raise _unusable(output, error) from error
        self._output, self._outputs, self._background = output, outputs, background
        self._num_threads = num_threads
        self._read_options, self._overwrite = read_options, overwrite
        self._pixels = _Budget(num_threads * _PIXELS_PER_THREAD)

    def __call__(
        self, results: Iterable[tuple[Input, Segmented]]
    ) -> Iterator[File | Skipped | Unwritten]:
        """Writes results as they come; yields, in their order, the files whose are written.

        A file that has gone or changed since it was read is skipped.

        Raises:
            UserError: the disk is full or read-only.
        """
        waiting: deque[Future[File | Skipped | Unwritten]] = deque()
        with ThreadPoolExecutor(self._num_threads, "writer") as threads:
            try:
                for image, segmented in results:
                    waiting.append(threads.submit(self._write_or_skip, image, segmented))
                    while len(waiting) > 4 * self._num_threads or (waiting and waiting[0].done()):
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                threads.shutdown(cancel_futures=True)

    def _write_or_skip(self, image: Input, segmented: Segmented) -> File | Skipped | Unwritten:
        rows, columns = image.size
        try:
            with self._pixels.taken(rows * columns):
                self.write(image, segmented)
        except BadImageError as error:
            return Skipped(image.file, str(error))
        except MemoryError:
            return Unwritten(image.file, f"its {rows} x {columns} pixels need too much memory")
        except OSError as error:
            if error.errno in _FATAL:
                raise _unusable(self._output, error) from error
            where = error.filename2 or error.filename  # that something is moved to, if it is
            return Unwritten(image.file, f"{error.strerror or error} ({where})")
        except Exception as error:  # costs this image, whatever it is
            return Unwritten(image.file, f"{type(error).__name__}: {error}")
        return image.file

    def write(self, image: Input, segmented: Segmented) -> None:
        """Writes what is kept of an image.

        Raises:
            BadImageError: the image has gone or changed since it was read.
            OSError: a file cannot be written.
        """
        chosen = self._outputs
        labels = at_full_size(image.size, image.crop, segmented, self._background)
        if "labels" in chosen:
            self._save(image.file, "labels", visualize.encode_labels(labels))
        if "panel" in chosen:
            own = segmented.own_background
            is_told = own is None and self._background["mode"] != "none"
            found = segmented.labels[None] if is_told else None
            panel = visualization.compose(segmented.rows, segmented.masks[None], own, found)
            self._save(image.file, "panel", visualize.encode_png(panel))
        if "npz" in chosen:
            self._save(image.file, "npz", _encode_npz(image, segmented))
        if "overlay" in chosen:
            # Read again: kept from the first time, large images would fill the memory.
            pixels = np.asarray(read_rgb(image.file.path, self._read_options))
            if pixels.shape[:2] != image.size:
                raise BadImageError(f"The image {image.file.path} changed while it was segmented.")
            overlay = visualize.overlay(pixels, labels)
            self._save(image.file, "overlay", visualize.encode_png(overlay))

    def _save(self, file: File, what: str, content: bytes) -> None:
        path = targets.target(self._output, file, what)
        if not self._overwrite and targets.is_taken(path):  # it has come since all were checked
            raise FileExistsError(errno.EEXIST, "There is a file that predict did not write", path)
        write_atomically(path, marks.marked(content))


def at_full_size(
    size: tuple[int, int],
    crop: tuple[int, int, int, int],
    segmented: Segmented,
    background: Mapping[str, Any],
) -> UInt8[np.ndarray, "H W"]:
    """The label map of all of an image; what was cropped away is background.

    Args:
        size: rows H and columns W of the image.
        crop: top, bottom, left and right of what the model saw.
        segmented: what it found there.
        background: how background is told from objects: the config's `background` block.
    """
    top, bottom, left, right = crop
    full = np.zeros(size, np.uint8)
    rows, columns = bottom - top, right - left
    if segmented.is_coarse:
        own = segmented.own_background
        inside = segment_enlarged(segmented.masks, (rows, columns), background=own, **background)
    else:
        labels = Image.fromarray(segmented.labels)
        inside = np.asarray(labels.resize((columns, rows), Image.Resampling.NEAREST))
    full[top:bottom, left:right] = inside
    return full


class _Budget:
    """An amount that threads share; one that needs all of it or more waits for all others."""

    def __init__(self, total: int):
        self._total = self._left = total
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Waits until so much is left, and takes it for the length of the block."""
        amount = min(amount, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= amount)
            self._left -= amount
        try:
            yield
        finally:
            with self._changed:
                self._left += amount
                self._changed.notify_all()


def _unusable(output: Path, error: OSError) -> UserError:
    way_out = _WAYS_OUT.get(error.errno or 0, "Name another folder.")
    return UserError(f"--output: {output} cannot be written ({error.strerror or error}). {way_out}")


def _encode_npz(image: Input, segmented: Segmented) -> bytes:
    arrays = {
        "crop": np.array(image.crop),
        **segmented.details,
        "masks": segmented.masks,
        "segmentation": segmented.labels,
    }
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()
