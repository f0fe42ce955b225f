"""How well a model counts objects, against those that are visible."""

from collections.abc import Mapping
from types import MappingProxyType

import jax.numpy as jnp
from jaxtyping import Array

from objdisc_jax import metrics
from objdisc_jax.evaluation.evaluators import Evaluator
from objdisc_jax.models.base import Batch, Model, Prediction


class Counting(Evaluator):
    """Accuracy and error of the count, for models that count."""

    fields = ("segmentation",)
    metrics = MappingProxyType(
        {
            "count_accuracy": "images with as many objects as the model says",
            "count_error": "objects too many or too few, mean over images",
        }
    )

    def score(
        self, model: Model, batch: Batch, prediction: Prediction, fields: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Both metrics."""
        del model, batch
        if prediction.count is None:
            return {}
        visible = metrics.num_objects(
            fields["segmentation"],
            self.declaration.num_entities,
            self.declaration.background_labels,
        )
        return {
            "count_accuracy": (prediction.count == visible).astype(jnp.float32),
            "count_error": jnp.abs(prediction.count - visible).astype(jnp.float32),
        }
