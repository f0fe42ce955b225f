"""The training loop."""

from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import jax
from absl import logging
from clu import parameter_overview
from ml_collections import ConfigDict

from objdisc_jax import config as configs
from objdisc_jax import sharding, visualize
from objdisc_jax.data import loader
from objdisc_jax.evaluation.runner import Runner
from objdisc_jax.files import warn_on_oserror
from objdisc_jax.models import base
from objdisc_jax.names import flatten
from objdisc_jax.training import distributed, frozen, hooks, run_dir, writers
from objdisc_jax.training.checkpoint import Checkpoints
from objdisc_jax.training.step import TrainState, initial_state, make_train_step
from objdisc_jax.training.stopping import stop_requests

CURVES_FILE = "curves.png"


def train(config: ConfigDict, workdir: Path) -> None:
    """Trains a config in a run directory, from its latest checkpoint if it has one.

    Args:
        config: the experiment.
        workdir: the run directory; made if missing.

    Raises:
        UserError: a setting, the data or the directory cannot be used, or training diverged.
    """
    configs.check(config)
    mesh, is_primary = sharding.data_mesh(), distributed.is_primary()
    sharding.check_batch_size(config.batch_size, config.num_microbatches, mesh)
    train_data, val_data = (loader.load(config.data, split) for split in ("train", "val"))
    run = run_dir.abstract(config)
    train_data.check_fields(run.model.fields, f"model {config.model.name!r}")
    parts = frozen.load(run.model, run.frozen)
    validation = Runner(
        config, run.graphdef, val_data, mesh, config.eval.num_images, config.eval.expensive_metrics
    )
    best = _best(config, val_data)
    validation.check_metric(best[1], run.state.params | run.frozen)
    # Everything is known to fit; now the directory is made, or found to hold this run.
    with run_dir.opened(workdir, config, parts), stop_requests() as stop, ExitStack() as stack:
        distributed.barrier("the run directory is there")
        checkpoints = stack.enter_context(
            closing(Checkpoints(workdir, keep=config.checkpoint.keep, create=is_primary))
        )
        last_step = config.num_train_steps
        if (checkpoints.latest_step or 0) >= last_step:
            logging.info(
                "The run in %s has reached its %d steps. To go on, give a larger "
                "--config.num_train_steps.",
                workdir,
                last_step,
            )
            return
        state, seconds = _restored_or_initial(config, workdir, checkpoints, run, mesh)
        frozen_params = sharding.put_replicated(parts.params, mesh)
        first_step = int(state.step)
        distributed.check_same_step(first_step, workdir)
        writer = writers.create(config, workdir, last_step=first_step, primary=is_primary)
        stack.callback(writer.close)
        if first_step == 0:
            writer.write_hparams(flatten(configs.to_dict(config)))
        diverged = partial(
            hooks.report_divergence, config, workdir, train_data, run.model.fields, checkpoints
        )
        progress = hooks.Progress(
            config, writer, first_step=first_step, seconds=seconds, diverged=diverged
        )
        validate = hooks.Validate(config, validation, frozen_params, writer)
        save = hooks.Save(config, checkpoints, progress, validate, writer, best)
        to_do: list[hooks.Hook] = [validate]
        if is_primary:
            draw = hooks.Visualize(config, run.graphdef, frozen_params, val_data, writer, workdir)
            to_do += [draw, save]
            if config.profile.start is not None:
                to_do.append(hooks.Profile(config, workdir, first_step))
        for hook in to_do:
            stack.callback(hook.close)
        batches = stack.enter_context(_batches(config, train_data, run.model, first_step))
        train_step = make_train_step(config, run.graphdef)
        any_process = distributed.any_process(mesh)

        for step in range(first_step + 1, last_step + 1):
            fields = sharding.put_batch(next(batches), mesh)
            asked_to_stop = any_process(stop.made)
            state, scalars = train_step(state, fields, frozen_params)
            progress.dispatched(step, scalars)
            is_stopping = bool(asked_to_stop)
            due = [hook for hook in to_do if hook.is_due(step, last_step)]
            if due or is_stopping:
                progress.settle()  # nothing is scored, shown or saved after a NaN
            for hook in due:
                state = hook(step, state)
            if is_stopping:
                break
        if is_primary:
            save.for_good(step, state, workdir)
            with warn_on_oserror("the curves"):
                visualize.plot_curves(workdir / writers.METRICS_FILE, workdir / CURVES_FILE)
        if is_stopping:
            logging.info("Asked to stop: saved step %d. The same command goes on.", step)


def _best(config: ConfigDict, dataset: loader.Dataset) -> tuple[str, str]:
    """Direction and metric of the best checkpoint."""
    if config.checkpoint.best is None:
        return ("max", "fg_ari") if "segmentation" in dataset.fields else ("min", "loss")
    direction, metric = config.checkpoint.best.split()
    return direction, metric


def _restored_or_initial(
    config: ConfigDict,
    workdir: Path,
    checkpoints: Checkpoints,
    run: run_dir.Abstract,
    mesh: jax.sharding.Mesh,
) -> tuple[TrainState, float]:
    """The state to go on from, and the seconds trained before."""
    restored = checkpoints.restore_newest(run.state, sharding.replicated(mesh))
    if restored is not None:
        state, metadata = restored
        logging.info("Going on from step %d of the run in %s.", int(state.step), workdir)
        return state, metadata["seconds"]
    model = run_dir.build_model(config)
    params, _ = base.partition(base.split(model)[1], model)
    overview = parameter_overview.get_parameter_overview(params, include_stats=False)
    logging.info("Parameters:\n%s", overview)
    # Processors of several kinds may round an initial value differently.
    state = distributed.from_primary(initial_state(config, params))
    return sharding.put_replicated(state, mesh), 0.0


def _batches(
    config: ConfigDict, dataset: loader.Dataset, model: base.Model, first_step: int
) -> closing:
    """This process's part of the training batches from a step on, the fields of the model alone."""
    batches = loader.train_batches(
        dataset,
        fields=model.fields,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=first_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=config.data.num_workers,
    )
    return closing(batches)
