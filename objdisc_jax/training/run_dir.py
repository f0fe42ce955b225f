"""Run directories: what makes one, and getting a trained model back out of it."""

import contextlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
from flax import nnx
from jax.sharding import Sharding
from ml_collections import ConfigDict

from objdisc_jax import __version__, models, pretrained, run_files
from objdisc_jax import config as configs
from objdisc_jax.errors import ConfigError, UserError
from objdisc_jax.files import InUse, locked, write_atomically
from objdisc_jax.models import base
from objdisc_jax.training import compilation, distributed, frozen, weights
from objdisc_jax.training.checkpoint import Checkpoints, has_checkpoints
from objdisc_jax.training.step import TrainState, initial_state

LOCK_FILE = ".lock"
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "torch", "numpy")


class TrainedModel(NamedTuple):
    """A model as a run has trained it."""

    config: ConfigDict  # the config it was built from
    model: base.Model  # the model, with shapes in place of its parameters
    graphdef: nnx.GraphDef  # its static description
    # All its parameters, averaged over training if `optimizer.ema_decay` says so; those of
    # `model.loss_only` parts are zeros unless its loss was asked for.
    params: base.Params
    step: int  # the training step of the checkpoint
    frozen: frozen.Frozen  # its frozen parts


@contextlib.contextmanager
def opened(workdir: Path, config: ConfigDict, parts: frozen.Frozen = frozen.NONE) -> Iterator[None]:
    """Makes a run directory, or checks that an existing one holds a run of this config.

    The primary process keeps other runs out while the context lasts. A run without a checkpoint
    begins anew.

    Raises:
        UserError: the directory cannot be made or written, is in use, or holds a run of another
            config or other frozen parts.
    """
    if has_checkpoints(workdir):
        configs.check_resumable(configs.load(workdir), config, workdir)
        frozen.check(parts, workdir)
    if not distributed.is_primary():
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            with _writing(workdir):
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(workdir / LOCK_FILE))
        except InUse as error:
            raise UserError(
                f"workdir: {workdir} is in use by another run ({error}). Wait until it "
                "ends, stop it, or name another directory with --workdir."
            ) from error
        yield


def record(workdir: Path, config: ConfigDict, parts: frozen.Frozen = frozen.NONE) -> None:
    """Writes the config, the frozen parts, and what the run is made on from here.

    Raises:
        UserError: the directory cannot be written.
    """
    with _writing(workdir):
        configs.save(config, workdir)
        frozen.record(parts, workdir)
        content = json.dumps(environment(), indent=2) + "\n"
        write_atomically(workdir / run_files.ENVIRONMENT, content)


@contextlib.contextmanager
def _writing(workdir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"workdir: {workdir} cannot be written ({error.strerror}). Name another directory "
            "with --workdir."
        ) from error


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


def build_model(config: ConfigDict) -> base.Model:
    """The model of a config, initialised from its seed."""
    return models.create(config.model, rngs=nnx.Rngs(config.seed))


class Abstract(NamedTuple):
    """What is known of a config's model before anything is computed."""

    model: base.Model  # the model, with shapes in place of its parameters
    graphdef: nnx.GraphDef  # its static description
    state: TrainState  # shapes of its training state
    frozen: base.Params  # shapes of its frozen parts


def abstract(config: ConfigDict) -> Abstract:
    """What a config's model and its training state will look like; computes nothing.

    Raises:
        ConfigError: a setting of the model or of the optimiser is not allowed.
    """
    model = nnx.eval_shape(lambda: build_model(config))
    graphdef, params = base.split(model)
    trained, frozen = base.partition(params, model)
    state = jax.eval_shape(lambda params: initial_state(config, params), trained)
    return Abstract(model, graphdef, state, frozen)


def load_trained(
    workdir: Path,
    sharding: Sharding,
    *,
    which: str = "latest",
    config: ConfigDict | None = None,
    loss: bool = False,
) -> TrainedModel:
    """Reads a trained model.

    Args:
        workdir: a run directory, or the folder of a pretrained model (`objdisc_jax.pretrained`).
        sharding: where the parameters go.
        which: the checkpoint of a run: "latest", "best" or a step.
        config: build the model from this config instead of the run's own; its parameters must
            have the shapes of the trained ones, but everything else may differ (the number of
            slots, say).
        loss: whether the model's loss will be computed (`frozen.load`).

    Raises:
        UserError: the directory holds no run or no such checkpoint, the checkpoint is damaged, the
            parameters of `config` have other shapes, or a frozen part has changed.
    """
    saved = configs.load(workdir)
    compilation.use_cache(config or saved)
    run = abstract(saved)
    trained, step = _read_params(workdir, run.state, sharding, which)
    wanted = run
    if config is not None:
        wanted = abstract(config)
        _check_shapes(run.state.params, wanted.state.params, workdir)
    parts = frozen.load(wanted.model, wanted.frozen, loss=loss)
    frozen.check(parts, workdir)
    params = trained | jax.device_put(parts.params, sharding)
    return TrainedModel(config or saved, wanted.model, wanted.graphdef, params, step, parts)


def _read_params(
    workdir: Path, like: TrainState, sharding: Sharding, which: str
) -> tuple[base.Params, int]:
    """The parameters to be used of a run or of a pretrained model, and their training step."""
    if has_checkpoints(workdir):
        with contextlib.closing(Checkpoints(workdir, create=False)) as checkpoints:
            step = checkpoints.find(which)
            state, _ = checkpoints.restore(step, like, sharding)
        return state.averaged, step
    file = workdir / pretrained.WEIGHTS
    if not file.is_file():
        raise UserError(
            f"workdir: the run in {workdir} has no checkpoint yet. Train it first: "
            f"objdisc train --config CONFIG --workdir {workdir}"
        )
    try:
        params, step = weights.read(file, like.params)
    except weights.MisfitError as error:
        raise UserError(
            f"{file} does not fit the model of its {pretrained.CONFIG}:\n{error}\nRestore the "
            "folder, or name another one."
        ) from error
    if which not in ("latest", "best", str(step)):
        raise UserError(f"--step: got {which!r}, but {workdir} has step {step} alone.")
    return jax.device_put(params, sharding), step


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
            + "\nUse the run's own config: leave out --config, or what changes it."
        )
