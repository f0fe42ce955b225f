"""What is done between training steps, each with a period of its own."""

import abc
import json
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import logging
from flax import nnx
from ml_collections import ConfigDict

from objdisc_jax.data import loader
from objdisc_jax.errors import UserError
from objdisc_jax.evaluation import visualization
from objdisc_jax.evaluation.runner import Runner
from objdisc_jax.files import warn_on_oserror, write_atomically
from objdisc_jax.models import base
from objdisc_jax.training.checkpoint import Checkpoints
from objdisc_jax.training.step import Scalars, TrainState
from objdisc_jax.training.writers import MetricWriter

DIVERGED_FILE = "diverged.json"
TIMING = ("seconds", "train/steps_per_second", "train/images_per_second")
"""Metrics that differ between two runs of one config."""


class Diverged(UserError):
    """The loss or the gradient became infinite or not a number."""


class Hook(abc.ABC):
    """Something that is done after some of the steps.

    Attributes:
        every: its period in steps; the last step of a run counts as well.
    """

    every: int

    def is_due(self, step: int, last_step: int) -> bool:
        """Whether it is to be done after a step."""
        return step % self.every == 0 or step == last_step

    @abc.abstractmethod
    def __call__(self, step: int, state: TrainState) -> TrainState:
        """Does it; returns the state to go on with."""

    def close(self) -> None:  # noqa: B027
        """Ends what it has begun."""


class Progress:
    """Reads the numbers of a step when the next one is dispatched: the devices never wait for it.

    Args:
        config: the experiment.
        writer: of metrics.
        first_step: the step that the run goes on from.
        seconds: how long it was trained before.
        diverged: is called with the step and its numbers when they are not finite.
    """

    def __init__(
        self,
        config: ConfigDict,
        writer: MetricWriter,
        *,
        first_step: int,
        seconds: float,
        diverged: Callable[[int, Scalars], NoReturn],
    ):
        self._config, self._writer, self._diverged = config, writer, diverged
        self._logged_step, self._logged = first_step, time.monotonic()
        self._start = self._logged - seconds
        self._dispatched: tuple[int, Scalars] | None = None

    @property
    def seconds(self) -> float:
        """How long the run has been trained, over all its parts."""
        return time.monotonic() - self._start

    def dispatched(self, step: int, scalars: Scalars) -> None:
        """Notes the numbers of a step that has just been dispatched; settles the one before."""
        self.settle()
        self._dispatched = (step, scalars)

    def settle(self) -> None:
        """Reads the noted numbers, and writes them if they are due."""
        if self._dispatched is None:
            return
        (step, scalars), self._dispatched = self._dispatched, None
        if not scalars.pop("finite"):
            self._diverged(step, scalars)
        config, last_step = self._config, self._config.num_train_steps
        if step % config.log_every and step % config.eval.every and step != last_step:
            return
        values = {f"train/{name}": float(value) for name, value in scalars.items()}
        now = time.monotonic()
        speed = (step - self._logged_step) / (now - self._logged)
        self._logged, self._logged_step = now, step
        timing = zip(TIMING, (self.seconds, speed, speed * config.batch_size), strict=True)
        self._writer.write_scalars(step, values | dict(timing))
        logging.info(
            "step %d/%d  loss %.5f  %.1f steps/s  %s left",
            step,
            last_step,
            values["train/loss"],
            speed,
            duration((last_step - step) / speed),
        )


class Validate(Hook):
    """Scores the parameters on the validation split.

    Args:
        config: the experiment.
        run: scores parameters.
        frozen: the parameters of the model's frozen parts.
        writer: of metrics.

    Attributes:
        means: those of the last validation.
        step: that it was made after.
    """

    def __init__(self, config: ConfigDict, run: Runner, frozen: base.Params, writer: MetricWriter):
        self.every = config.eval.every
        self._config, self._run, self._frozen, self._writer = config, run, frozen, writer
        self.step, self.means = -1, {}

    def __call__(self, step: int, state: TrainState) -> TrainState:
        """Scores, and lowers the learning rates where the loss has reached a plateau."""
        scores = self._run(state.averaged | self._frozen, step)
        self.step, self.means = step, scores.means
        self._writer.write_scalars(step, {f"val/{name}": x for name, x in scores.means.items()})
        logging.info(
            "step %d  validation on %d images: %s",
            step,
            scores.num_images,
            "  ".join(f"{name} {value:.4f}" for name, value in scores.means.items()),
        )
        if step % self.every:  # the one at the end of a part of a run
            return state
        plateau = state.plateau.after(scores.means["loss"], self._config.plateau)
        return state._replace(plateau=plateau)


class Visualize(Hook):
    """Draws a panel of validation examples.

    Args:
        config: the experiment.
        graphdef: the model's static description.
        frozen: the parameters of the model's frozen parts.
        dataset: the validation split.
        writer: of metrics.
        workdir: the run directory.
    """

    def __init__(
        self,
        config: ConfigDict,
        graphdef: nnx.GraphDef,
        frozen: base.Params,
        dataset: loader.Dataset,
        writer: MetricWriter,
        workdir: Path,
    ):
        self.every = config.visualize.every
        self._draw = visualization.Visualizer(config, graphdef, dataset)
        self._frozen, self._writer, self._workdir = frozen, writer, workdir

    def __call__(self, step: int, state: TrainState) -> TrainState:
        """Draws, into the run directory and to the writers."""
        panel = self._draw(state.averaged | self._frozen, step)
        with warn_on_oserror("the visualization"):
            visualization.save(self._workdir, f"step_{step:07d}", panel)
        self._writer.write_images(step, {"val/panel": panel})
        return state


class Save(Hook):
    """Writes checkpoints: after its period, after validations, and again where that failed.

    Args:
        config: the experiment.
        checkpoints: of the run.
        progress: tells how long the run has been trained.
        validate: whose metrics say which checkpoint is the best.
        writer: of metrics.
        best: direction and metric: ("max", "fg_ari").
    """

    def __init__(
        self,
        config: ConfigDict,
        checkpoints: Checkpoints,
        progress: Progress,
        validate: Validate,
        writer: MetricWriter,
        best: tuple[str, str],
    ):
        self.every = config.checkpoint.every
        self._checkpoints, self._progress, self._validate = checkpoints, progress, validate
        self._writer, self._best = writer, best

    def is_due(self, step: int, last_step: int) -> bool:
        """Whether a checkpoint is to be written after a step."""
        return (
            super().is_due(step, last_step)
            or self._validate.is_due(step, last_step)
            or self._checkpoints.is_due_again()
        )

    def __call__(self, step: int, state: TrainState) -> TrainState:
        """Begins to save; a failure is a warning."""
        direction, metric = self._best
        score = self._validate.means.get(metric) if step == self._validate.step else None
        if score is not None and direction == "min":
            score = -score
        try:
            self._writer.flush()  # a run that continues from here has all metrics up to here
        except OSError as error:
            self._checkpoints.note_failure(error)
        else:
            self._checkpoints.save(step, state, {"seconds": self._progress.seconds}, score)
        return state

    def for_good(self, step: int, state: TrainState, workdir: Path) -> None:
        """Saves the last thing that this program does.

        Raises:
            UserError: it could not be saved.
        """
        self._checkpoints.wait()
        self(step, state)
        self._checkpoints.wait()
        if self._checkpoints.failure is not None:
            latest = self._checkpoints.latest_step
            raise UserError(
                f"workdir: step {step} could not be saved in {workdir} "
                f"({self._checkpoints.failure}). Make space there; the same command goes on from "
                + ("the beginning." if latest is None else f"step {latest}, which is saved.")
            )


class Profile(Hook):
    """Traces the steps that the config asks for.

    Args:
        config: the experiment.
        workdir: the run directory.
        first_step: the step that the run goes on from.
    """

    def __init__(self, config: ConfigDict, workdir: Path, first_step: int):
        start: Any = config.profile.start
        self._first, self._last = start - 1, start - 1 + config.profile.steps
        self._folder, self._is_tracing = workdir / "profile", False
        if first_step == self._first:
            self._begin()

    def is_due(self, step: int, last_step: int) -> bool:
        """Whether a trace begins or ends after a step."""
        return step in (self._first, self._last)

    def __call__(self, step: int, state: TrainState) -> TrainState:
        """Begins or ends the trace."""
        self._begin() if step == self._first else self.close()
        return state

    def _begin(self) -> None:
        jax.profiler.start_trace(str(self._folder))
        self._is_tracing = True

    def close(self) -> None:
        """Ends the trace, if there is one."""
        if self._is_tracing:
            jax.profiler.stop_trace()
            self._is_tracing = False
            logging.info("Wrote a trace to %s.", self._folder)


def report_divergence(
    config: ConfigDict,
    workdir: Path,
    dataset: loader.Dataset,
    fields: Collection[str],
    checkpoints: Checkpoints,
    step: int,
    scalars: Scalars,
) -> NoReturn:
    """Ends a run whose numbers are not finite; the primary process keeps its batch's records.

    Raises:
        Diverged: always.
    """
    file = workdir / DIVERGED_FILE
    values = {name: str(float(value)) for name, value in scalars.items()}
    if jax.process_index() == 0:
        size, seed = config.batch_size, config.seed
        batches = loader.train_batches(
            dataset, fields=fields, batch_size=size, seed=seed, start_step=step - 1
        )
        index = next(batches)["index"].tolist()
        report = {"step": step, "scalars": values, "batch_index": index}
        with warn_on_oserror(str(file)):
            write_atomically(file, json.dumps(report, indent=2) + "\n")
    checkpoints.wait()
    kept = checkpoints.latest_step
    raise Diverged(
        f"Training diverged: step {step} has loss {values['loss']} and gradient norm "
        f"{values['grad_norm']}. {file} holds the record numbers of its batch. "
        + ("" if kept is None else f"The last good checkpoint is step {kept}. ")
        + "Lower --config.optimizer.learning_rate or set --config.optimizer.clip_norm, and "
        "train in a new --workdir."
    )


def duration(seconds: float) -> str:
    """Seconds as a person reads them: `48 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
