"""Sketchy: 128x128 images of a robot's arm, gripper and coloured blocks, without masks.

Read from the PNG folders that `data_scripts/process_sketchy.py` makes of the raw episodes: two
views and seven crops for each time step, all of them images of their own.
"""

from ml_collections import ConfigDict

from objdisc_jax.data.config import shared_config, shared_settings
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.examples import Example, save_image, writer
from objdisc_jax.data.folder import FolderReader
from objdisc_jax.data.splits import consecutive


def default_config() -> ConfigDict:
    """Returns the keys that all data sets share; nothing is known of the images' objects."""
    return shared_config("sketchy", path="data/sketchy/processed")


def declare(config: ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    return DatasetDeclaration(
        **shared_settings(config),
        reader=FolderReader,
        sources={"image": r"ep\d{6}_t\d{3,}_(fl|fr)_(full|c[0-5])\.png", "val": "valid"},
        image_size=(128, 128),
        splits=consecutive(train=337_498, val=41_426, test=41_426),
        has_masks=False,
        download_command=(
            f"python data_scripts/process_sketchy.py --input EPISODES --output {config.path}"
        ),
    )


def _write(declaration: DatasetDeclaration, example: Example) -> Example:
    """Writes PNG crops and another file in a folder for each episode."""
    for split, records in example.splits.items():
        for number, record in enumerate(records):
            episode = declaration.absolute_path / declaration.source(split) / f"ep{number // 4:06d}"
            file = f"{episode.name}_t{number // 2 % 2:03d}_fl_c{number % 2}.png"
            save_image(episode / file, example.image[record])
            (episode / f"{episode.name}_t000_state.pt").touch()
    return example


write_example = writer(default_config, declare, _write)
