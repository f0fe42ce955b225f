"""Multi-dSprites: 64x64 images of one to five overlapping flat shapes, with segmentations.

Read from what `data_scripts/convert_tfrecords.py` makes of the published files (DeepMind's
Multi-Object Datasets), which hold a million images each, or from the file that
`data_scripts/generate_multi_dsprites.py` writes. The splits follow the papers: 60,000
images to train on, the next 320 for the score.
"""

import ml_collections

from objdisc_jax.data import examples, hdf5
from objdisc_jax.data.config import check_choice, conversion_commands, shared_config, shared_fields
from objdisc_jax.data.datasets.tetrominoes import SPLITS
from objdisc_jax.data.declaration import DatasetDeclaration

NUM_ENTITIES = {"binarized": 4, "colored_on_grayscale": 6, "colored_on_colored": 5}


def default_config() -> ml_collections.ConfigDict:
    """Returns the variant `colored_on_grayscale`."""
    config = shared_config("multi_dsprites", path="data/multi_dsprites_{variant}.h5")
    # binarized (2 or 3 white sprites on black) | colored_on_grayscale (2 to 5) |
    # colored_on_colored (1 to 4).
    config.variant = "colored_on_grayscale"
    return config


def declare(config: ml_collections.ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    variant = check_choice(config, "variant", tuple(NUM_ENTITIES))
    shared = shared_fields(config)
    return DatasetDeclaration(
        **shared,
        reader=hdf5.Hdf5Reader,
        image_size=(64, 64),
        splits=SPLITS,
        num_entities=NUM_ENTITIES[variant],
        largest_num_objects=NUM_ENTITIES[variant] - 1,
        download_command=conversion_commands(
            f"multi_dsprites_{variant}.tfrecords", shared["path"], "multi_dsprites", variant
        ),
        generate_command=(
            f"python data_scripts/generate_multi_dsprites.py --variant {variant} "
            f"--output {shared['path']}"
        ),
    )


write_example = examples.writer(default_config, declare)
