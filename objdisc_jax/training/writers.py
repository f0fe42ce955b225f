"""Where metrics and images go: TensorBoard, JSON lines, the console, Weights & Biases.

All are CLU `MetricWriter`s. CLU 0.0.12 imports TensorFlow for one of its writers; where TensorFlow
isn't installed, this file puts a PyTorch-backed writer in that one's place before the import.
"""

import contextlib
import importlib.util
import json
import sys
import types
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from objdisc_jax import run_files
from objdisc_jax.errors import ConfigError
from objdisc_jax.files import warn_on_oserror, write_atomically

_TF_WRITER = "clu.metric_writers.tf.summary_writer"


@contextlib.contextmanager
def _clu_without_tensorflow() -> Iterator[None]:
    """Lets `clu.metric_writers` be imported: its TensorFlow writer becomes an empty class."""
    if importlib.util.find_spec("tensorflow") is not None or "clu.metric_writers" in sys.modules:
        yield
        return
    stand_in = types.ModuleType(_TF_WRITER)
    stand_in.SummaryWriter = type("SummaryWriter", (), {})  # pyright: ignore
    sys.modules[_TF_WRITER] = stand_in
    try:
        yield
    finally:
        del sys.modules[_TF_WRITER]


with _clu_without_tensorflow():
    from clu import metric_writers
    from clu.metric_writers import torch_tensorboard_writer

MetricWriter = metric_writers.MetricWriter


class TensorBoardWriter(torch_tensorboard_writer.TorchTensorboardWriter):
    """CLU's PyTorch-backed TensorBoard writer, with texts and hyper-parameters in one run.

    Where a full disk ends an event file, what comes later goes to another one.

    Args:
        logdir: folder of the event files.
        last_step: points of later steps, left by a run that died, are hidden.
    """

    def __init__(self, logdir: Path, last_step: int):
        metric_writers.MetricWriter.__init__(self)
        self._logdir = str(logdir)
        self._writer: Any = _summary_writer(self._logdir, purge_step=last_step + 1)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes scalars."""
        with self._replaced_on_failure():
            super().write_scalars(step, scalars)

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Writes images."""
        with self._replaced_on_failure():
            super().write_images(step, images)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Writes Markdown texts."""
        with self._replaced_on_failure():
            for name, text in texts.items():
                self._writer.add_text(name, text, global_step=step)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Writes hyper-parameters as a table (TensorBoard's own would open a second run)."""
        rows = "\n".join(f"| {name} | {value} |" for name, value in hparams.items())
        self.write_texts(0, {"config": f"| key | value |\n|---|---|\n{rows}"})

    def flush(self) -> None:
        """Writes everything to the file."""
        with self._replaced_on_failure():
            self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        with warn_on_oserror("TensorBoard events"):
            self._writer.close()

    @contextlib.contextmanager
    def _replaced_on_failure(self) -> Iterator[None]:
        with warn_on_oserror("TensorBoard events"):
            try:
                yield
            except OSError:
                with contextlib.suppress(OSError):
                    self._writer.close()
                self._writer = _summary_writer(self._logdir)
                raise


_summary_writer = torch_tensorboard_writer.tensorboard.SummaryWriter


class ScalarWriter(metric_writers.MultiWriter):
    """A writer for which everything but scalars is optional: what it lacks does nothing."""

    def __init__(self):
        super().__init__([])


class JsonLinesWriter(ScalarWriter):
    """Appends `{"step": n, name: value, ...}` to a file, one line a step.

    What is written at one step in several calls is put into one line, which is on disk after
    `flush` or when another step begins. Lines for which there is no space are kept until there is.

    Args:
        file: the file; made if missing.
        last_step: lines of later steps, left by a run that died after its last checkpoint, are
            removed, and so is a line cut off in the middle.
    """

    def __init__(self, file: Path, last_step: int):
        super().__init__()
        self._file = file
        self._step: int | None = None
        self._values: dict[str, float] = {}
        self._unwritten = b""
        if file.is_file():
            kept = [line for line in file.read_text().splitlines() if _is_until(line, last_step)]
            write_atomically(file, "".join(f"{line}\n" for line in kept))

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Adds scalars to the line of a step."""
        if step != self._step:
            with warn_on_oserror(f"{self._file}, kept to be tried again,"):
                self.flush()
            self._step = step
        self._values |= {name: float(np.asarray(value)) for name, value in scalars.items()}

    def flush(self) -> None:
        """Writes the line of the current step.

        Raises:
            OSError: there is no space; the file is as before, and the next call tries again.
        """
        if self._values:
            line = json.dumps({"step": self._step, **self._values})
            self._unwritten += f"{line}\n".encode()
            self._values = {}
        if not self._unwritten:
            return
        with self._file.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                rest = self._unwritten
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(end)
                raise
        self._unwritten = b""

    def close(self) -> None:
        """Flushes, as well as it can."""
        with warn_on_oserror(str(self._file)):
            self.flush()


def _is_until(line: str, last_step: int) -> bool:
    try:
        return json.loads(line)["step"] <= last_step
    except (json.JSONDecodeError, KeyError, TypeError):
        return False


class WandbWriter(ScalarWriter):
    """Writes to Weights & Biases; a continued run goes on as the same W&B run.

    Args:
        config: the experiment; uses its `wandb` block.
        workdir: the run directory, in which W&B keeps its files and we its run's id.

    Raises:
        ConfigError: the package isn't installed.
    """

    def __init__(self, config: ConfigDict, workdir: Path):
        super().__init__()
        if importlib.util.find_spec("wandb") is None:
            raise ConfigError(
                "wandb.enabled: the package wandb is not installed. Install it with "
                "pip install 'objdisc_jax[wandb]', or set --config.wandb.enabled=False."
            )
        import wandb  # pyright: ignore[reportMissingImports]

        self._wandb = wandb
        id_file = workdir / "wandb_run_id.txt"
        if not id_file.is_file():
            id_file.write_text(uuid.uuid4().hex[:8])
        self._run = wandb.init(
            project=config.wandb.project,
            name=workdir.name,
            dir=str(workdir),
            id=id_file.read_text(),
            resume="allow" if config.wandb.mode == "online" else None,
            mode=config.wandb.mode,
        )

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Logs scalars."""
        self._run.log({name: float(np.asarray(v)) for name, v in scalars.items()}, step=step)

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Logs images."""
        self._run.log({name: self._wandb.Image(np.asarray(v)) for name, v in images.items()}, step)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Puts texts into the run's summary."""
        for name, text in texts.items():
            self._run.summary[name] = text

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Sets the run's config."""
        self._run.config.update(dict(hparams), allow_val_change=True)

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


def create(config: ConfigDict, workdir: Path, *, last_step: int, primary: bool) -> MetricWriter:
    """The writers of a run that goes on from `last_step`, 0 for a new one.

    A process that isn't the primary writes nothing.
    """
    if not primary:
        return metric_writers.MultiWriter([])
    writers: list[MetricWriter] = [
        JsonLinesWriter(workdir / run_files.METRICS, last_step),
        TensorBoardWriter(workdir / "tensorboard", last_step),
    ]
    if config.wandb.enabled:
        writers.append(WandbWriter(config, workdir))
    logging.debug("Metrics go to %s.", ", ".join(type(writer).__name__ for writer in writers))
    return metric_writers.MultiWriter(writers)
