"""The configuration keys that every data set has, and what follows from them."""

from collections.abc import Collection
from typing import Any

import ml_collections
from ml_collections import config_dict

from objdisc_jax.data.errors import DataError


def shared_config(name: str, path: str) -> ml_collections.ConfigDict:
    """Returns the keys that all data sets share, with their defaults.

    The name of a data set outside this package is the path of its module, `__name__`. `{variant}`
    in the path stands for the value of a key `variant`, which the data set may add.
    """
    config = ml_collections.ConfigDict()
    # Name of the data set: a file in objdisc_jax/data/datasets/, or the path of a module elsewhere.
    config.name = name
    # The data file or folder, relative to the working directory or absolute.
    config.path = path
    # Keep only images with at most this many objects, background not counted; None keeps all.
    config.max_objects = config_dict.placeholder(int)
    # The test split ends after this many images that pass the filter; None means all of them.
    config.num_test_images = config_dict.placeholder(int)
    # A file of what a model's frozen parts make of the images, computed once by
    # `objdisc features`; None: there is none.
    config.features = config_dict.placeholder(str)
    # Worker processes that read and crop images; 0 reads in the main process.
    config.num_workers = 2
    # What an image does that cannot be read: raise | skip. Skipping takes the next one in its
    # place in training and leaves it out of scores; each is logged and counted.
    config.on_bad_image = "raise"
    return config


def shared_settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns what the shared keys state, as arguments of `DatasetDeclaration`."""
    return {
        "name": config.name,
        "path": _path(config),
        "max_objects": config.max_objects,
        "num_test_images": config.num_test_images,
        "on_bad_image": check_choice(config, "on_bad_image", ("raise", "skip")),
    }


def check_choice(config: ml_collections.ConfigDict, key: str, allowed: Collection[Any]) -> Any:
    """Returns the value of a key; raises a `DataError` if it is none of those allowed."""
    if config[key] not in allowed:
        raise DataError(
            f"data.{key}: got {config[key]!r}; allowed are {', '.join(map(str, allowed))}."
        )
    return config[key]


def conversion_command(config: ml_collections.ConfigDict, file: str) -> str:
    """Returns the command that makes a data set of a file of the Multi-Object Datasets."""
    variant = config.get("variant", "")
    return (
        f"bash data_scripts/download_multi_object.sh {config.name}{variant and f'_{variant}'} && "
        f"python data_scripts/convert_tfrecords.py --dataset {config.name}"
        f"{variant and f' --variant {variant}'} --input data/downloads/{file}.tfrecords "
        f"--output {_path(config)}"
    )


def _path(config: ml_collections.ConfigDict) -> str:
    return config.path.replace("{variant}", config.get("variant", ""))
