"""3D Shapes: 64x64 pictures of one object in a room, every combination of six factors once.

Read from the published `3dshapes.h5` (or the same arrays chunked by picture, which
`data_scripts/repack_hdf5.py` makes of it), or from the file of rendered look-alikes that
`data_scripts/render_shapes3d.py` writes. The file is in the order of the factors: its first
pictures all have red floors. So the splits, of the sizes given, are cut from a fixed permutation.
"""

import ml_collections
import numpy as np
from jaxtyping import Int64

from objdisc_jax.data import hdf5
from objdisc_jax.data.config import shared_config, shared_fields
from objdisc_jax.data.declaration import DatasetDeclaration

SPLITS = {
    "train": range(0, 400_000),
    "val": range(400_000, 430_000),
    "test": range(430_000, 480_000),
}


def default_config() -> ml_collections.ConfigDict:
    """Returns all 480,000 pictures; each holds one object."""
    config = shared_config("shapes3d", path="data/3dshapes.h5")
    # The published code took the splits in the order of the file, so that it trained on other
    # floors than it tested on, and left out the last 20,000 pictures. True repeats that.
    config.published_splits = False
    return config


def declare(config: ml_collections.ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    published = config.published_splits
    return DatasetDeclaration(
        **shared_fields(config),
        reader=Shapes3dReader,
        fields={**hdf5.FIELDS, "image": "images"},
        image_size=(64, 64),
        splits=SPLITS | ({"test": range(430_000, 460_000)} if published else {}),
        shuffle_seed=None if published else 0,
        has_masks=False,
        largest_num_objects=1,
        download_command="bash data_scripts/download_shapes3d.sh",
        generate_command=f"python data_scripts/render_shapes3d.py --output {config.path}",
    )


class Shapes3dReader(hdf5.Hdf5Reader):
    """Reads pictures that all hold one object."""

    def object_counts(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns ones."""
        return np.ones(len(records), np.int64)
