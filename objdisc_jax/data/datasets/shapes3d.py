"""3D Shapes: 64x64 images of one object in a room, every combination of six factors once.

Read from the published `3dshapes.h5` (or the same arrays chunked by image, which
`data_scripts/repack_hdf5.py` makes of it), or from the file of rendered look-alikes that
`data_scripts/render_shapes3d.py` writes. The file is in the order of the factors: its first
images all have red floors. So the splits, of the sizes given, are cut from a fixed permutation.
"""

import dataclasses

import numpy as np
from jaxtyping import Int64
from ml_collections import ConfigDict

from objdisc_jax.data.config import shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.examples import Example, write_arrays, writer
from objdisc_jax.data.hdf5 import Hdf5Reader
from objdisc_jax.data.splits import consecutive

SPLITS = consecutive(train=400_000, val=30_000, test=50_000)


def default_config() -> ConfigDict:
    """Returns all 480,000 images; each holds one object."""
    config = shared_config("shapes3d", path="data/3dshapes.h5")
    # The published code took the splits in the order of the file, so that it trained on other
    # floors than it tested on, and left out the last 20,000 images. True repeats that.
    config.published_splits = False
    return config


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    published = config.published_splits
    return DatasetDeclaration(
        **shared_settings(config),
        reader=Shapes3dReader,
        sources={"image": "images"},
        image_size=(64, 64),
        splits=SPLITS | ({"test": range(430_000, 460_000)} if published else {}),
        shuffle_seed=None if published else 0,
        has_masks=False,
        largest_num_objects=1,
        download_command="bash data_scripts/download_shapes3d.sh",
        generate_command=f"python data_scripts/render_shapes3d.py --output {config.path}",
    )


class Shapes3dReader(Hdf5Reader):
    """Reads images that all hold one object."""

    def object_counts(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns ones."""
        return np.ones_like(records)


def _write(declaration: DatasetDeclaration, example: Example) -> Example:
    """Writes images and the values of their factors, and no number of objects."""
    num_images = len(example.image)
    arrays = {"images": example.image, "labels": np.zeros((num_images, 6))}
    write_arrays(declaration.absolute_path, arrays, example.splits)
    if declaration.shuffle_seed is None:
        return example
    order = np.random.default_rng(declaration.shuffle_seed).permutation(num_images)
    drawn = {split: np.sort(order[records]) for split, records in example.splits.items()}
    return dataclasses.replace(example, splits=drawn)


write_example = writer(default_config, declare, _write)
