"""Sketchy: 128x128 images of a robot's arm, gripper and coloured blocks, without masks.

Read from the PNG folders that `data_scripts/process_sketchy.py` makes of the raw episodes: two
views and seven crops for each time step, all of them images of their own.
"""

from collections.abc import Mapping

import ml_collections
from PIL import Image

from objdisc_jax.data import examples
from objdisc_jax.data.config import shared_config, shared_fields
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.folder import FolderReader, Names, by_subfolder
from objdisc_jax.data.splits import consecutive

FOLDERS = {"train": "train", "val": "valid", "test": "test"}
SPLITS = consecutive(train=337_498, val=41_426, test=41_426)


def default_config() -> ml_collections.ConfigDict:
    """Returns the keys that all data sets share; nothing is known of the images' objects."""
    return shared_config("sketchy", path="data/sketchy/processed")


def declare(config: ml_collections.ConfigDict) -> DatasetDeclaration:
    """Returns the data set that the configuration describes."""
    return DatasetDeclaration(
        **shared_fields(config),
        reader=SketchyReader,
        sources={"image": r"ep\d{6}_t\d{3,}_(fl|fr)_(full|c[0-5])\.png"},
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
        """Puts training before validation before test images."""
        return by_subfolder(names, FOLDERS)


def _write(declaration: DatasetDeclaration, num_images: int) -> examples.Example:
    """Writes PNG crops and another file in a folder for each episode."""
    example = examples.draw(declaration, num_images)
    for split, folder in FOLDERS.items():
        for number, record in enumerate(example.splits[split]):
            episode = declaration.absolute_path / folder / f"ep{number // 4:06d}"
            episode.mkdir(parents=True, exist_ok=True)
            file = episode / f"{episode.name}_t{number // 2 % 2:03d}_fl_c{number % 2}.png"
            Image.fromarray(example.image[record]).save(file)
            (episode / f"{episode.name}_t000_state.pt").touch()
    return example


write_example = examples.writer(default_config, declare, _write)
