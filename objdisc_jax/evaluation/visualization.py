"""Panels of images of a model's predictions, for the first examples of a split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, UInt8
from ml_collections import ConfigDict
from numpy.typing import ArrayLike

from objdisc_jax import run_files, sharding, visualize
from objdisc_jax.compiling import jit
from objdisc_jax.data import loader
from objdisc_jax.evaluation.runner import evaluation_noise
from objdisc_jax.models import base
from objdisc_jax.preprocessing import prepare_batch, prepare_images, resize_labels, to_unit_range
from objdisc_jax.segmentation import segment


class Visualizer:
    """Draws the same examples again and again as training goes on.

    Args:
        config: the experiment; uses `seed`, `visualize` and `background`.
        graphdef: the model's static description.
        dataset: the split that the examples are the first of.
    """

    def __init__(self, config: ConfigDict, graphdef: nnx.GraphDef, dataset: loader.Dataset):
        count = min(config.visualize.num_images, len(dataset))
        self._fields = dataset.read(np.arange(count))
        self._fields["index"] = self._fields["index"].astype(np.int32)
        self._background = config.background.to_dict()
        self._background_labels = dataset.declaration.background_labels
        self._draw = jit(
            lambda params, fields, step: draw(
                base.merge(graphdef, params), fields, config.seed, step
            )
        )

    def __call__(self, params: base.Params, step: int) -> UInt8[np.ndarray, "h w 3"]:
        """The panel of all parameters of a model, as of a training step."""
        params = sharding.on_one_device(params)  # one process alone draws
        rows, prediction = self._draw(params, self._fields, step)
        true = None
        if "segmentation" in self._fields and prediction.masks is not None:
            height, width = prediction.masks.shape[2:]
            labels = resize_labels(jnp.asarray(self._fields["segmentation"]), (height, width))
            true = np.where(np.isin(labels, self._background_labels), 0, labels)
        own, background = prediction.background, self._background
        found = None
        if prediction.masks is not None and own is None and background["mode"] != "none":
            found = segment(prediction.masks, contrast=prediction.contrast, **background)
        return compose(rows, prediction.masks, own, found, true)


def draw(
    model: base.Model, fields: Mapping[str, Any], seed: int, step: base.Step
) -> tuple[dict[str, Array], base.Prediction]:
    """The rows of images that examples' panels have, and the prediction."""
    batch = prepare_batch(fields, model)
    noise = evaluation_noise(model, seed, fields["index"])
    prediction = model.predict(batch, noise, step=step)
    image = None
    if "image" in fields:  # whether the model names it or not
        image = prepare_images(fields["image"], model.resolution, model.input_range)
    shown = {"input": image, "reconstruction": prediction.recon}
    rows = {
        name: jnp.clip(to_unit_range(image, model.input_range), 0.0, 1.0)
        for name, image in shown.items()
        if image is not None
    }
    return rows | model.visualize(batch, noise, step=step), prediction


def compose(
    rows: Mapping[str, ArrayLike],
    masks: ArrayLike | None,
    own_background: int | None,
    found: UInt8[np.ndarray, "b h w"] | None = None,
    true: UInt8[np.ndarray, "b h w"] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """One panel of the rows that every model has and the model's own.

    Args:
        rows: what `draw` drew: `input`, `reconstruction`, then the model's rows.
        masks: those of the prediction, `[b, k, h, w]`.
        own_background: index of the mask that is the model's own background, or None.
        found: what is made of the masks where background is told from objects.
        true: true segmentation at the model's resolution, background 0.
    """
    own = {name: np.asarray(row) for name, row in rows.items()}
    first = {name: own.pop(name) for name in ("input", "reconstruction") if name in own}
    labels = {} if true is None else {"true segmentation": true}
    if masks is not None:
        labels["masks"] = segment(masks, background=own_background)
        if found is not None:
            labels["segmentation"] = found
    return visualize.panel({**first, **labels, **own})


def save(workdir: Path, name: str, panel: UInt8[np.ndarray, "h w 3"]) -> Path:
    """Writes a panel into the run directory and returns its path."""
    file = workdir / run_files.VISUALIZATIONS / f"{name}.png"
    visualize.save_png(file, panel)
    return file
