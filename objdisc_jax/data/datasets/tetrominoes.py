"""Tetrominoes: 35x35 images of three coloured tetrominoes on black.

Read from the file that `data_scripts/generate_tetrominoes.py` writes, or from the published data
(DeepMind's Multi-Object Datasets) as HDF5. The splits follow the papers: 60,000 images to train
on, the next 320 for the score.
"""

import ml_collections

from objdisc_jax.data import examples, hdf5
from objdisc_jax.data.config import conversion_commands, shared_config, shared_fields
from objdisc_jax.data.declaration import DatasetDeclaration

SPLITS = {
    "train": range(0, 60_000),
    "val": range(60_320, 65_000),
    "test": range(60_000, 60_320),
}


def default_config() -> ml_collections.ConfigDict:
    """Returns the keys that all data sets share; every image holds exactly three objects."""
    return shared_config("tetrominoes", path="data/tetrominoes.h5")


def declare(config: ml_collections.ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    return DatasetDeclaration(
        **shared_fields(config),
        reader=hdf5.Hdf5Reader,
        image_size=(35, 35),
        splits=SPLITS,
        num_entities=4,
        largest_num_objects=3,
        download_command=conversion_commands(
            "tetrominoes_train.tfrecords", config.path, "tetrominoes"
        ),
        generate_command=f"python data_scripts/generate_tetrominoes.py --output {config.path}",
    )


write_example = examples.writer(default_config, declare)
