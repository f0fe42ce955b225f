"""Run directories: what makes one, and getting a trained model back out of it."""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
from absl import logging
from flax import nnx
from jax.sharding import Sharding
from ml_collections import ConfigDict

from objdisc_jax import __version__
from objdisc_jax import config as configs
from objdisc_jax.errors import ConfigError, UserError
from objdisc_jax.files import write_atomically
from objdisc_jax.models import base
from objdisc_jax.training import distributed
from objdisc_jax.training.checkpoint import Checkpoints, has_checkpoints
from objdisc_jax.training.step import TrainState, initial_state

LOCK_FILE = ".lock"
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "torch", "numpy")


class TrainedModel(NamedTuple):
    """A model as a run has trained it.

    Attributes:
        config: the config it was built from.
        graphdef: its static description.
        params: its parameters.
        step: the training step of the checkpoint.
    """

    config: ConfigDict
    graphdef: nnx.GraphDef
    params: base.Params
    step: int


@contextlib.contextmanager
def opened(workdir: Path, config: ConfigDict) -> Iterator[None]:
    """Makes a run directory, or checks that an existing one holds a run of this config.

    The primary process writes the config and what the run is made on, and keeps other runs out
    while the context lasts. A run without a checkpoint begins anew.

    Raises:
        UserError: the directory cannot be made or written, is in use, or holds a run of another
            config.
    """
    if has_checkpoints(workdir):
        configs.check_resumable(configs.load(workdir), config, workdir)
    if not distributed.is_primary():
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(workdir))
            configs.save(config, workdir)
            content = json.dumps(environment(), indent=2) + "\n"
            write_atomically(workdir / "environment.json", content)
        except OSError as error:
            raise UserError(
                f"workdir: {workdir} cannot be written ({error.strerror}). Name another directory "
                "with --workdir."
            ) from error
        yield


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[None]:
    """Keeps a directory for this run; the system lets go of it when the process ends, however."""
    with (workdir / LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"workdir: {workdir} is in use by another run ({file.read().strip()}). Wait until "
                "it ends, stop it, or name another directory with --workdir."
            ) from error
        except OSError as error:  # some network file systems have no locks
            logging.warning("%s cannot be locked (%s): start no second run in it.", workdir, error)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def environment() -> dict[str, str | int | None]:
    """Versions and hardware, to be kept with results."""
    return {
        "python": platform.python_version(),
        "objdisc_jax": __version__,
        "git_commit": git_commit(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "num_processes": jax.process_count(),
    }


def git_commit() -> str | None:
    """The commit that this code is of, with `-dirty` if files differ; None outside a checkout."""
    folder = Path(__file__).parent
    if shutil.which("git") is None:
        return None

    def git(*arguments: str) -> str | None:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may lie in somebody else's repository.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def abstract_state(config: ConfigDict) -> tuple[nnx.GraphDef, TrainState]:
    """A model's static description, and the shapes of its training state; computes nothing."""
    graphdef, params = base.split(nnx.eval_shape(lambda: configs.build_model(config)))
    return graphdef, jax.eval_shape(lambda p: initial_state(config, p), params)


def load_trained(
    workdir: Path, sharding: Sharding, *, which: str = "latest", config: ConfigDict | None = None
) -> TrainedModel:
    """Reads a trained model from a run directory.

    Args:
        workdir: the run directory.
        sharding: where the parameters go.
        which: the checkpoint: "latest", "best" or a step.
        config: build the model from this config instead of the run's own; its parameters must
            have the shapes of the trained ones, but everything else may differ (the number of
            slots, say).

    Raises:
        UserError: the directory holds no run or no such checkpoint, the checkpoint is damaged, or
            the parameters of `config` have other shapes.
    """
    saved = configs.load(workdir)
    if not has_checkpoints(workdir):
        raise UserError(
            f"workdir: the run in {workdir} has no checkpoint yet. Train it first: "
            f"python -m objdisc_jax.main --config CONFIG --workdir {workdir}"
        )
    graphdef, like = abstract_state(saved)
    checkpoints = Checkpoints(workdir, create=False)
    step = checkpoints.find(which)
    state, _ = checkpoints.restore(step, like, sharding)
    checkpoints.close()
    if config is not None:
        graphdef, wanted = abstract_state(config)
        _check_shapes(like.params, wanted.params, workdir)
    return TrainedModel(config or saved, graphdef, state.params, step)


def _check_shapes(trained: base.Params, wanted: base.Params, workdir: Path) -> None:
    old, new = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}
        for tree in (trained, wanted)
    )
    wrong = [
        f"  {name}: {old.get(name, 'absent')} in the run, {new.get(name, 'absent')} in the config"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if wrong:
        raise ConfigError(
            f"model: the parameters of the run in {workdir} do not fit the config given:\n"
            + "\n".join(wrong)
            + "\nName the run's own config, or leave --config out to take it from the run."
        )
