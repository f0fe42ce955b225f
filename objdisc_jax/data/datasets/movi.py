"""MOVi: frames of Kubric's videos of scanned objects on photographed ground, with segmentations.

Read from what `data_scripts/convert_movi.py` makes of the published files: all 24 frames of every
video, as records of their own. The literature tests on the published validation videos; that is the
test split here, and the last 250 training videos are for validation.
"""

from ml_collections import ConfigDict

from objdisc_jax.data.config import check_choice, shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.examples import writer
from objdisc_jax.data.hdf5 import Hdf5Reader
from objdisc_jax.data.movi import NUM_FRAMES
from objdisc_jax.data.splits import consecutive

NUM_OBJECTS = {"c": 10, "d": 23, "e": 23}
NUM_TRAINING, NUM_VALIDATION, NUM_TEST = 9500, 250, 250
"""Videos; a file with fewer states its own splits."""


def default_config() -> ConfigDict:
    """Returns MOVi-C at 256x256."""
    config = shared_config("movi", path="data/movi_{variant}.h5")
    # c: three to ten objects | d: most of 11 to 23 at rest | e: the same, and the camera moves.
    config.variant = "c"
    # Rows and columns of the published frames: 128 or 256.
    config.size = 256
    return config


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    variant = check_choice(config, "variant", NUM_OBJECTS)
    size = check_choice(config, "size", (128, 256))
    shared = shared_settings(config)
    videos = consecutive(train=NUM_TRAINING, val=NUM_VALIDATION, test=NUM_TEST)
    folder = f"data/downloads/movi_{variant}"
    return DatasetDeclaration(
        **shared,
        reader=Hdf5Reader,
        image_size=(size, size),
        splits={
            name: range(NUM_FRAMES * split.start, NUM_FRAMES * split.stop)
            for name, split in videos.items()
        },
        num_entities=NUM_OBJECTS[variant] + 1,
        largest_num_objects=NUM_OBJECTS[variant],
        download_command=(
            f"bash data_scripts/download_movi.sh {variant} {size} && "
            f"python data_scripts/convert_movi.py --variant {variant} --size {size} "
            f"--input {folder} --output {shared['path']}"
        ),
    )


write_example = writer(default_config, declare)
