"""How well images are reconstructed."""

from collections.abc import Mapping
from types import MappingProxyType

from jaxtyping import Array

from objdisc_jax import metrics
from objdisc_jax.evaluation.evaluators import Evaluator
from objdisc_jax.models.base import Batch, Model, Prediction
from objdisc_jax.preprocessing import to_unit_range


class Reconstruction(Evaluator):
    """Squared errors, for models that reconstruct the image they are given."""

    metrics = MappingProxyType(
        {
            "mse": "squared error per element, images in [0, 1]",
            "mse_sum": "squared error summed over pixels and channels",
        }
    )

    def score(
        self, model: Model, batch: Batch, prediction: Prediction, fields: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Both metrics."""
        del fields
        if prediction.recon is None or "image" not in batch.fields:
            return {}
        images = (prediction.recon, batch.image)
        recon, image = (to_unit_range(x, model.input_range) for x in images)
        return {"mse": metrics.mse(recon, image), "mse_sum": metrics.mse_sum(recon, image)}
