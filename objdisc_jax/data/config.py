"""The configuration keys that every data set has."""

from typing import Any

import ml_collections
from ml_collections import config_dict


def shared_config(name: str, path: str) -> ml_collections.ConfigDict:
    """Returns the keys that all data sets share, with their defaults.

    Args:
        name: name of the data set, which is the name of its file in `objdisc_jax/data/sets/`.
        path: where its file lies unless the user says otherwise.
    """
    config = ml_collections.ConfigDict()
    # Name of the data set: a file in objdisc_jax/data/sets/.
    config.name = name
    # The data file, relative to the working directory or absolute.
    config.path = path
    # Keep only images with at most this many objects, background not counted; None keeps all.
    config.max_objects = config_dict.placeholder(int)
    # The test split ends after this many images that pass the filter; None means all of them.
    config.num_test_images = config_dict.placeholder(int)
    # Worker processes that read and crop images; 0 reads in the main process.
    config.num_workers = 2
    return config


def shared_fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the fields of a `DatasetDeclaration` that the shared keys state."""
    return {key: config[key] for key in ("name", "path", "max_objects", "num_test_images")}
