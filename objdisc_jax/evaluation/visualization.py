"""Panels of pictures of a model's predictions, from the first images of a split."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, UInt8
from ml_collections import ConfigDict

from objdisc_jax import visualize
from objdisc_jax.data import loader
from objdisc_jax.models import base
from objdisc_jax.segmentation import segment
from objdisc_jax.training import sharding
from objdisc_jax.evaluation.runner import evaluation_noise, to_unit_range
from objdisc_jax.training.step import prepare_images, resize_labels

FOLDER = "pictures"


class Pictures:
    """Draws the same images again and again as training goes on.

    Args:
        config: the experiment; uses `seed`, `pictures` and `background`.
        graphdef: the model's static description.
        dataset: the split that the images are the first of.
    """

    def __init__(self, config: ConfigDict, graphdef: nnx.GraphDef, dataset: loader.Dataset):
        count = min(config.pictures.num_images, len(dataset))
        self._batch = dataset.read(np.arange(count))
        self._background = config.background.to_dict()
        self._background_labels = dataset.declaration.background_labels
        self._draw = make_draw(graphdef, config.seed)

    def __call__(self, params: base.Params, step: int) -> UInt8[np.ndarray, "h w 3"]:
        """The panel of these parameters, as of a training step."""
        batch = self._batch
        params = sharding.on_one_device(params)  # one process alone draws
        rows, prediction = self._draw(params, batch["image"], batch["index"].astype(np.int32), step)
        true = None
        if "segmentation" in batch:
            height, width = prediction.masks.shape[2:]
            labels = np.asarray(resize_labels(jnp.asarray(batch["segmentation"]), (height, width)))
            true = np.where(np.isin(labels, self._background_labels), 0, labels)
        return compose(rows, prediction, self._background, true)


def make_draw(
    graphdef: nnx.GraphDef, seed: int
) -> Callable[
    [base.Params, ArrayLike, ArrayLike, ArrayLike], tuple[dict[str, Array], base.Prediction]
]:
    """A jitted `(params, image uint8, index, step) -> (rows of pictures, prediction)`."""

    @jax.jit
    def draw(params, image, index, step):
        model = base.merge(graphdef, params)
        image = prepare_images(image, model.resolution, model.input_range)
        noise = evaluation_noise(model, seed, index)
        prediction = model.predict(image, noise, step=step)
        unit = {
            name: jnp.clip(to_unit_range(x, model.input_range), 0.0, 1.0)
            for name, x in (("input", image), ("reconstruction", prediction.recon))
        }
        return unit | model.panels(image, noise, step=step), prediction

    return draw


def compose(
    rows: dict[str, Array],
    prediction: base.Prediction,
    background: Mapping[str, Any],
    true: np.ndarray | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """One panel of the rows that every model has and the model's own.

    Args:
        rows: what `make_draw` drew: `input`, `reconstruction`, then the model's rows.
        prediction: the prediction it was drawn from.
        background: how background is told from objects: the config's `background` block.
        true: true segmentation `[b, h, w]` at the model's resolution, background 0.
    """
    own = {name: np.asarray(row) for name, row in rows.items()}
    first = {name: own.pop(name) for name in ("input", "reconstruction")}
    masks = np.asarray(prediction.masks)
    labels = {} if true is None else {"true segmentation": true}
    labels["masks"] = segment(masks, background=prediction.background)
    if prediction.background is None and background["mode"] != "none":
        labels["segmentation"] = segment(masks, **background)
    return visualize.panel({**first, **labels, **own})


def save(workdir: Path, name: str, picture: UInt8[np.ndarray, "h w 3"]) -> Path:
    """Writes a picture into the run directory and returns its path."""
    file = workdir / FOLDER / f"{name}.png"
    visualize.save_png(file, picture)
    return file
