"""The training loop."""

import os
from contextlib import ExitStack, closing
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from objdisc_jax import config as configs
from objdisc_jax import run_files, sharding, visualize
from objdisc_jax.files import warn_on_oserror
from objdisc_jax.names import flatten
from objdisc_jax.training import distributed, hooks, run_dir, writers
from objdisc_jax.training.checkpoint import Checkpoints
from objdisc_jax.training.prepare import prepare, restored_or_initial, train_batches
from objdisc_jax.training.step import make_train_step
from objdisc_jax.training.stopping import stop_requests


def train(config: ConfigDict, workdir: str | os.PathLike[str]) -> None:
    """Trains a config in a run directory, from its latest checkpoint if it has one.

    Args:
        config: the experiment.
        workdir: the run directory; made if missing.

    Raises:
        UserError: a setting, the data or the directory cannot be used, or training diverged.
    """
    workdir = Path(workdir)
    distributed.check_devices()
    prepared, is_primary = prepare(config), distributed.is_primary()
    last_step, is_stopping = config.num_train_steps, False
    with ExitStack() as stack:
        stack.enter_context(run_dir.opened(workdir, config, prepared.frozen))
        stop = stack.enter_context(stop_requests())
        distributed.barrier("the run directory is there")
        checkpoints = Checkpoints(workdir, keep=config.checkpoint.keep, create=is_primary)
        stack.callback(checkpoints.close)
        if (checkpoints.latest_step or 0) >= last_step:
            logging.info(
                "The run in %s has reached its %d steps. To go on, give a larger "
                "--config.num_train_steps.",
                workdir,
                last_step,
            )
            return
        if is_primary:
            run_dir.record(workdir, config, prepared.frozen)
        state, seconds = restored_or_initial(prepared, checkpoints)
        first_step = int(state.step)
        writer = writers.create(config, workdir, last_step=first_step, primary=is_primary)
        stack.callback(writer.close)
        if first_step == 0:
            writer.write_hparams(flatten(configs.to_dict(config)))
        frozen = sharding.put_replicated(prepared.frozen.params, prepared.mesh)
        session = hooks.Session(prepared, workdir, frozen, writer, checkpoints, first_step, seconds)
        progress = stack.enter_context(closing(hooks.Progress(session)))
        to_do, save = hooks.create(session, progress)
        for hook in to_do:
            stack.callback(hook.close)
        batches = stack.enter_context(closing(train_batches(prepared, first_step)))
        train_step = make_train_step(config, prepared.run.graphdef)
        any_process = distributed.any_process(prepared.mesh)

        for step in range(first_step + 1, last_step + 1):
            batch = None
            with stop.excuses_errors(but=hooks.Diverged):
                batch = next(batches)
            if batch is None:  # stopped, and whatever reads the data, too
                progress.settle()
                step, is_stopping = step - 1, True
                break
            fields = sharding.put_batch(batch, prepared.mesh)
            asked_to_stop = any_process(stop.made)
            state, scalars = train_step(state, fields, frozen)
            progress.dispatched(step, scalars)  # reads the numbers of the step before
            is_stopping = bool(asked_to_stop)
            due = [hook for hook in to_do if hook.is_due(step, last_step)]
            if due or is_stopping:
                progress.settle()  # nothing is scored, shown or saved after a NaN
            for hook in due:
                with stop.excuses_errors(but=hooks.Diverged), progress.aside():
                    state = hook(step, state)
            if is_stopping:
                break

        if step > first_step:
            save.for_good(step, state)
        metrics = workdir / run_files.METRICS
        if is_primary and metrics.is_file():
            with warn_on_oserror("the curves"):
                visualize.plot_curves(metrics, workdir / run_files.CURVES)
        if is_stopping:
            logging.info("Asked to stop: saved step %d. The same command goes on.", step)
