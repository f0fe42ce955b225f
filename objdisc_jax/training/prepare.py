"""What training works with, known to fit together before anything is made."""

from collections.abc import Generator
from typing import NamedTuple

import jax
from absl import logging
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict

from objdisc_jax import config as configs
from objdisc_jax import pretrained, sharding
from objdisc_jax.data import loader
from objdisc_jax.evaluation.runner import Runner
from objdisc_jax.models import base
from objdisc_jax.training import compilation, distributed, frozen, run_dir
from objdisc_jax.training.checkpoint import Checkpoints
from objdisc_jax.training.step import TrainState, initial_state


class Prepared(NamedTuple):
    """The parts of an experiment."""

    config: ConfigDict  # the experiment
    mesh: Mesh  # the devices
    run: run_dir.Abstract  # the model and its state, without values
    frozen: frozen.Frozen  # the model's frozen parts
    train_data: loader.Dataset  # the training split
    val_data: loader.Dataset  # the validation split
    validation: Runner  # scores parameters on the validation split
    best: tuple[str, str]  # direction and metric of the best checkpoint: ("max", "fg_ari")


def prepare(config: ConfigDict) -> Prepared:
    """Makes the parts of an experiment; nothing is compiled, computed or written.

    Raises:
        UserError: a setting or the data cannot be used, or they do not fit together.
    """
    configs.check(config)
    compilation.use_cache(config)
    mesh = sharding.data_mesh()
    sharding.check_batch_size(config.batch_size, config.num_microbatches, mesh)
    train_data, val_data = (loader.load(config.data, split) for split in ("train", "val"))
    run = run_dir.abstract(config)
    train_data.check_fields(run.model.fields, f"model {config.model.name!r}")
    parts = frozen.load(run.model, run.frozen, loss=True)
    frozen.check_computed(parts, run.model, train_data.fields, config.data.features)
    num_images, expensive_metrics = config.eval.num_images, config.eval.expensive_metrics
    validation = Runner(
        config, run.graphdef, val_data, mesh, run.model.fields, num_images, expensive_metrics
    )
    best = validation.best(run.state.params | run.frozen)
    return Prepared(config, mesh, run, parts, train_data, val_data, validation, best)


def restored_or_initial(prepared: Prepared, checkpoints: Checkpoints) -> tuple[TrainState, float]:
    """The state to go on from, and the seconds trained before.

    Raises:
        UserError: there are checkpoints, but none that can be read, or processes see others.
    """
    config, mesh, run, *_ = prepared
    restored = checkpoints.restore_newest(run.state, sharding.replicated(mesh))
    if restored is not None:
        state, metadata = restored
        logging.info("Going on from step %d.", int(state.step))
    else:
        params = _initial_params(config)
        overview = parameter_overview.get_parameter_overview(params, include_stats=False)
        logging.info("Parameters:\n%s", overview)
        # Processors of several kinds may round an initial value differently.
        state = distributed.from_primary(initial_state(config, params))
        state, metadata = sharding.put_replicated(state, mesh), {"seconds": 0.0}
    distributed.check_same_step(int(state.step), checkpoints.folder)
    return state, metadata["seconds"]


def _initial_params(config: ConfigDict) -> base.Params:
    if config.pretrained:
        folder = pretrained.locate(config.pretrained)
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        trained = run_dir.load_trained(folder, sharding, config=config)
        logging.info("Beginning with the parameters of %s, step %d.", folder, trained.step)
        params, model = trained.params, trained.model
    else:
        model = run_dir.build_model(config)
        params = base.split(model)[1]
    return base.partition(params, model)[0]


def train_batches(
    prepared: Prepared, first_step: int, *, whole: bool = False
) -> Generator[loader.Batch, None, None]:
    """The training batches from a step on, of the fields that the model names.

    Args:
        prepared: the parts of the experiment.
        first_step: number of the first batch.
        whole: give all of each batch, without worker processes, not this process's part.
    """
    config = prepared.config
    return loader.train_batches(
        prepared.train_data,
        fields=prepared.run.model.fields,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=first_step,
        process_index=0 if whole else jax.process_index(),
        process_count=1 if whole else jax.process_count(),
        num_workers=0 if whole else config.data.num_workers,
    )
