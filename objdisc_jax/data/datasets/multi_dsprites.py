"""Multi-dSprites: 64x64 images of one to five overlapping flat shapes, with segmentations.

Read from what `data_scripts/convert_tfrecords.py` makes of the published files (DeepMind's
Multi-Object Datasets), which hold a million images each, or from the file that
`data_scripts/generate_multi_dsprites.py` writes. The splits follow the papers: 60,000
images to train on, the next 320 for the score.
"""

from ml_collections import ConfigDict

from objdisc_jax.data.config import check_choice, conversion_command, shared_config, shared_settings
from objdisc_jax.data.datasets.tetrominoes import SPLITS
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.examples import writer
from objdisc_jax.data.hdf5 import Hdf5Reader

NUM_ENTITIES = {"binarized": 4, "colored_on_grayscale": 6, "colored_on_colored": 5}


def default_config() -> ConfigDict:
    """Returns the variant `colored_on_grayscale`."""
    config = shared_config("multi_dsprites", path="data/multi_dsprites_{variant}.h5")
    # binarized (2 or 3 white sprites on black) | colored_on_grayscale (2 to 5) |
    # colored_on_colored (1 to 4).
    config.variant = "colored_on_grayscale"
    return config


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    variant = check_choice(config, "variant", NUM_ENTITIES)
    shared = shared_settings(config)
    return DatasetDeclaration(
        **shared,
        reader=Hdf5Reader,
        image_size=(64, 64),
        splits=SPLITS,
        num_entities=NUM_ENTITIES[variant],
        largest_num_objects=NUM_ENTITIES[variant] - 1,
        download_command=conversion_command(config, f"multi_dsprites_{variant}"),
        generate_command=(
            f"python data_scripts/generate_multi_dsprites.py --variant {variant} "
            f"--output {shared['path']}"
        ),
    )


write_example = writer(default_config, declare)
