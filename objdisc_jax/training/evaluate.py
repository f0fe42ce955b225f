"""Scoring a trained run on a split: a table on the console and a JSON file in the workdir."""

import json
import math
import os
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from objdisc_jax import config as configs
from objdisc_jax import pretrained, run_files, sharding
from objdisc_jax.data import loader
from objdisc_jax.errors import UserError
from objdisc_jax.evaluation import evaluators, visualization
from objdisc_jax.evaluation.runner import Runner, Scores
from objdisc_jax.files import write_atomically
from objdisc_jax.training import distributed, frozen, run_dir


def evaluate(
    source: str | os.PathLike[str],
    *,
    config: ConfigDict | None = None,
    split: str = "test",
    step: str | int = "latest",
    output: str | os.PathLike[str] | None = None,
) -> Scores:
    """Scores a run, prints a table, and writes `eval_<split>.json` and a panel of images.

    Args:
        source: a run directory, or a pretrained model, as `objdisc_jax.load` takes them.
        config: score with this config (more slots, more objects, another data set) instead of the
            run's own.
        split: the split to score on.
        step: the checkpoint of a run: "latest", "best" or a step.
        output: the folder to write to; by default the run directory.

    Returns:
        The scores.

    Raises:
        UserError: the run, the checkpoint, the config or the data cannot be used.
    """
    workdir = pretrained.locate(source)
    if output is None and pretrained.is_pretrained(workdir):
        raise UserError(f"output: {workdir} is no run directory. Name a folder for the scores.")
    output = workdir if output is None else Path(output)
    if (output / run_files.CONFIG).exists() and not output.samefile(workdir):
        raise UserError(
            f"output: {output} holds a run, whose scores those of {workdir} would replace. Name "
            "another folder (--workdir)."
        )
    if config is not None:
        configs.check(config)
    mesh = sharding.data_mesh()
    trained = run_dir.load_trained(
        workdir, sharding.replicated(mesh), which=str(step), config=config, loss=True
    )
    changes: dict[str, str] = {}
    if config is not None:
        saved = configs.to_dict(configs.load(workdir))
        changes = configs.differences(saved, configs.to_dict(config))
        for key, change in changes.items():
            logging.info("differs from training: %s: %s", key, change)
    config = trained.config
    dataset = loader.load(config.data, split)
    dataset.check_fields(trained.model.fields, f"model {config.model.name!r}")
    frozen.check_computed(trained.frozen, trained.model, dataset.fields, config.data.features)
    runner = Runner(config, trained.graphdef, dataset, mesh, trained.model.fields)
    scores = runner(trained.params, trained.step)
    if distributed.is_primary():
        draw = visualization.Visualizer(config, trained.graphdef, dataset)
        file = output / run_files.scores(split)
        values = {
            **{name: None if math.isnan(x) else x for name, x in scores.means.items()},
            "num_images": scores.num_images,
            "left_out": scores.left_out,
            "step": trained.step,
            "checkpoint": str(step),
            "data": dataset.declaration.name,
            "differs_from_training": changes,
        }
        write_atomically(file, json.dumps(values, indent=2) + "\n")
        panel = visualization.save(output, split, draw(trained.params, trained.step))
        print(_table(config, scores, dataset, trained.step))
        print(f"\nscores   {file}\nimages   {panel}")
    return scores


def _table(config: ConfigDict, scores: Scores, dataset: loader.Dataset, step: int) -> str:
    meanings: dict[str, str] = {}
    for evaluator in evaluators.create(config, dataset.declaration):
        meanings |= evaluator.metrics
    lines = [
        f"{dataset.declaration.name}, split {dataset.split}, {scores.num_images} images, "
        f"step {step}",
        *(
            f"  {name:<22}{value:>10.4f}  {meanings.get(name, '')}".rstrip()
            for name, value in scores.means.items()
        ),
    ]
    by_count: dict[int, list[str]] = {}
    for name, count in scores.left_out.items():
        by_count.setdefault(count, []).append(name)
    lines += [f"  {count} images have no {', '.join(names)}" for count, names in by_count.items()]
    return "\n".join(lines)
