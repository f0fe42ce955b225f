"""Scores of a model on a split, whatever the batch size or the number of devices."""

import dataclasses
import math
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Int
from ml_collections import ConfigDict

from objdisc_jax import sharding
from objdisc_jax.data import loader
from objdisc_jax.errors import ConfigError, UserError
from objdisc_jax.evaluation import evaluators
from objdisc_jax.evaluation.chunks import in_chunks, whole_chunks
from objdisc_jax.models import base
from objdisc_jax.names import closest
from objdisc_jax.preprocessing import prepare_batch
from objdisc_jax.progress import Progress


@dataclasses.dataclass(frozen=True)
class Scores:
    """Means over a split."""

    # By name: the evaluators' metrics, then `loss`, the parts of it that the model names, and
    # its expensive metrics.
    means: dict[str, float]
    num_images: int  # how many images were scored
    # How many images have no such score, and so are left out of its mean, by name.
    left_out: dict[str, int]


class Runner:
    """Scores parameters on a split, again and again.

    Every example's noise depends on the seed and its record number alone, devices compute in chunks
    of one size, padding is masked out, and values are averaged in the order of the records in
    float64: the scores don't depend on the batch size or the number of devices.

    Args:
        config: the config; uses `seed`, `evals`, `eval`, `background` and `data.num_workers`.
        graphdef: the model's static description.
        dataset: the split.
        mesh: the devices.
        fields: what the model needs of the data set.
        num_images: how many examples of the split are used; None means all.
        expensive_metrics: compute the model's expensive metrics too.

    Raises:
        ConfigError: there is no such evaluator.
    """

    def __init__(
        self,
        config: ConfigDict,
        graphdef: nnx.GraphDef,
        dataset: loader.Dataset,
        mesh: Mesh,
        fields: Collection[str],
        num_images: int | None = None,
        expensive_metrics: bool = True,
    ):
        self._batch_size = whole_chunks(config.eval.batch_size, mesh)  # padding fills them
        self._config, self._graphdef = config, graphdef
        self._dataset, self._mesh, self._num_images = dataset, mesh, num_images
        self._evaluators = []
        for evaluator in evaluators.create(config, dataset.declaration):
            if missing := set(evaluator.fields) - set(dataset.fields):
                logging.info(
                    "The data has no %s, so there is no %s.",
                    " and no ".join(sorted(missing)),
                    ", ".join(evaluator.metrics),
                )
            else:
                self._evaluators.append(evaluator)
        self._fields = sorted(
            {*fields}.union(
                *(one.fields for one in self._evaluators),
                *({*one.optional} & dataset.fields.keys() for one in self._evaluators),
            )
        )
        self._step = self._make_step(expensive_metrics)

    def __call__(self, params: base.Params, step: int) -> Scores:
        """Scores parameters as of a training step (schedules of the loss depend on it)."""
        batches = loader.eval_batches(
            self._dataset,
            batch_size=self._batch_size,
            fields=self._fields,
            num_images=self._num_images,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_workers=self._config.data.num_workers,
        )
        found = []
        total = min(len(self._dataset), self._num_images or len(self._dataset))
        told = jax.process_index() == 0
        with Progress(total, "images", f"scoring {self._dataset.split}", is_shown=told) as progress:
            for batch in batches:
                batch["index"] = batch["index"].astype(np.int32)
                fields = sharding.put_batch(batch, self._mesh)
                found.append(self._step(params, fields, jnp.int32(step)))
                if len(found) > 1:  # while this batch is computed the one before is waited for
                    jax.block_until_ready(found[-2])
                    progress.update(self._batch_size)
        return self._combine(jax.device_get(found))

    def best(self, params: base.Params) -> tuple[str, str]:
        """What makes a checkpoint the best, ("max", "fg_ari") say; computes nothing.

        It is what the config says, or the first of the evaluators that have something to score, or
        the least loss.

        Args:
            params: all parameters of the model, or their shapes.

        Raises:
            ConfigError: the config names a metric that there is not; lists those there are.
        """
        batch = self._dataset.read(np.array([0]), self._fields)
        batch["index"] = batch["index"].astype(np.int32)
        batch = {key: value.repeat(whole_chunks(1, self._mesh), 0) for key, value in batch.items()}
        own, *shapes = jax.eval_shape(self._step, params, batch, jnp.int32(0))[0]
        pairs = zip(self._evaluators, shapes, strict=True)
        scoring = [evaluator for evaluator, values in pairs if values]
        known = [*own, *(name for evaluator in scoring for name in evaluator.metrics)]
        defaults = [evaluator.best for evaluator in scoring if evaluator.best is not None]
        best = self._config.checkpoint.best or [*defaults, "min loss"][0]
        direction, name = best.split()
        if name not in known:
            raise ConfigError(
                f"checkpoint.best: validations have no metric {name!r}{closest(name, known)}. "
                f"There are {', '.join(known)}."
            )
        return direction, name

    def _combine(self, batches: list[Any]) -> Scores:
        (own, *values), examples = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
        valid = examples["valid"]
        if not valid.any():
            raise UserError(
                f"None of the images of split '{self._dataset.split}' can be read; the warnings "
                "say why. Restore them."
            )
        order = np.argsort(examples["index"][valid], kind="stable")
        own, *values = jax.tree.map(lambda x: x[valid][order], (own, *values))
        means, left_out = {}, {}
        for evaluator, found in zip(self._evaluators, values, strict=True):
            metrics = evaluator.finish(found) if found else {}
            for name in sorted(metrics, key=[*evaluator.metrics, *metrics].index):
                scored = metrics[name][~np.isnan(metrics[name])]
                if len(scored) < len(metrics[name]):
                    left_out[name] = len(metrics[name]) - len(scored)
                means[name] = _mean(scored)
        return Scores(means | {k: _mean(v) for k, v in own.items()}, int(valid.sum()), left_out)

    def _make_step(
        self, expensive_metrics: bool
    ) -> Callable[[base.Params, dict[str, Array], Array], tuple[list[Any], dict[str, Array]]]:
        """The jitted `(params, fields, step) -> ([own values, *evaluators'], which examples)`."""
        graphdef, seed = self._graphdef, self._config.seed

        def score_chunk(params, fields, step):
            model = base.merge(graphdef, params)
            batch = prepare_batch(fields, model)
            noise = evaluation_noise(model, seed, fields["index"])
            prediction = model.predict(batch, noise, step=step)
            loss, scalars = model.loss(batch, noise, step=step)
            own = {"loss": loss, **scalars}
            if expensive_metrics:
                own |= model.expensive_metrics(batch, prediction)
            found = [one.score(model, batch, prediction, fields) for one in self._evaluators]
            return [own, *found], {name: fields[name] for name in ("valid", "index")}

        return in_chunks(score_chunk, self._mesh)


def evaluation_noise(model: base.Model, seed: int, index: Int[Array, "b"]) -> base.Noise:
    """The noise with which examples are evaluated and shown; padding (index −1) gets some too."""
    # Training folds steps into the key, which never reach this number.
    key = jax.random.fold_in(jax.random.key(seed), 2**32 - 1)
    return base.per_example_noise(model, key, jnp.maximum(index, 0))


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64)) if len(values) else math.nan
