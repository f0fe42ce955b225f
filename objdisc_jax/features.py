"""Computes what a model's frozen parts make of a data set's images, once, for quick training.

    objdisc features --config configs/dinosaur_clevrtex_cpu.py

It writes `config.data.features`, an HDF5 file in half precision, of the images of all splits. An
interrupted command goes on where it stopped. Any key can be set: `--config.data.path=FOLDER`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from objdisc_jax.cli import exit_on_usage, parse_absl, run
from objdisc_jax.data.errors import SKIPPING, BadImageError, DataError
from objdisc_jax.errors import ConfigError

DTYPE = "float16"
BLOCK = 16
"""Images that a device computes at a time, at most."""


def parse(argv: Sequence[str]) -> tuple[ConfigDict, bool]:
    """Returns config and whether to overwrite, as the command line states them."""
    config = config_flags.DEFINE_config_file("config", help_string="the experiment, a Python file")
    overwrite = flags.DEFINE_bool("overwrite", False, "replace what is there")
    parse_absl(argv)
    if config.value is None:
        exit_on_usage("Name an experiment: --config configs/dinosaur_clevrtex_cpu.py")
    return config.value, bool(overwrite.value)


def write(config: ConfigDict, *, overwrite: bool = False) -> None:
    """Writes the file that a config names, under a progress bar.

    Args:
        config: the experiment.
        overwrite: whether a file that is there may be replaced.

    Raises:
        UserError: the model has no such fields, its frozen parts or the images cannot be read, or
            the file exists or cannot be written.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from objdisc_jax import config as configs
    from objdisc_jax import sharding
    from objdisc_jax.data import conversion, features, loader
    from objdisc_jax.evaluation.chunks import in_chunks, whole_chunks
    from objdisc_jax.models import base
    from objdisc_jax.preprocessing import prepare_images
    from objdisc_jax.training import compilation, frozen, run_dir

    configs.check(config)
    compilation.use_cache(config)
    if config.data.features is None:
        raise ConfigError("data.features: name the file to write, --config.data.features=PATH")
    path = Path(config.data.features)
    data = config.data.copy_and_resolve_references()
    with data.unlocked():
        del data.features  # of the images alone
    dataset = loader.load(data, "train")
    declaration, reader = dataset.declaration, dataset.reader
    model_run = run_dir.abstract(config)
    model = model_run.model
    parts = frozen.load(model, model_run.frozen, loss=False)
    mesh = sharding.data_mesh()
    block = whole_chunks(BLOCK, mesh)

    def encode(params: base.Params, fields: Any, step: Any) -> dict[str, Any]:
        del step
        built = base.merge(model_run.graphdef, params)
        image = prepare_images(fields["image"], built.resolution, built.input_range)
        return {k: v.astype(DTYPE) for k, v in built.encode_frozen(image).items()}

    # What is not frozen has no say.
    rest = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), model_run.state.params)
    params = sharding.put_replicated(rest | parts.params, mesh)
    compute = in_chunks(encode, mesh)
    example = {"image": jax.ShapeDtypeStruct((block, *dataset.image_size, 3), np.uint8)}
    names = tuple(compute.eval_shape(params, example, jnp.int32(0)))
    if not names:
        raise ConfigError(
            f"model.name: the model {config.model.name!r} makes nothing of images beforehand. Name "
            "one with a frozen backbone, such as 'dinosaur'."
        )

    def decode(first: int, images: list[Any]) -> dict[str, Any]:
        seen = np.zeros((block, *dataset.image_size, 3), np.uint8)
        there = np.array([image is not None for image in images])
        seen[: len(images)][there] = [image for image in images if image is not None]
        batch = sharding.put_batch({"image": seen}, mesh)
        found = jax.device_get(compute(params, batch, jnp.int32(0)))
        for name, values in found.items():
            found[name] = values = np.array(values[: len(images)])
            if not np.isfinite(values[there]).all():
                raise DataError(
                    f"Of images {first} to {first + len(images) - 1} the values of {name!r} are "
                    f"beyond the range of {DTYPE}, or not finite. Look at the weights."
                )
            values[~there] = np.nan  # so that whoever reads them skips them, too
        return found

    total = features.num_records(reader)

    def images(start: int) -> Iterator[Any]:
        blocks = [range(n, min(n + block, total)) for n in range(start, total, block)]
        for found in loader.read_ahead(
            _Images(reader, skip=declaration.on_bad_image == "skip"),
            blocks,
            num_workers=config.data.num_workers,
            in_process="--config.data.num_workers=0",
        ):
            if isinstance(found, DataError):
                raise found
            for image, problem in found:
                if problem:
                    logging.warning("%s It is skipped.", problem)
                yield image

    made_of = {
        **frozen.computed_with(model, parts),
        "data": features.identity(declaration, reader),
    }
    conversion.convert(
        conversion.Source(
            identity=made_of,
            num_records=total,
            items=images,
            decode=decode,
            block=block,
            images=names,
        ),
        path,
        attributes=lambda _: {features.ATTRIBUTE: json.dumps(made_of)},
        overwrite=overwrite,
    )


class _Images:
    """The images of a reader as worker processes read them, each with what is wrong with it."""

    def __init__(self, reader: Any, *, skip: bool):
        self._reader, self._skip = reader, skip

    def __getitems__(self, records: Sequence[int]) -> list[tuple[Any, str]] | DataError:
        try:
            return [self._read(record) for record in records]
        except DataError as error:
            return error

    def _read(self, record: int) -> tuple[Any, str]:
        try:
            return self._reader.read(record, ["image"])["image"], ""
        except BadImageError as error:
            if not self._skip:
                raise BadImageError(f"{error}\n{SKIPPING}") from error
            return None, str(error)


def main(arguments: tuple[ConfigDict, bool]) -> None:
    """Does what the command line says."""
    config, overwrite = arguments
    write(config, overwrite=overwrite)


if __name__ == "__main__":
    run(main, parse)
