"""Tetrominoes: 35x35 images of three coloured tetrominoes on black.

Read from the file that `data_scripts/generate_tetrominoes.py` writes, or from the published data
(DeepMind's Multi-Object Datasets) as HDF5. The splits follow the papers: 60,000 images to train
on, the next 320 for the score.
"""

from ml_collections import ConfigDict

from objdisc_jax.data.config import conversion_command, shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.examples import writer
from objdisc_jax.data.hdf5 import Hdf5Reader

SPLITS = {"train": range(60_000), "val": range(60_320, 65_000), "test": range(60_000, 60_320)}


def default_config() -> ConfigDict:
    """Returns the keys that all data sets share; every image holds exactly three objects."""
    return shared_config("tetrominoes", path="data/tetrominoes.h5")


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    return DatasetDeclaration(
        **shared_settings(config),
        reader=Hdf5Reader,
        image_size=(35, 35),
        splits=SPLITS,
        num_entities=4,
        largest_num_objects=3,
        download_command=conversion_command(config, "tetrominoes_train"),
        generate_command=f"python data_scripts/generate_tetrominoes.py --output {config.path}",
    )


write_example = writer(default_config, declare)
