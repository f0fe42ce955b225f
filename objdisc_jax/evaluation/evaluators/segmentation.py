"""How well masks agree with the true segmentation."""

from collections.abc import Mapping
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from objdisc_jax import metrics, segmentation
from objdisc_jax.evaluation.evaluators import Evaluator
from objdisc_jax.models.base import Batch, Model, Prediction
from objdisc_jax.preprocessing import resize_labels


class Segmentation(Evaluator):
    """FG-ARI of the masks; ARI, mIoU and mBO of the segmentation that is made of them.

    In the segmentation, pixels of low confidence or contrast are a segment of their own if
    `config.background` says so. Images without a true object have no FG-ARI, mIoU and mBO.
    """

    fields = ("segmentation",)
    best = "max fg_ari"
    metrics = MappingProxyType(
        {
            "fg_ari": "adjusted Rand index over the pixels of true objects",
            "ari": "adjusted Rand index over all pixels",
            "miou": "mean IoU of true objects, matched one to one",
            "miou_with_background": "the same with the background as an object",
            "mbo": "mean over true objects of the best overlap",
        }
    )

    def score(
        self, model: Model, batch: Batch, prediction: Prediction, fields: Mapping[str, Array]
    ) -> dict[str, Array]:
        """FG-ARI, ARI, and the table of true and found labels."""
        if prediction.masks is None:
            return {}
        true = resize_labels(fields["segmentation"], model.resolution)
        num_masks = prediction.masks.shape[1]
        sizes = {"num_true": self.declaration.num_entities, "num_predicted": num_masks + 1}
        labels = jnp.argmax(prediction.masks, axis=1)
        by_slot = metrics.contingency_table(true, labels, **sizes)
        if prediction.background is None:
            nobodys = segmentation.unclaimed(
                prediction.masks, prediction.contrast, **self.config.background
            )
            labels = jnp.where(nobodys, num_masks, labels)
        table = metrics.contingency_table(true, labels, **sizes)
        background = self.declaration.background_labels
        return {
            "fg_ari": metrics.fg_adjusted_rand_index(by_slot, background),
            "ari": metrics.adjusted_rand_index(table),
            "table": table,
        }

    def finish(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds what is matched on the host."""
        table = values.pop("table")
        background = self.declaration.background_labels
        return values | {
            "miou": metrics.mean_iou(table, background),
            "miou_with_background": metrics.mean_iou(table, ()),
            "mbo": metrics.mean_best_overlap(table, background),
        }
