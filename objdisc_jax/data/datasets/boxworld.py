"""BoxWorld: images of a grid of coloured keys, locks and boxes, with segmentations.

Read from the HDF5 file of the published PyTorch code (`image`, `segmentation_mask`,
`num_objects`), whose generator is not public. Size and number of labels are those of the file at
hand: 19 labels, or 10 in the variant in which key and lock are one object.
"""

from ml_collections import ConfigDict

from objdisc_jax.data.config import shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.examples import writer
from objdisc_jax.data.hdf5 import Hdf5Reader
from objdisc_jax.data.splits import consecutive


def default_config() -> ConfigDict:
    """Returns the keys that all data sets share."""
    return shared_config("boxworld", path="data/boxworld.h5")


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    return DatasetDeclaration(
        **shared_settings(config),
        reader=Hdf5Reader,
        sources={"segmentation": "segmentation_mask"},
        image_size=None,
        splits=consecutive(train=200_000, val=15_000, test=15_000),
        num_entities=19,
        largest_num_objects=18,
        download_command=f"cp YOUR_BOXWORLD_FILE {config.path}",
    )


write_example = writer(default_config, declare)
