"""Files that tests need beside those which `write_example` of a data set's module writes."""

import sys

import numpy as np

from objdisc_jax.data import examples
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.data.examples import Example


def write_published(declaration: DatasetDeclaration, num_images: int) -> Example:
    """One plane of 0 or 255 per entity, visibility with the background; gzip, automatic chunks."""
    example = examples.draw(declaration, num_images)
    entities = np.arange(declaration.num_entities)
    planes = example.segmentation[:, None] == entities[:, None, None]
    last = len(declaration.background_labels) - 1 + example.num_objects
    arrays = {
        "image": example.image,
        "mask": (planes * np.uint8(255))[..., None],
        "visibility": (entities <= last[:, None]).astype(np.float32),
        **example.fields,
    }
    if not declaration.has_masks:
        del arrays["mask"]
    named = {declaration.source(role): values for role, values in arrays.items()}
    # The published files are large enough for the declared splits; this one states its own.
    examples.write_arrays(declaration.absolute_path, named, example.splits)
    return example


def with_small_disk(command: list[str], largest: int) -> list[str]:
    """A command that runs another one which can write no file of more bytes than that.

    (A `preexec_fn` would fork this process, which JAX's threads forbid.)
    """
    limit = (
        "import os, resource, sys; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest})); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", limit, *command]
