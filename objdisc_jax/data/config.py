"""The configuration keys that every data set has."""

from typing import Any

import ml_collections
from ml_collections import config_dict

from objdisc_jax.data.declaration import Box, scaled_box
from objdisc_jax.data.errors import DataError


def shared_config(name: str, path: str) -> ml_collections.ConfigDict:
    """Returns the keys that all data sets share, with their defaults.

    Args:
        name: name of the data set: that of its file in `objdisc_jax/data/datasets/`, or the path of
            its module elsewhere, `__name__`.
        path: where its file or folder lies unless the user says otherwise.
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
    # Worker processes that read and crop images; 0 reads in the main process.
    config.num_workers = 2
    # What an image does that cannot be read: raise | skip. Skipping takes the next one in its
    # place in training and leaves it out of scores; each is logged and counted.
    config.on_bad_image = "raise"
    return config


def shared_fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the fields of a `DatasetDeclaration` that the shared keys state."""
    check_choice(config, "on_bad_image", ("raise", "skip"))
    keys = ("name", "path", "max_objects", "num_test_images", "on_bad_image")
    fields = {key: config[key] for key in keys}
    if "variant" in config:  # sets with a file for each variant have its name in the path
        fields["path"] = fields["path"].replace("{variant}", config.variant)
    return fields


def check_choice(config: ml_collections.ConfigDict, key: str, allowed: tuple[str, ...]) -> str:
    """Returns the value of a key; raises a `DataError` if it is none of those allowed."""
    value = config[key]
    if value not in allowed:
        raise DataError(f"data.{key}: got {value!r}; allowed are {', '.join(allowed)}.")
    return value


def size_fields(
    config: ml_collections.ConfigDict,
    size: tuple[int, int],
    crop: Box,
    download_command: str,
    render_command: str,
) -> dict[str, Any]:
    """Returns the fields of a `DatasetDeclaration` that follow from the key `image_size`.

    Args:
        config: of a data set whose images may have been rendered at another size.
        size: rows and columns of the published images.
        crop: of those.
        download_command: produces them.
        render_command: produces look-alikes of that size.

    Raises:
        DataError: `image_size` is no pair of positive whole numbers.
    """
    found = tuple(config.image_size)
    if len(found) != 2 or not all(isinstance(n, int) and n > 0 for n in found):
        raise DataError(
            f"data.image_size: got {found}; it is the rows and columns of the stored images, as in "
            f"{size}."
        )
    if found == size:
        commands = (download_command, render_command)
    else:
        commands = (None, f"{render_command} --resolution {found[0]} {found[1]}")
    return {
        "any_size": True,
        "image_size": found,
        "crop": scaled_box(crop, size, found),
        "download_command": commands[0],
        "generate_command": commands[1],
    }


def conversion_commands(file: str, output: str, dataset: str, variant: str = "") -> str:
    """Returns the commands that download a file of the Multi-Object Datasets and convert it.

    Args:
        file: the published file.
        output: the HDF5 file that is read here.
        dataset: name of the data set.
        variant: its variant, if it has any.
    """
    option = f" --variant {variant}" if variant else ""
    return (
        f"bash data_scripts/download_multi_object.sh {dataset}{variant and f'_{variant}'} && "
        f"python data_scripts/convert_tfrecords.py --dataset {dataset}{option} "
        f"--input data/downloads/{file} --output {output}"
    )
