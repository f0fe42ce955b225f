"""How well masks agree with objects in photographs, as OCLF, SPOT and VideoSAUR count."""

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from objdisc_jax import metrics
from objdisc_jax.data.instances import SCORED
from objdisc_jax.evaluation.evaluators import Evaluator
from objdisc_jax.models.base import Batch, Model, Prediction


class Instances(Evaluator):
    """mBO of instances and of classes, matched mIoU, CorLoc, recovery and FG-ARI of the masks.

    Pixels of several objects, and void ones, are taken out of truth and prediction. Background is
    no object. Images without an object have no score: OCLF and SPOT give them an FG-ARI of 1.
    Masks are enlarged to the size of the true ones, bilinearly, before the largest is taken.
    """

    fields = ("segmentation",)
    optional = ("ignore", "classes")
    best = "max mbo_i"
    metrics = MappingProxyType(
        {
            "mbo_i": "mean over objects of the best overlap with a mask",
            "mbo_c": "the same with all objects of a class as one, where the data has classes",
            "miou_i": "mean IoU of objects and masks, matched one to one",
            "corloc": "share of images with an object that some mask overlaps by more than half",
            "recovery": "share of objects that some mask overlaps by more than half",
            "fg_ari_i": "adjusted Rand index over the pixels of objects",
        }
    )

    def score(
        self, model: Model, batch: Batch, prediction: Prediction, fields: Mapping[str, Array]
    ) -> dict[str, Array]:
        """FG-ARI, the table of true and found labels, and the classes of the labels."""
        if prediction.masks is None:
            return {}
        num_true = self.declaration.num_entities
        true = fields["segmentation"].astype(jnp.int32)
        if "ignore" in fields:
            true = jnp.where(fields["ignore"] == SCORED, true, num_true)
        table = table_at_true_size(prediction.masks, true, num_true + 1)[:, :num_true]
        classes = {"classes": fields["classes"]} if "classes" in fields else {}
        return {"fg_ari_i": metrics.fg_adjusted_rand_index(table), "table": table, **classes}

    def finish(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds what is matched on the host."""
        table, classes = values.pop("table"), values.pop("classes", None)
        if classes is not None:
            by_class = np.zeros((len(table), int(classes.max(initial=0)) + 1, table.shape[2]), int)
            np.add.at(by_class, (np.arange(len(table))[:, None], classes), table)
            values["mbo_c"] = metrics.mean_best_overlap(by_class)
        corloc, recovery = metrics.localization(table)
        return values | {
            "mbo_i": metrics.mean_best_overlap(table),
            "miou_i": metrics.mean_iou(table),
            "corloc": corloc,
            "recovery": recovery,
        }


def table_at_true_size(masks: Array, true: Array, num_true: int) -> Int[Array, "b t k"]:
    """The contingency table of true labels and of masks that are enlarged to their size.

    Args:
        masks: soft masks `[b, k, h, w]`.
        true: labels `[b, H, W]`.
        num_true: how many there are.
    """

    def of_image(pair: tuple[Array, Array]) -> Array:  # one at a time: there are many labels
        masks, true = pair
        enlarged = jax.image.resize(masks, (len(masks), *true.shape), "bilinear", antialias=False)
        labels = jnp.argmax(enlarged, axis=0)
        sizes = {"num_true": num_true, "num_predicted": len(masks)}
        return metrics.contingency_table(true[None], labels[None], **sizes)[0]

    return jax.lax.map(of_image, (masks, true))
