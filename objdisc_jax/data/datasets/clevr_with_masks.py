"""CLEVR with masks: 240x320 renders of three to ten objects, with segmentations.

Read from the published HDF5 layout (11 mask planes) or from ours (a label map), which is also that
of the look-alikes that `data_scripts/render_clevr.py` renders. The crop is the published one, rows
29 to 221 and columns 64 to 256, five pixels below the true centre; it scales with `image_size`.
"""

from ml_collections import ConfigDict

from objdisc_jax.data.config import conversion_command, shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.examples import writer
from objdisc_jax.data.hdf5 import Hdf5Reader
from objdisc_jax.data.splits import consecutive

SIZE = (240, 320)
SPLITS = consecutive(train=70_000, val=15_000, test=15_000)


def default_config() -> ConfigDict:
    """Returns all 100,000 images; `max_objects = 6` makes CLEVR6 of them."""
    config = shared_config("clevr_with_masks", path="data/clevr_with_masks.h5")
    # Scores are those of the first 320 test images that pass the filter, as in the papers.
    config.num_test_images = 320
    # The published "CLEVR6" counted the background as an object, so "at most 6" kept at most 5.
    # True repeats that (max_objects = 6 keeps at most 5 objects) to compare with its numbers.
    config.published_filter = False
    # Rows and columns of the stored images; rendered ones may be smaller, for small models.
    config.image_size = SIZE
    return config


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    return DatasetDeclaration(
        **shared_settings(config),
        reader=Hdf5Reader,
        image_size=SIZE,
        crop=((29, 221), (64, 256)),
        splits=SPLITS,
        num_entities=11,
        largest_num_objects=10,
        counts_background=config.published_filter,
        download_command=conversion_command(config, "clevr_with_masks_train"),
        generate_command=f"python data_scripts/render_clevr.py --output {config.path}",
    ).at_size(config.image_size)


write_example = writer(default_config, declare)
