"""Scores of a model on a split, whatever the batch size or the number of devices."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Int
from ml_collections import ConfigDict

from objdisc_jax import metrics
from objdisc_jax.data import loader
from objdisc_jax.errors import UserError
from objdisc_jax.models import base
from objdisc_jax.training import sharding
from objdisc_jax.training.step import prepare_images, resize_labels

CHUNK = 16
"""Images that a device computes at a time. XLA rounds differently for other batch shapes, enough to
turn a pixel between two equal masks; with this one shape every image gets the same bits always."""

LABEL_METRICS = ("fg_ari", "ari", "miou", "miou_with_background", "mbo")


@dataclasses.dataclass(frozen=True)
class Scores:
    """Means over a split.

    Attributes:
        means: by name. Where the set has masks, `fg_ari` of the slots' masks, and `ari`, `miou`,
            `miou_with_background` and `mbo` of the segmentation, in which pixels that no slot
            claims are background if `config.background` says so; `mse` (mean per element) and
            `mse_sum` (over channels and pixels), both of images in [0, 1]; where the model counts,
            `count_accuracy` and `count_error` against the objects that are visible; `loss` and the
            parts of it that the model names; the model's slow scores.
        num_images: how many images were scored.
        num_without_objects: how many of them show no true object; they have no FG-ARI, mIoU and
            mBO and are left out of those means.
    """

    means: dict[str, float]
    num_images: int
    num_without_objects: int


class Evaluator:
    """Evaluates parameters on a split, again and again.

    Every example's noise depends on the seed and its record number alone, devices compute in chunks
    of one size, padding is masked out, and values are averaged in the order of the records in
    float64: the scores don't depend on the batch size or the number of devices.

    Args:
        config: the config; uses `seed`, `eval` and `data.num_workers`.
        graphdef: the model's static description.
        dataset: the split.
        mesh: the devices.
        num_images: how many examples of the split are used; None means all.
        expensive_metrics: compute the model's slow scores too.
    """

    def __init__(
        self,
        config: ConfigDict,
        graphdef: nnx.GraphDef,
        dataset: loader.Dataset,
        mesh: Mesh,
        num_images: int | None = None,
        expensive_metrics: bool = True,
    ):
        # Rounded up to whole chunks on every device: padding fills them.
        step = mesh.size * CHUNK
        self._batch_size = -(-config.eval.batch_size // step) * step
        self._num_workers = config.data.num_workers
        self._dataset = dataset
        self._mesh = mesh
        self._num_images = num_images
        self._step = _make_eval_step(config, graphdef, dataset, mesh, expensive_metrics)

    def __call__(self, params: base.Params, step: int) -> Scores:
        """Scores parameters as of a training step (schedules of the loss depend on it)."""
        batches = loader.eval_batches(
            self._dataset,
            batch_size=self._batch_size,
            num_images=self._num_images,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_workers=self._num_workers,
        )
        found = []
        for batch in batches:
            batch["index"] = batch["index"].astype(np.int32)
            found.append(self._step(params, sharding.put_batch(batch, self._mesh), jnp.int32(step)))
        return self._combine(jax.device_get(found))

    def _combine(self, batches: list[dict[str, Any]]) -> Scores:
        values = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        valid = values.pop("valid")
        if not valid.any():
            raise UserError(
                f"None of the images of split '{self._dataset.split}' can be read; the warnings "
                "say why. Restore them."
            )
        order = np.argsort(values.pop("index")[valid], kind="stable")
        values = {name: value[valid][order] for name, value in values.items()}
        without_objects = 0
        if "table" in values:
            table = values.pop("table")
            background = self._dataset.declaration.background_labels
            values["miou"] = metrics.mean_iou(table, background)
            values["miou_with_background"] = metrics.mean_iou(table, ())
            values["mbo"] = metrics.mean_best_overlap(table, background)
            without_objects = int(np.isnan(values["fg_ari"]).sum())
        means = {}
        for name, value in values.items():
            if name in LABEL_METRICS:
                value = value[~np.isnan(value)]
            means[name] = float(np.mean(value, dtype=np.float64)) if len(value) else math.nan
        return Scores(means, int(valid.sum()), without_objects)


def _make_eval_step(
    config: ConfigDict,
    graphdef: nnx.GraphDef,
    dataset: loader.Dataset,
    mesh: Mesh,
    expensive_metrics: bool,
) -> Callable[[base.Params, dict[str, Array], Array], dict[str, Array]]:
    """The jitted `(params, batch, step) -> {name: [b, ...]}`, one value an example."""
    declaration = dataset.declaration
    seed, background = config.seed, config.background

    def score_chunk(params, batch, step):
        model = base.merge(graphdef, params)
        image = prepare_images(batch["image"], model.resolution, model.input_range)
        noise = evaluation_noise(model, seed, batch["index"])
        prediction = model.predict(image, noise, step=step)
        loss, scalars = model.loss(image, noise, step=step)
        own_scores = model.expensive_metrics(image, prediction) if expensive_metrics else {}
        recon, image = (to_unit_range(x, model.input_range) for x in (prediction.recon, image))
        found = {
            "loss": loss,
            **scalars,
            "mse": metrics.mse(recon, image),
            "mse_sum": metrics.mse_sum(recon, image),
            **own_scores,
            "valid": batch["valid"],
            "index": batch["index"],
        }
        if "segmentation" in batch:
            true = resize_labels(batch["segmentation"], model.resolution)
            num_masks = prediction.masks.shape[1]
            sizes = {"num_true": declaration.num_entities, "num_predicted": num_masks + 1}
            labels = jnp.argmax(prediction.masks, axis=1)
            by_slot = metrics.contingency_table(true, labels, **sizes)
            found["fg_ari"] = metrics.fg_adjusted_rand_index(by_slot, declaration.background_labels)
            if prediction.background is None and background.mode in ("low_confidence", "both"):
                # Pixels that no slot claims are a segment of their own.
                claimed = jnp.max(prediction.masks, axis=1) >= background.threshold
                labels = jnp.where(claimed, labels, num_masks)
            found["table"] = metrics.contingency_table(true, labels, **sizes)
            if prediction.count is not None:
                num_objects = metrics.num_objects(
                    batch["segmentation"], declaration.num_entities, declaration.background_labels
                )
                found["count_accuracy"] = (prediction.count == num_objects).astype(jnp.float32)
                found["count_error"] = jnp.abs(prediction.count - num_objects).astype(jnp.float32)
            found["ari"] = metrics.adjusted_rand_index(found["table"])
        return found

    def score_part(params, batch, step):
        chunks = jax.tree.map(lambda x: rearrange(x, "(n c) ... -> n c ...", c=CHUNK), batch)
        scores = jax.lax.map(lambda chunk: score_chunk(params, chunk, step), chunks)
        return jax.tree.map(lambda x: rearrange(x, "n c ... -> (n c) ..."), scores)

    everywhere, divided = sharding.replicated(mesh), sharding.batched(mesh)
    specs = (everywhere.spec, divided.spec, everywhere.spec)
    # Unchecked, so that a model's scan may begin with a constant, which all devices have alike.
    eval_step = jax.shard_map(
        score_part, mesh=mesh, in_specs=specs, out_specs=divided.spec, check_vma=False
    )
    return jax.jit(eval_step, out_shardings=everywhere)


def evaluation_noise(model: base.Model, seed: int, index: Int[Array, "b"]) -> base.Noise:
    """The noise with which examples are evaluated and shown; padding (index −1) gets some too."""
    # Training folds steps into the key, which never reach this number.
    key = jax.random.fold_in(jax.random.key(seed), 2**32 - 1)
    return base.per_example_noise(model, key, jnp.maximum(index, 0))


def to_unit_range(image: Array, input_range: tuple[float, float]) -> Array:
    """Maps a model's input range to [0, 1]."""
    low, high = input_range
    return (image - low) / (high - low)
