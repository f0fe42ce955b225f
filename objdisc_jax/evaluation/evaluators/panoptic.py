"""How well masks agree with a division of the whole image, as VQ-VFM-OCL and MetaSlot count."""

from collections.abc import Mapping
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from objdisc_jax import metrics
from objdisc_jax.data.instances import VOID
from objdisc_jax.evaluation.evaluators import Evaluator
from objdisc_jax.evaluation.evaluators.instances import table_at_true_size
from objdisc_jax.models.base import Batch, Model, Prediction


class Panoptic(Evaluator):
    """ARI, FG-ARI, mBO and matched mIoU of the masks, with the background as one of the objects.

    A pixel of several objects is the first one's. Void pixels are in no object, but count where
    they lie in a mask. Masks are enlarged to the size of the true ones, bilinearly, before the
    largest is taken. These scores and those of `instances` never go into one table.
    """

    fields = ("segmentation",)
    optional = ("ignore",)
    best = "max panoptic_mbo"
    metrics = MappingProxyType(
        {
            "panoptic_ari": "adjusted Rand index over all pixels but void ones",
            "panoptic_fg_ari": "adjusted Rand index over the pixels of objects",
            "panoptic_mbo": "mean over background and objects of the best overlap with a mask",
            "panoptic_miou": "mean IoU of background, objects and masks, matched one to one",
        }
    )

    def score(
        self, model: Model, batch: Batch, prediction: Prediction, fields: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Both ARIs, and the table of true and found labels, void as the last."""
        if prediction.masks is None:
            return {}
        void = self.declaration.num_entities
        true = fields["segmentation"].astype(jnp.int32)
        if "ignore" in fields:
            true = jnp.where(fields["ignore"] == VOID, void, true)
        table = table_at_true_size(prediction.masks, true, void + 1)
        return {
            "panoptic_ari": metrics.adjusted_rand_index(table[:, :void]),
            "panoptic_fg_ari": metrics.fg_adjusted_rand_index(table, (0, void)),
            "table": table,
        }

    def finish(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds what is matched on the host."""
        table = values.pop("table")
        void = (table.shape[1] - 1,)
        return values | {
            "panoptic_mbo": metrics.mean_best_overlap(table, void),
            "panoptic_miou": metrics.mean_iou(table, void),
        }
