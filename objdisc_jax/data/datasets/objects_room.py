"""Objects Room: 64x64 images of a room with up to six objects, with segmentations.

Read from what `data_scripts/convert_tfrecords.py` makes of the published files (DeepMind's
Multi-Object Datasets). Four labels are background: sky, floor and two halves of the wall. The
published training file has no official splits; here its last two hundredths are for validation
and test. Three small files test what training never showed.
"""

import ml_collections

from objdisc_jax.data import examples, hdf5
from objdisc_jax.data.config import check_choice, conversion_commands, shared_config, shared_fields
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.splits import consecutive

BACKGROUND = (0, 1, 2, 3)
NUM_ENTITIES = {"train": 7, "empty_room": 4, "six_objects": 10, "identical_color": 10}
SPLITS = consecutive(train=980_000, val=10_000, test=10_000)


def default_config() -> ml_collections.ConfigDict:
    """Returns the variant `train`, rooms of up to three objects."""
    config = shared_config("objects_room", path="data/objects_room_{variant}.h5")
    # train | empty_room | six_objects | identical_color. The last three have a test split alone.
    config.variant = "train"
    return config


def declare(config: ml_collections.ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    variant = check_choice(config, "variant", tuple(NUM_ENTITIES))
    file = "train" if variant == "train" else f"test_{variant}"
    shared = shared_fields(config)
    return DatasetDeclaration(
        **shared,
        reader=hdf5.Hdf5Reader,
        image_size=(64, 64),
        splits=SPLITS if variant == "train" else {"test": range(922)},
        num_entities=NUM_ENTITIES[variant],
        background_labels=BACKGROUND,
        largest_num_objects=NUM_ENTITIES[variant] - len(BACKGROUND),
        download_command=conversion_commands(
            f"objects_room_{file}.tfrecords", shared["path"], "objects_room", variant
        ),
    )


write_example = examples.writer(default_config, declare)
