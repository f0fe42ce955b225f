"""What is done between training steps, each with a period of its own."""

import abc
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
from absl import logging

from objdisc_jax import progress, run_files
from objdisc_jax.errors import UserError
from objdisc_jax.evaluation import visualization
from objdisc_jax.files import warn_on_oserror, write_atomically
from objdisc_jax.models import base
from objdisc_jax.training import distributed
from objdisc_jax.training.checkpoint import Checkpoints
from objdisc_jax.training.prepare import Prepared, train_batches
from objdisc_jax.training.step import Scalars, TrainState
from objdisc_jax.training.writers import MetricWriter

TIMING = ("seconds", "train/steps_per_second", "train/images_per_second")
"""Metrics that differ between two runs of one config."""


class Diverged(UserError):
    """The loss or the gradient became infinite or not a number."""


class Session(NamedTuple):
    """What hooks work with while a run is trained."""

    prepared: Prepared  # the parts of the experiment
    workdir: Path  # the run directory
    frozen: base.Params  # the parameters of the model's frozen parts, on all devices
    writer: MetricWriter  # of metrics
    checkpoints: Checkpoints  # of the run
    first_step: int  # the step that the run goes on from
    seconds: float  # how long it was trained before


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
    """Reads the numbers of a step when the next one is dispatched, so that no device waits."""

    def __init__(self, session: Session):
        self._session, self._config = session, session.prepared.config
        self._logged_step, self._logged = session.first_step, time.monotonic()
        self._start = self._logged - session.seconds
        self._dispatched: tuple[int, Scalars] | None = None
        self._bar = progress.Progress(
            self._config.num_train_steps,
            "steps",
            begun=session.first_step,
            is_shown=distributed.is_primary(),
            has_lines=False,  # those of `settle`
        )

    @property
    def seconds(self) -> float:
        """How long the run has been trained, over all its parts."""
        return time.monotonic() - self._start

    def dispatched(self, step: int, scalars: Scalars) -> None:
        """Notes the numbers of a step that has just been dispatched; settles the one before."""
        self.settle()
        self._dispatched = (step, scalars)

    def settle(self) -> None:
        """Reads the noted numbers, and writes them if due; `Diverged` if they are not finite."""
        if self._dispatched is None:
            return
        (step, scalars), self._dispatched = self._dispatched, None
        if not scalars.pop("finite"):
            self._end(step, scalars)
        self._bar.update()
        config, last_step = self._config, self._config.num_train_steps
        now = time.monotonic()
        is_first = step == self._session.first_step + 1
        if is_first:
            logging.info("The first step took %.1f s, compilation included.", now - self._logged)
        is_due = step % config.log_every == 0 or step % config.eval.every == 0 or step == last_step
        if not (is_due or is_first):
            return
        speed = (step - self._logged_step) / (now - self._logged)
        self._logged, self._logged_step = now, step
        if not is_due:
            return
        values = {f"train/{name}": float(value) for name, value in scalars.items()}
        timing, told = [self.seconds], ""
        if not is_first:  # speed is that of the steps after it
            timing += [speed, speed * config.batch_size]
            told = f"  {speed:.1f} steps/s  {duration((last_step - step) / speed)} left"
        self._session.writer.write_scalars(step, values | dict(zip(TIMING, timing, strict=False)))
        logging.info("step %d/%d  loss %.5f%s", step, last_step, values["train/loss"], told)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leaves what is done in it out of the speed of training."""
        begun = time.monotonic()
        yield
        self._logged += time.monotonic() - begun

    def close(self) -> None:
        """Takes the progress bar away."""
        self._bar.close()

    def _end(self, step: int, scalars: Scalars) -> NoReturn:
        """Ends a run that has diverged; the primary process keeps the records of its batch."""
        file, checkpoints = self._session.workdir / run_files.DIVERGED, self._session.checkpoints
        values = {name: str(float(value)) for name, value in scalars.items()}
        if distributed.is_primary():
            index = next(train_batches(self._session.prepared, step - 1, whole=True))["index"]
            report = {"step": step, "scalars": values, "batch_index": index.tolist()}
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


class Validate(Hook):
    """Scores the parameters on the validation split.

    Attributes:
        means: those of the last validation.
        step: that it was made after.
    """

    def __init__(self, session: Session):
        self._session, self._config = session, session.prepared.config
        self.every = self._config.eval.every
        self.step, self.means = -1, {}

    def __call__(self, step: int, state: TrainState) -> TrainState:
        """Scores, and lowers the learning rates where the loss has reached a plateau."""
        scores = self._session.prepared.validation(state.averaged | self._session.frozen, step)
        self.step, self.means = step, scores.means
        metrics = {f"val/{name}": value for name, value in scores.means.items()}
        self._session.writer.write_scalars(step, metrics)
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
    """Draws a panel of validation examples, into the run directory and to the writers."""

    def __init__(self, session: Session):
        config, _, run, *_ = session.prepared
        self._session, self.every = session, config.visualize.every
        self._draw = visualization.Visualizer(config, run.graphdef, session.prepared.val_data)

    def __call__(self, step: int, state: TrainState) -> TrainState:
        """Draws."""
        panel = self._draw(state.averaged | self._session.frozen, step)
        with warn_on_oserror("the visualization"):
            visualization.save(self._session.workdir, f"step_{step:07d}", panel)
        self._session.writer.write_images(step, {"val/panel": panel})
        return state


class Save(Hook):
    """Writes checkpoints: after its period, after validations, and again where that failed.

    The metrics of `validate` say which is the best.
    """

    def __init__(self, session: Session, progress: Progress, validate: Validate):
        self._session, self._progress, self._validate = session, progress, validate
        self._checkpoints = session.checkpoints
        self.every = session.prepared.config.checkpoint.every

    def is_due(self, step: int, last_step: int) -> bool:
        """Whether a checkpoint is to be written after a step."""
        return (
            super().is_due(step, last_step)
            or self._validate.is_due(step, last_step)
            or self._checkpoints.is_due_again()
        )

    def __call__(self, step: int, state: TrainState) -> TrainState:
        """Begins to save, in the primary process; a failure is a warning."""
        if not distributed.is_primary():
            return state
        direction, metric = self._session.prepared.best
        score = self._validate.means[metric] if step == self._validate.step else None
        if score is not None and direction == "min":
            score = -score
        try:
            self._session.writer.flush()  # a run that goes on from here has all metrics up to here
        except OSError as error:
            self._checkpoints.note_failure(error)
        else:
            self._checkpoints.save(step, state, {"seconds": self._progress.seconds}, score)
        return state

    def for_good(self, step: int, state: TrainState) -> None:
        """Saves the last thing that this program does; not to be able to is an error."""
        self._checkpoints.wait()
        self(step, state)
        self._checkpoints.wait()
        if self._checkpoints.failure is not None:
            latest = self._checkpoints.latest_step
            raise UserError(
                f"workdir: step {step} could not be saved in {self._session.workdir} "
                f"({self._checkpoints.failure}). Make space there; the same command goes on from "
                + ("the beginning." if latest is None else f"step {latest}, which is saved.")
            )


class Profile(Hook):
    """Traces the steps that the config asks for."""

    def __init__(self, session: Session):
        settings: Any = session.prepared.config.profile
        self._first, self._last = settings.start - 1, settings.start - 1 + settings.steps
        self._folder, self._is_tracing = session.workdir / "profile", False
        if session.first_step == self._first:
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


def create(session: Session, progress: Progress) -> tuple[list[Hook], Save]:
    """The hooks of a run in the order in which they are called, and the last, which saves."""
    validate = Validate(session)
    hooks: list[Hook] = [validate]
    if distributed.is_primary():
        hooks.append(Visualize(session))
        if session.prepared.config.profile.start is not None:
            hooks.append(Profile(session))
    save = Save(session, progress, validate)
    return [*hooks, save], save


def duration(seconds: float) -> str:
    """Seconds as a person reads them: `48 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
