"""Scoring a trained run on a split: a table on the console and a JSON file in the workdir."""

import json
import math
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from objdisc_jax import config as configs
from objdisc_jax import settings
from objdisc_jax.data import loader
from objdisc_jax.files import write_atomically
from objdisc_jax.training import distributed, runs, sharding
from objdisc_jax.evaluation.runner import Evaluator, Scores
from objdisc_jax.evaluation.visualization import Pictures, save

MEANINGS = {
    "fg_ari": "adjusted Rand index over the pixels of true objects",
    "ari": "adjusted Rand index over all pixels",
    "miou": "mean IoU of true objects, matched one to one",
    "miou_with_background": "the same with the background as an object",
    "mbo": "mean over true objects of the best overlap",
    "count_accuracy": "images with as many objects as the model says",
    "count_error": "objects too many or too few, mean over images",
    "mse": "squared error per element, images in [0, 1]",
    "mse_sum": "squared error summed over pixels and channels",
    "mse_autoregressive": "squared error of the image decoded token by token",
}


def evaluate(
    workdir: Path, *, config: ConfigDict | None = None, split: str = "test", which: str = "latest"
) -> Scores:
    """Scores a run, prints a table, and writes `eval_<split>.json` and a panel of pictures.

    Args:
        workdir: the run directory.
        config: score with this config (more slots, more objects, another data set) instead of the
            run's own.
        split: the split to score on.
        which: the checkpoint: "latest", "best" or a step.

    Returns:
        The scores.

    Raises:
        UserError: the run, the checkpoint, the config or the data cannot be used.
    """
    if config is not None:
        settings.check(config)
    mesh = sharding.data_mesh()
    trained = runs.load_trained(workdir, sharding.replicated(mesh), which=which, config=config)
    changes: dict[str, str] = {}
    if config is not None:
        saved = configs.to_dict(configs.load(workdir))
        changes = configs.differences(saved, configs.to_dict(config))
        for key, change in changes.items():
            logging.info("differs from training: %s: %s", key, change)
    config = trained.config
    dataset = loader.load(config.data, split)
    scores = Evaluator(config, trained.graphdef, dataset, mesh)(trained.params, trained.step)
    if distributed.is_primary():
        picture = Pictures(config, trained.graphdef, dataset)(trained.params, trained.step)
        file = workdir / f"eval_{split}.json"
        values = {
            **{name: None if math.isnan(x) else x for name, x in scores.means.items()},
            "num_images": scores.num_images,
            "num_without_objects": scores.num_without_objects,
            "step": trained.step,
            "checkpoint": which,
            "data": dataset.declaration.name,
            "differs_from_training": changes,
        }
        write_atomically(file, json.dumps(values, indent=2) + "\n")
        picture_file = save(workdir, split, picture)
        print(_table(scores, dataset, trained.step))
        print(f"\nscores   {file}\npictures {picture_file}")
    return scores


def _table(scores: Scores, dataset: loader.Dataset, step: int) -> str:
    order = [*(name for name in MEANINGS if name in scores.means), *scores.means]
    lines = [
        f"{dataset.declaration.name}, split {dataset.split}, {scores.num_images} images, "
        f"step {step}",
        *(
            f"  {name:<22}{scores.means[name]:>10.4f}  {MEANINGS.get(name, '')}".rstrip()
            for name in dict.fromkeys(order)
        ),
    ]
    if scores.num_without_objects:
        lines.append(
            f"  {scores.num_without_objects} images show no object: they count in no FG-ARI, "
            "mIoU or mBO"
        )
    return "\n".join(lines)
