"""Sketchy: 128x128 pictures of a robot's arm, gripper and coloured blocks, without masks.

Read from the PNG folders that `data_scripts/process_sketchy.py` makes of the raw episodes: two
views and seven crops for each time step, all of them pictures of their own.
"""

from collections.abc import Mapping

import ml_collections

from objdisc_jax.data.config import shared_config, shared_fields
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.folder import FolderReader, Names, by_subfolder

SPLITS = {
    "train": range(0, 337_498),
    "val": range(337_498, 378_924),
    "test": range(378_924, 420_350),
}


def default_config() -> ml_collections.ConfigDict:
    """Returns the keys that all data sets share; nothing is known of the pictures' objects."""
    return shared_config("sketchy", path="data/sketchy/processed")


def declare(config: ml_collections.ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    return DatasetDeclaration(
        **shared_fields(config),
        reader=SketchyReader,
        fields={"image": r"ep\d{6}_t\d{3,}_(fl|fr)_(full|c[0-5])\.png"},
        image_size=(128, 128),
        splits=SPLITS,
        has_masks=False,
        download_command=(
            f"python data_scripts/process_sketchy.py --input EPISODES --output {config.path}"
        ),
    )


class SketchyReader(FolderReader):
    """Reads `train`, `valid` and `test`."""

    def arrange(self, names: Names) -> tuple[Names, Mapping[str, range]]:
        """Puts training before validation before test pictures."""
        return by_subfolder(names, {"train": "train", "val": "valid", "test": "test"})
