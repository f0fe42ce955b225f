"""Trains or evaluates an experiment.

    python -m objdisc_jax.main --config configs/demo.py [--workdir runs/demo]
    python -m objdisc_jax.main --config configs/demo.py --mode eval --split test

Training goes on from the latest checkpoint in the workdir. Any key of the config can be set:
`--config.batch_size=32 --config.model.num_slots=5`.

`--pretrained NAME` scores a pretrained model, or begins training with its parameters.

Several processes train as one under SLURM and Open MPI, with `objdisc_jax.launch`, or where each is
started with `--coordinator host:port --num_processes N --process_id I`.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from objdisc_jax import pretrained
from objdisc_jax.cli import run
from objdisc_jax.errors import ConfigError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The experiment, a Python file.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run directory. Default: runs/<name of the config file>."
)
_PRETRAINED = flags.DEFINE_string(
    "pretrained",
    None,
    "A trained model: one that comes along, a folder, or OWNER/NAME on the Hugging Face Hub.",
)
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "What to do.")
_SPLIT = flags.DEFINE_string("split", "test", "eval: the split to score on.")
_STEP = flags.DEFINE_string("step", "latest", "eval: the checkpoint: latest, best, or a step.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0 of several.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes.", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which this one is, from 0.", lower_bound=0)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds", 40, "A process silent for so long is taken for dead.", lower_bound=10
)


def main(argv: Sequence[str]) -> None:
    """Does what the flags say."""
    if len(argv) > 1:
        raise ConfigError(f"Unknown arguments: {' '.join(argv[1:])}. Flags begin with --.")
    config, workdir = _CONFIG.value, _WORKDIR.value
    if workdir is None and config is not None:
        workdir = Path("runs") / Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    elif workdir is None and _PRETRAINED.value:
        workdir = Path("runs") / Path(_PRETRAINED.value).name
    if workdir is None or (config is None and _MODE.value == "train"):
        raise ConfigError("Name an experiment, for example --config configs/demo.py")
    from objdisc_jax.training import distributed

    with distributed.connected(
        _COORDINATOR.value,
        _NUM_PROCESSES.value,
        _PROCESS_ID.value,
        heartbeat_seconds=_HEARTBEAT.value,
    ):
        if _MODE.value == "eval":
            from objdisc_jax.training.evaluate import evaluate

            output = Path(workdir)
            trained = pretrained.find(_PRETRAINED.value) if _PRETRAINED.value else output
            split, which = _SPLIT.value, _STEP.value
            evaluate(trained, config=config, split=split, step=which, output=output)
        elif config is not None:
            from objdisc_jax.training.loop import train

            if _PRETRAINED.value:
                config.pretrained = _PRETRAINED.value
            train(config, Path(workdir))


if __name__ == "__main__":
    run(main)
