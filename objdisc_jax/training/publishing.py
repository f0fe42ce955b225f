"""Makes the folder of a pretrained model of a run: parameters, config, scores, model card."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from objdisc_jax import config as configs
from objdisc_jax import models, pretrained, run_files
from objdisc_jax.data import datasets
from objdisc_jax.errors import UserError
from objdisc_jax.evaluation import evaluators
from objdisc_jax.files import replacing, write_atomically
from objdisc_jax.models import base
from objdisc_jax.training import run_dir, weights
from objdisc_jax.training.checkpoint import Checkpoints

_PLACES = ("data.path", "data.features", "data.num_workers")
"""Keys of a config that say nothing of what is computed."""


def publish(
    workdir: Path,
    output: Path,
    *,
    limits: str,
    data_command: str,
    which: str = "latest",
    others: Sequence[Path] = (),
) -> None:
    """Writes a folder that `objdisc_jax.pretrained.find` finds, and the Hub takes as a repository.

    Args:
        workdir: the run, which has been scored on its test split.
        output: the folder to make; it must not exist, or be empty.
        limits: what the model cannot do, for its card.
        data_command: makes the data that it was trained on and scored with.
        which: the checkpoint: "latest", "best" or a step.
        others: scored runs of the same config with other seeds.

    Raises:
        UserError: a run has no such checkpoint, no scores of it or those of other settings, or the
            folder exists or cannot be made.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"output: {output} exists already. Name a folder that does not.")
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    trained = run_dir.load_trained(workdir, place, which=which)
    evaluated = _evaluated(workdir, trained.step)
    seeds = {}
    for run in others:
        other = configs.load(run)
        _check_alike(trained.config, other, run)
        seeds[str(other.seed)] = _scores(_evaluated(run, trained.step))
    with contextlib.closing(Checkpoints(workdir, create=False)) as checkpoints:
        seconds = checkpoints.metadata(trained.step)["seconds"]
    made_on = run_files.read_json(file := workdir / run_files.ENVIRONMENT)
    if not made_on:
        raise UserError(f"{file}, which tells the hardware for the card, is missing. Restore it.")
    scores = {
        "model": trained.config.model.name,
        "step": trained.step,
        "seed": trained.config.seed,
        "training_seconds": round(seconds),
        "data": {"name": evaluated["data"], "split": "test", "command": data_command},
        "num_images": evaluated["num_images"],
        "scores": _scores(evaluated),
        "other_seeds": seeds,
        "environment": made_on,
    }
    own, _ = base.partition(trained.params, trained.model)
    config = _without_places(trained.config)
    frozen = {
        part: {**found, "source": _without_place(found["source"])}
        for part, found in run_files.read_json(workdir / run_files.FROZEN).items()
    }
    try:
        with replacing(output) as partial:
            partial.mkdir(parents=True)
            weights.write(partial / pretrained.WEIGHTS, own, trained.step)
            configs.save(config, partial)
            if frozen:
                write_atomically(partial / run_files.FROZEN, json.dumps(frozen, indent=2) + "\n")
            write_atomically(partial / pretrained.SCORES, json.dumps(scores, indent=2) + "\n")
            card = _card(output.name, config, scores, limits)
            write_atomically(partial / pretrained.CARD, card)
    except OSError as error:
        raise UserError(
            f"output: {output} cannot be written ({error.strerror}). Name another folder."
        ) from error


def _without_places(config: ConfigDict) -> ConfigDict:
    """A config without the folders that files lay in, which are nobody's business."""
    config = config.copy_and_resolve_references()
    # Where the command puts it.
    config.data.path = datasets.get(config.data.name).default_config().path
    for block, key in (
        (config, "pretrained"),
        (config.data, "features"),
        (config.model, "weights"),
        (config.model, "teacher"),
    ):
        if block.get(key):
            block[key] = _without_place(block[key])
    return config


def _without_place(source: str) -> str:
    """The name of a file or folder; anything else, such as a repository of the Hub, as it is."""
    on_hub = source.count("/") == (2 if source.endswith(".safetensors") else 1)
    here = os.path.isabs(source) or os.path.exists(source) or not on_hub
    return Path(source).name if here else source


def _check_alike(config: ConfigDict, other: ConfigDict, run: Path) -> None:
    """Refuses a run as another seed of a config if it differs in more."""
    differing = configs.differences(configs.to_dict(config), configs.to_dict(other))
    changes = {key: change for key, change in differing.items() if key not in (*_PLACES, "seed")}
    if changes or "seed" not in differing:
        listing = ", ".join(f"{key}: {change}" for key, change in changes.items())
        raise UserError(
            f"--seeds: {run} is no other seed of the run: "
            f"{listing or 'its seed is the same'}. Leave it out."
        )


def _evaluated(workdir: Path, step: int | None = None) -> dict[str, Any]:
    """What `evaluate` wrote of the test split."""
    file = workdir / run_files.scores("test")
    found = run_files.read_json(file)
    if not found or (step is not None and found["step"] != step):
        what = f"of step {found['step']}, not {step}" if found else "missing"
        raise UserError(
            f"{file} is {what}. Score the run first: objdisc eval "
            f"--workdir {workdir}" + ("" if step is None else f" --step {step}")
        )
    changes = {
        key: change
        for key, change in found.get("differs_from_training", {}).items()
        if key.startswith(("model.", "background.", "data."))
        and key not in (*_PLACES, "model.weights", "model.teacher")  # the same by their hash
    }
    if changes:
        listing = ", ".join(f"{key}: {change}" for key, change in changes.items())
        raise UserError(
            f"{file} has scores of other settings than the run's ({listing}), but the run's are "
            f"published. Score it as it was trained: objdisc eval --workdir {workdir}"
        )
    return found


def _scores(evaluated: Mapping[str, Any]) -> dict[str, float]:
    """The scores alone, of all that `evaluate` wrote."""
    return {
        name: float(f"{value:.4g}")
        for name, value in evaluated.items()
        if isinstance(value, float) and name != "step"
    }


def _card(name: str, config: ConfigDict, scores: Mapping[str, Any], limits: str) -> str:
    """The model card, in the form of the Hugging Face Hub."""
    made_on = scores["environment"]
    declaration = datasets.get(config.data.name).declare(config.data)
    meanings: dict[str, str] = {}
    for evaluator in evaluators.create(config, declaration):
        meanings |= evaluator.metrics
    doc = (models.get(config.model.name).__doc__ or "").strip().split("\n")[0]
    seeds = list(others := scores["other_seeds"])
    header = "".join(f" seed {seed} |" for seed in seeds)
    rows = [
        f"| {metric} | {value} |"
        + "".join(f" {others[seed].get(metric, '')} |" for seed in seeds)
        + f" {meanings[metric]} |"
        for metric, value in scores["scores"].items()
        if metric in meanings
    ]
    height, width = config.model.resolution
    minutes = scores["training_seconds"] / 60
    device = f"{made_on['num_devices']} x {made_on['device']}"
    begun = f", begun with the parameters of `{begun}`" if (begun := config.pretrained) else ""
    return "\n".join(
        [
            "---",
            "library_name: objdisc_jax",
            "license: apache-2.0",
            "pipeline_tag: image-segmentation",
            f"tags: [object-discovery, object-centric-learning, jax, {config.model.name}]",
            "---",
            "",
            f"# {name}",
            "",
            f"{doc} Images of {width}x{height}.",
            "",
            f"    objdisc predict --pretrained {name} --input IMAGES --output FOLDER",
            "",
            "## Training",
            "",
            f"{scores['step']:,} steps of {config.batch_size} images, {minutes:.0f} minutes on "
            f"{device}, seed {scores['seed']}, commit `{made_on['git_commit']}`{begun}; "
            "`config.json` has every setting. Without labels. The data:",
            "",
            f"    {scores['data']['command']}",
            "",
            "## Scores",
            "",
            f"{scores['num_images']} test images, which training never saw.",
            "",
            f"| | these weights (seed {scores['seed']}) |{header} |",
            f"|---|---|{'---|' * len(seeds)}---|",
            *rows,
            "",
            "## Limits",
            "",
            limits,
            "",
        ]
    )
