"""Objects Room: 64x64 images of a room with up to six objects, with segmentations.

Read from what `data_scripts/convert_tfrecords.py` makes of the published files (DeepMind's
Multi-Object Datasets). Four labels are background: sky, floor and two halves of the wall. The
published training file has no official splits; here its last two hundredths are for validation
and test. Three small files test what training never showed.
"""

from ml_collections import ConfigDict

from objdisc_jax.data.config import check_choice, conversion_command, shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.examples import writer
from objdisc_jax.data.hdf5 import Hdf5Reader
from objdisc_jax.data.splits import consecutive

NUM_OBJECTS = {"train": 3, "empty_room": 0, "six_objects": 6, "identical_color": 6}


def default_config() -> ConfigDict:
    """Returns the variant `train`, rooms of up to three objects."""
    config = shared_config("objects_room", path="data/objects_room_{variant}.h5")
    # train | empty_room | six_objects | identical_color. The last three have a test split alone.
    config.variant = "train"
    return config


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    variant = check_choice(config, "variant", NUM_OBJECTS)
    splits = {"test": range(922)}
    if variant == "train":
        splits = consecutive(train=980_000, val=10_000, test=10_000)
    file = variant if variant == "train" else f"test_{variant}"
    return DatasetDeclaration(
        **shared_settings(config),
        reader=Hdf5Reader,
        image_size=(64, 64),
        splits=splits,
        num_entities=4 + NUM_OBJECTS[variant],
        background_labels=(0, 1, 2, 3),
        largest_num_objects=NUM_OBJECTS[variant],
        download_command=conversion_command(config, f"objects_room_{file}"),
    )


write_example = writer(default_config, declare)
