"""The training loop."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from clu import parameter_overview
from ml_collections import ConfigDict

from objdisc_jax import config as configs
from objdisc_jax import settings
from objdisc_jax.data import loader
from objdisc_jax.errors import UserError
from objdisc_jax.files import warn_on_oserror, write_atomically
from objdisc_jax.models import base
from objdisc_jax.names import flatten
from objdisc_jax.training import distributed, optim, pictures, runs, sharding, writers
from objdisc_jax.training.checkpoint import Checkpoints
from objdisc_jax.evaluation.runner import Evaluator, Scores
from objdisc_jax.training.step import TrainState, initial_state, make_train_step
from objdisc_jax.visualize import plot_curves

CURVES_FILE = "curves.png"
DIVERGED_FILE = "diverged.json"
TIMING = ("seconds", "train/steps_per_second", "train/images_per_second")
"""Metrics that differ between two runs of one config."""


class Diverged(UserError):
    """The loss or the gradient became infinite or not a number."""


class _Dispatched(NamedTuple):
    """A step whose numbers have not been read yet."""

    step: int
    scalars: dict[str, jax.Array]


def train(config: ConfigDict, workdir: Path) -> None:
    """Trains a config in a run directory, from its latest checkpoint if it has one.

    Args:
        config: the experiment.
        workdir: the run directory; made if missing.

    Raises:
        UserError: a setting, the data or the directory cannot be used, or training diverged.
    """
    _Training(config, workdir).run()


class _Training:
    """One process's training of a run, from where it stands to its last step."""

    def __init__(self, config: ConfigDict, workdir: Path):
        self.config = config
        self.workdir = workdir
        settings.check(config)
        self.mesh = sharding.data_mesh()
        sharding.check_batch_size(config.batch_size, config.num_microbatches, self.mesh)
        self.train_data = loader.load(config.data, "train")
        self.val_data = loader.load(config.data, "val")
        self.graphdef, self.abstract_state = runs.abstract_state(config)
        self.primary = distributed.is_primary()
        self.seconds_before = 0.0
        self.tracing = False

    def run(self) -> None:
        """Trains to the last step, or until asked to stop."""
        # The config is known to work, and the directory may be written to.
        with runs.opened(self.workdir, self.config), _stop_requests() as stop:
            distributed.barrier("the run directory is there")
            self.checkpoints = Checkpoints(
                self.workdir, keep=self.config.checkpoint.keep, create=self.primary
            )
            try:
                self._run(stop)
            finally:
                self.checkpoints.close()

    def _run(self, stop: "_Stop") -> None:
        last_step = self.config.num_train_steps
        latest = self.checkpoints.latest_step
        if latest is not None and latest >= last_step:
            logging.info(
                "The run in %s has reached its %d steps. To go on, give a larger "
                "--config.num_train_steps.",
                self.workdir,
                last_step,
            )
            return
        state = self._restored_or_initial()
        first_step = int(state.step)
        distributed.check_same_step(first_step, self.workdir)
        self.writer = writers.create(
            self.config, self.workdir, last_step=first_step, primary=self.primary
        )
        if first_step == 0:
            self.writer.write_hparams(flatten(configs.to_dict(self.config)))
        self.evaluate = Evaluator(
            self.config,
            self.graphdef,
            self.val_data,
            self.mesh,
            self.config.eval.num_images,
            self.config.eval.expensive_metrics,
        )
        self.draw = pictures.Pictures(self.config, self.graphdef, self.val_data)
        self.started = self.logged = time.monotonic()
        self.logged_step = first_step
        with self._batches(first_step) as batches:
            try:
                self._take_steps(state, first_step, batches, stop)
            finally:
                self._end_trace()
                self.writer.close()
        if self.primary:
            with warn_on_oserror("the curves"):
                plot_curves(self.workdir / writers.METRICS_FILE, self.workdir / CURVES_FILE)

    def _take_steps(
        self,
        state: TrainState,
        first_step: int,
        batches: Iterator[loader.Batch],
        stop: "_Stop",
    ) -> None:
        """Trains to the last step, or until asked to stop; the state is saved then."""
        train_step = make_train_step(self.config, self.graphdef)
        any_process = distributed.any_process(self.mesh)
        dispatched: _Dispatched | None = None
        for step in range(first_step + 1, self.config.num_train_steps + 1):
            self._profile(step)
            batch = sharding.put_batch({"image": next(batches)["image"]}, self.mesh)
            asked_to_stop = any_process(stop.requested)
            state, scalars = train_step(state, batch)
            self._settle(dispatched)
            dispatched = _Dispatched(step, scalars)
            stopping = bool(asked_to_stop)
            saving_again = self.primary and self.checkpoints.is_due_again()
            if stopping or saving_again or self._is_due(step):
                self._settle(dispatched)  # nothing is scored, shown or saved after a NaN
                dispatched = None
                state = self._do_what_is_due(step, state)
            if stopping:
                self._save_for_good(step, state)
                logging.info("Asked to stop: saved step %d. The same command goes on.", step)
                return
            if saving_again:
                self._save(step, state)
        self._save_for_good(self.config.num_train_steps, state)

    def _is_due(self, step: int) -> set[str]:
        """Which of `eval`, `pictures` and `checkpoint` a step ends with; the last, with all."""
        return {
            name
            for name in ("eval", "pictures", "checkpoint")
            if step % self.config[name].every == 0 or step == self.config.num_train_steps
        }

    def _do_what_is_due(self, step: int, state: TrainState) -> TrainState:
        """Scores, shows and saves; returns the state, which a validation may have changed."""
        due = self._is_due(step)
        score = None
        if "eval" in due:
            scores = self.evaluate(state.params, step)
            score = self._write_scores(step, scores)
            if step % self.config.eval.every == 0:  # not the one at the end of a part of a run
                opt_state = optim.after_validation(
                    self.config, state.opt_state, scores.means["loss"]
                )
                state = state._replace(opt_state=opt_state)
        if "pictures" in due and self.primary:
            self._write_picture(step, self.draw(state.params, step))
        if due & {"eval", "checkpoint"}:
            self._save(step, state, score)
        return state

    def _restored_or_initial(self) -> TrainState:
        """The state to go on from; also notes the seconds trained before."""
        replicated = sharding.replicated(self.mesh)
        restored = self.checkpoints.restore_newest(self.abstract_state, replicated)
        if restored is not None:
            state, metadata = restored
            self.seconds_before = metadata["seconds"]
            logging.info("Going on from step %d of the run in %s.", int(state.step), self.workdir)
            return state
        _, params = base.split(configs.build_model(self.config))
        overview = parameter_overview.get_parameter_overview(params, include_stats=False)
        logging.info("Parameters:\n%s", overview)
        # Processors of several kinds may round an initial value differently.
        state = distributed.from_primary(initial_state(self.config, params))
        return sharding.put_replicated(state, self.mesh)

    def _batches(self, first_step: int) -> AbstractContextManager[Iterator[loader.Batch]]:
        """The training batches from a step on; worker processes end with the context."""
        return closing(
            loader.train_batches(
                self.train_data,
                batch_size=self.config.batch_size,
                seed=self.config.seed,
                start_step=first_step,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
                num_workers=self.config.data.num_workers,
            )
        )

    def _save(self, step: int, state: TrainState, score: float | None = None) -> None:
        """Begins to save; a failure is a warning."""
        if not self.primary:
            return
        try:
            self.writer.flush()  # a run that continues from here has all metrics up to here
        except OSError as error:
            self.checkpoints.note_failure(error)
        else:
            self.checkpoints.save(step, state, {"seconds": self._seconds()}, score)

    def _save_for_good(self, step: int, state: TrainState) -> None:
        """Saves the last thing that this program does.

        Raises:
            UserError: it could not be saved.
        """
        if not self.primary:
            return
        self.checkpoints.wait()
        self._save(step, state)
        self.checkpoints.wait()
        if self.checkpoints.failure is not None:
            latest = self.checkpoints.latest_step
            raise UserError(
                f"workdir: step {step} could not be saved in {self.workdir} "
                f"({self.checkpoints.failure}). Make space there; the same command goes on from "
                + ("the beginning." if latest is None else f"step {latest}, which is saved.")
            )

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def _settle(self, dispatched: _Dispatched | None) -> None:
        """Reads a step's numbers: stops on a NaN, writes them if they are due.

        Called when the next step has been dispatched, so that the devices never wait for it.
        """
        if dispatched is None:
            return
        step, scalars = dispatched
        if not scalars.pop("finite"):
            self._report_divergence(dispatched)
        last_step = self.config.num_train_steps
        if step % self.config.log_every and "eval" not in self._is_due(step):
            return
        values = {f"train/{name}": float(value) for name, value in scalars.items()}
        now = time.monotonic()
        speed = (step - self.logged_step) / (now - self.logged)
        self.logged, self.logged_step = now, step
        timing = dict(
            zip(TIMING, (self._seconds(), speed, speed * self.config.batch_size), strict=True)
        )
        self.writer.write_scalars(step, values | timing)
        logging.info(
            "step %d/%d  loss %.5f  %.1f steps/s  %s left",
            step,
            last_step,
            values["train/loss"],
            speed,
            duration((last_step - step) / speed),
        )

    def _report_divergence(self, dispatched: _Dispatched) -> None:
        file = self.workdir / DIVERGED_FILE
        step, scalars = dispatched
        values = {name: str(float(value)) for name, value in scalars.items()}
        if self.primary:
            index = self._whole_batch(step)["index"]
            report = {"step": step, "scalars": values, "batch_index": index.tolist()}
            with warn_on_oserror(str(file)):
                write_atomically(file, json.dumps(report, indent=2) + "\n")
        self.checkpoints.wait()
        kept = self.checkpoints.latest_step
        raise Diverged(
            f"Training diverged: step {step} has loss {values['loss']} and gradient norm "
            f"{values['grad_norm']}. {file} holds the record numbers of its batch. "
            + ("" if kept is None else f"The last good checkpoint is step {kept}. ")
            + "Lower --config.optimizer.learning_rate or set --config.optimizer.clip_norm, and "
            "train in a new --workdir."
        )

    def _whole_batch(self, step: int) -> loader.Batch:
        """The batch of a step, all processes' parts of it."""
        size, seed = self.config.batch_size, self.config.seed
        batches = loader.train_batches(
            self.train_data, batch_size=size, seed=seed, start_step=step - 1
        )
        return next(batches)

    def _write_scores(self, step: int, scores: Scores) -> float:
        """Writes validation scores; returns the one whose highest value is "best"."""
        self.writer.write_scalars(step, {f"val/{k}": v for k, v in scores.means.items()})
        logging.info(
            "step %d  validation on %d images: %s",
            step,
            scores.num_images,
            "  ".join(f"{name} {value:.4f}" for name, value in scores.means.items()),
        )
        means = scores.means
        return means["fg_ari"] if self.val_data.has_masks else -means["loss"]

    def _write_picture(self, step: int, picture: np.ndarray) -> None:
        with warn_on_oserror("the picture"):
            pictures.save(self.workdir, f"step_{step:07d}", picture)
        self.writer.write_images(step, {"val/panel": picture})

    def _profile(self, step: int) -> None:
        """Begins or ends the trace that the config asks for."""
        start: Any = self.config.profile.start
        if not self.primary:
            return
        if step == start:
            jax.profiler.start_trace(str(self.workdir / "profile"))
            self.tracing = True
        elif start is not None and step == start + self.config.profile.steps:
            self._end_trace()

    def _end_trace(self) -> None:
        if self.tracing:
            jax.profiler.stop_trace()
            self.tracing = False
            logging.info("Wrote a trace to %s.", self.workdir / "profile")


class _Stop:
    """Whether the program was asked to stop."""

    def __init__(self):
        self.requested = False


@contextmanager
def _stop_requests() -> Iterator[_Stop]:
    """Turns SIGTERM and SIGINT into a request that the loop grants at its next step."""
    stop = _Stop()

    def request(signum, frame):
        del signum, frame
        stop.requested = True

    before = {s: signal.signal(s, request) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def duration(seconds: float) -> str:
    """Seconds as a person reads them: `48 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
