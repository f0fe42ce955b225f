"""Trains an experiment, or scores a trained model.

    objdisc train --config configs/demo.py [--workdir runs/demo]
    objdisc eval --config configs/demo.py --split test
    objdisc eval --workdir runs/demo --step best

`python -m objdisc_jax.main` does the same, the second with `--mode eval`.

Training goes on from the latest checkpoint in the workdir. Any key of the config can be set:
`--config.batch_size=32 --config.model.num_slots=5`.

`--pretrained NAME` scores a pretrained model, or begins training with its parameters.

Several processes train as one under SLURM and Open MPI, with `objdisc launch`, or where each is
started with `--coordinator host:port --num-processes N --process-id I`.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from objdisc_jax import pretrained
from objdisc_jax.cli import exit_on_usage, run

_CONFIG = config_flags.DEFINE_config_file("config", help_string="the experiment, a Python file")
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "the run directory (default: runs/<name of the config file>; eval of a pretrained model: "
    "runs/pretrained/<its name>)",
)
_PRETRAINED = flags.DEFINE_string(
    "pretrained",
    None,
    "a trained model: one that comes along, a folder, or OWNER/NAME on the Hugging Face Hub",
)
_MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "eval"], "what to do (`objdisc train` and `objdisc eval` say it)"
)
_SPLIT = flags.DEFINE_string("split", "test", "eval: the split to score on (default: test)")
_STEP = flags.DEFINE_string(
    "step", "latest", "eval: the checkpoint: latest, best, or a step (default: latest)"
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0 of several")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "how many processes", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "which this one is, from 0", lower_bound=0)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds",
    40,
    "a process silent for so long is taken for dead (default: 40)",
    lower_bound=10,
)


def main(_: Sequence[str]) -> None:
    """Does what the flags say."""
    config, workdir = _CONFIG.value, _WORKDIR.value
    if workdir is None and _PRETRAINED.value and _MODE.value == "eval":
        workdir = Path("runs") / "pretrained" / Path(_PRETRAINED.value).name
    elif workdir is None and config is not None:
        workdir = Path("runs") / Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    if workdir is None or (config is None and _MODE.value == "train"):
        exit_on_usage("Name an experiment, for example --config configs/demo.py")
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
