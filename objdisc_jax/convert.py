r"""Takes weights to PyTorch and back, and makes pretrained models of runs.

    objdisc convert to-torch --workdir runs/demo --output demo.pt
    objdisc convert from-torch --checkpoint demo.pt --config configs/demo.py \
        --workdir runs/again

    objdisc convert to-pretrained --workdir runs/demo --output my_model \
        --data-command "python data_scripts/generate_tetrominoes.py" --limits "Other images."

`to-torch` writes the keys and shapes of the published PyTorch code; `objdisc_jax.interop` has the
modules that load them. `from-torch` makes a run with a fresh optimiser, which can be evaluated,
used to predict, and trained. It stands at the step that the file names, for what is annealed
depends on it, or at `--step`. `--config.model.num_slots=5` and the like set keys of its config.
"""

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from absl.flags import argparse_flags
from ml_collections import ConfigDict, config_flags

from objdisc_jax.cli import Parser, add_trained, parse_absl, run
from objdisc_jax.errors import UserError
from objdisc_jax.files import replacing

FORMATS = ("state_dict", "safetensors", "lightning")
SUFFIXES = {".safetensors": "safetensors", ".ckpt": "lightning"}
MAX_STEP = 2**31 - 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line; `config` becomes the experiment, with its keys set as asked."""
    parser = Parser("objdisc_jax.convert", __doc__)
    commands = parser.add_subparsers(
        dest="command", required=True, parser_class=argparse_flags.ArgumentParser
    )
    add_trained(to_torch := commands.add_parser("to-torch", help="write a run's weights to a file"))
    add = to_torch.add_argument
    add("--output", type=Path, required=True, help="the file to write")
    add(
        "--format",
        choices=FORMATS,
        help="default: safetensors for *.safetensors, lightning for *.ckpt, else state_dict; "
        "lightning is for the published prediction script",
    )
    add("--step", default="latest", help="checkpoint: latest, best, or a step (default: latest)")
    add(
        "--layout",
        help="DINOSAUR: the keys of a published project, FT-DINOSAUR, VideoSAUR or SPOT (default: "
        "those of objdisc_jax.interop)",
    )
    add = commands.add_parser("from-torch", help="make a run of a weight file").add_argument
    add(
        "--checkpoint",
        type=Path,
        required=True,
        help="a state_dict, a safetensors file, or a Lightning checkpoint",
    )
    add("--config", required=True, help="the experiment that the run will be of, a Python file")
    add("--workdir", type=Path, required=True, help="the run directory to make")
    add(
        "--step",
        type=int,
        help="training step of the weights (default: the file's; 0 where it names none)",
    )
    publish = commands.add_parser("to-pretrained", help="make a pretrained model of a scored run")
    add = publish.add_argument
    add("--workdir", type=Path, required=True, help="the run directory of a trained model")
    add("--output", type=Path, required=True, help="the folder to make; its name is the model's")
    add("--step", default="latest", help="checkpoint: latest, best, or a step (default: latest)")
    add("--data-command", required=True, help="the command that makes the data of the run")
    add("--limits", required=True, help="what the model cannot do, for its card")
    add("--seeds", type=Path, nargs="*", default=(), help="scored runs with other seeds")
    arguments, rest = parser.parse_known_args(argv[1:])
    if arguments.command == "from-torch":
        config = config_flags.DEFINE_config_file("config")
        parse_absl([argv[0], f"--config={arguments.config}", *rest])
        arguments.config = config.value
    elif rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Does what the command line says."""
    if arguments.command == "to-torch":
        to_torch(
            arguments.workdir,
            arguments.output,
            arguments.format,
            arguments.step,
            arguments.layout,
        )
    elif arguments.command == "to-pretrained":
        from objdisc_jax.training.publishing import publish

        publish(
            arguments.workdir,
            arguments.output,
            limits=arguments.limits,
            data_command=arguments.data_command,
            which=arguments.step,
            others=arguments.seeds,
        )
        logging.info("Made the pretrained model %s.", arguments.output)
    else:
        from_torch(arguments.checkpoint, arguments.config, arguments.workdir, arguments.step)


def to_torch(
    workdir: Path,
    output: Path,
    format: str | None = None,
    which: str = "latest",
    layout: str | None = None,
) -> None:
    """Writes the weights of a run to a file that PyTorch reads.

    Args:
        workdir: the run directory.
        output: the file.
        format: one of `FORMATS`; None takes the one that the file's suffix suggests.
        which: the checkpoint: "latest", "best" or a step.
        layout: a project whose keys the file has, of the model's `TorchModel.layouts`; None is the
            keys of `objdisc_jax.interop`.

    Raises:
        UserError: the run or the checkpoint cannot be used, or the file not be written.
    """
    import jax

    from objdisc_jax import config as configs
    from objdisc_jax import interop, sharding
    from objdisc_jax.interop import files, mapping
    from objdisc_jax.models import base
    from objdisc_jax.training import run_dir

    format = format or SUFFIXES.get(output.suffix, "state_dict")
    trained = run_dir.load_trained(workdir, sharding.replicated(sharding.data_mesh()), which=which)
    block = configs.to_dict(trained.config)["model"]
    model = interop.create(block)
    params, _ = base.partition(trained.params, trained.model)
    state = mapping.to_torch(jax.device_get(params), model)
    if layout is not None:
        state = mapping.to_layout(state, model, layout)
    if format == "lightning" and (own := _unpublished(model.published, block)):
        logging.warning(
            "The published code does not know %s: its scripts cannot load this file, while "
            "objdisc_jax.interop and from-torch can.",
            ", ".join(f"model.{name} = {value}" for name, value in own.items()),
        )
    files.write(
        output,
        state,
        format=format,
        block=block,
        hyper_parameters=model.hyper_parameters(),
        step=trained.step,
    )
    logging.info("Wrote the %d tensors of step %d to %s.", len(state), trained.step, output)


def from_torch(
    checkpoint: Path, config: ConfigDict, workdir: Path, step: int | None = None
) -> None:
    """Makes a run directory of a weight file.

    Args:
        checkpoint: the weight file.
        config: the experiment that the run is of.
        workdir: the run directory to make; it must not exist, or be empty.
        step: training step of the weights; None takes the one that the file names, or 0.

    Raises:
        UserError: the file cannot be read or does not fit the config's model, the step is no
            step, or the directory exists or cannot be made. Nothing is written then.
    """
    from objdisc_jax import config as configs
    from objdisc_jax import interop, sharding
    from objdisc_jax.interop import files, mapping
    from objdisc_jax.training import frozen, run_dir
    from objdisc_jax.training.step import initial_state

    if workdir.exists() and not (workdir.is_dir() and not any(workdir.iterdir())):
        raise UserError(
            f"workdir: {workdir} exists already. Name a directory that does not, or is empty."
        )
    run = run_dir.abstract(config)
    like = run.state.params
    block = configs.to_dict(config)["model"]
    model = interop.create(block)
    found = files.read(checkpoint)
    differing = _contradictions(found.settings, block | model.hyper_parameters())
    listed = "".join(f"\n  {line}" for line in differing.values())
    refusal = (
        f"checkpoint: {checkpoint} does not fit the {block['name']} model of the config. Choose "
        "the config that these weights were trained with, or set its keys, for example "
        "--config.model.slot_size=64."
    )
    said = f"\nThe file says of its model:{listed}" if listed else ""
    if differing.keys() & {"name", "model_type"}:
        raise UserError(f"{refusal}{said}")
    left_out: list[str] = []
    try:
        own = mapping.own(mapping.from_layout(found.state, model), model)
        left_out = [*own.left_out, *found.others]
        if not own.state:
            raise UserError(f"{refusal} {_no_key(mapping.deeper(found.state, model))}{said}")
        params = mapping.to_jax(own.state, model, like)
    except mapping.MappingError as error:
        others = f"\nThe file holds as well: {_listed(left_out)}." if left_out else ""
        raise UserError(f"{refusal}\n{error}{others}{said}") from error
    if left_out:
        logging.warning("Left out what the model has not: %s.", _listed(left_out))
    if listed:
        logging.warning("The weights fit the model, but the file says of it:%s", listed)
    step = _step(step, found.step, checkpoint)
    state = sharding.put_replicated(initial_state(config, params, step), sharding.data_mesh())
    parts = frozen.load(run.model, run.frozen, loss=True)
    _write_run(workdir, config, parts, state, step)
    logging.info("Made the run %s at step %d from the weights in %s.", workdir, step, checkpoint)


def _no_key(prefix: str | None) -> str:
    """What is said of a file none of whose keys are the model's."""
    if prefix is None:
        return "None of its keys are this model's: the file seems to be of another one."
    return (
        f"The model's keys are there behind {prefix!r}, which is none of the wrappers' names that "
        "are taken off. Save them without it."
    )


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _step(asked: int | None, found: Any, checkpoint: Path) -> int:
    step = next((value for value in (asked, found) if value is not None), 0)
    if type(step) is not int or not 0 <= step <= MAX_STEP:
        where = f"{checkpoint} names" if asked is None else "got"
        raise UserError(
            f"step: {where} {step!r}; it is a number of updates from 0 to {MAX_STEP}. Say with "
            "--step how long these weights were trained."
        )
    return step


def _write_run(workdir: Path, config: ConfigDict, parts: Any, state: Any, step: int) -> None:
    """Makes a run directory with one checkpoint; it appears when it is complete."""
    from objdisc_jax.training import run_dir
    from objdisc_jax.training.checkpoint import Checkpoints

    try:
        with replacing(workdir) as partial, run_dir.opened(partial, config, parts):
            run_dir.record(partial, config, parts)
            with contextlib.closing(Checkpoints(partial)) as checkpoints:
                checkpoints.save(step, state, {"seconds": 0.0})
            if checkpoints.failure is not None:
                raise UserError(f"workdir: {workdir} cannot be written ({checkpoints.failure}).")
    except OSError as error:
        raise UserError(
            f"workdir: {workdir} cannot be written ({error.strerror}). Name another directory."
        ) from error


def _unpublished(published: Mapping[str, Any], block: Mapping[str, Any]) -> dict[str, Any]:
    return {name: block[name] for name, value in published.items() if _plain(block[name]) != value}


def _contradictions(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, str]:
    """Settings that a file names and the config has otherwise, by name."""
    return {
        name: f"{name}: {found[name]!r} in the file, {expected[name]!r} in the config"
        for name in sorted(found.keys() & expected.keys())
        if _plain(found[name]) != _plain(expected[name])
    }


def _plain(value: Any) -> Any:
    """A setting as both sides write it: sequences are tuples, "off" is None."""
    return tuple(value) if isinstance(value, list | tuple) else value or None


if __name__ == "__main__":
    run(main, parse)
