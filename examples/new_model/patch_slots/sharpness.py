"""How decided masks are."""

from collections.abc import Mapping
from types import MappingProxyType

import jax.numpy as jnp
from jaxtyping import Array

from objdisc_jax.evaluation.evaluators import Evaluator
from objdisc_jax.models.base import Batch, Model, Prediction


class Sharpness(Evaluator):
    """The largest mask of a pixel, mean over pixels."""

    metrics = MappingProxyType({"sharpness": "mean of the largest mask"})

    def score(
        self, model: Model, batch: Batch, prediction: Prediction, fields: Mapping[str, Array]
    ) -> dict[str, Array]:
        """The metric of every example, within a jitted function."""
        del model, batch, fields
        if prediction.masks is None:
            return {}
        return {"sharpness": jnp.mean(jnp.max(prediction.masks, axis=1), axis=(1, 2))}
