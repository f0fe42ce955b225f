"""The evaluators, found by name: a file here, or a module from elsewhere by its dotted path.

A module has one subclass of `Evaluator`. A config's `evals` names those that are used.
"""

import abc
import pkgutil
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Array, Float, Shaped
from ml_collections import ConfigDict

from objdisc_jax import registry
from objdisc_jax.data.declaration import DatasetDeclaration
from objdisc_jax.errors import ConfigError
from objdisc_jax.models.base import Batch, Model, Prediction


class Evaluator(abc.ABC):
    """Scores predictions, one value per example.

    Args:
        config: the experiment.
        declaration: the data set.

    Attributes:
        fields: what it needs of the data set beside the fields that the model names.
        optional: what it uses of the data set where it is there.
        metrics: the names of its metrics, and what they mean.
        best: what makes a checkpoint the best where the config doesn't say, "max fg_ari" say; None:
            nothing of these metrics.
    """

    fields: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()
    metrics: ClassVar[Mapping[str, str]]
    best: ClassVar[str | None] = None

    def __init__(self, config: ConfigDict, declaration: DatasetDeclaration):
        self.config, self.declaration = config, declaration

    @abc.abstractmethod
    def score(
        self, model: Model, batch: Batch, prediction: Prediction, fields: Mapping[str, Array]
    ) -> dict[str, Shaped[Array, "b *n"]]:
        """Values of every example, computed on the device within a jitted function.

        Args:
            model: the model.
            batch: what it was given.
            prediction: what it said.
            fields: the data set's own, as they are stored.

        Returns:
            What `finish` makes metrics of; empty where the prediction has nothing to score.
        """

    def finish(self, values: dict[str, np.ndarray]) -> dict[str, Float[np.ndarray, "n"]]:
        """The metrics, on the host, of all examples' values; NaN where an example has none."""
        return values


def names() -> list[str]:
    """Names of the evaluators that come along."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def create(config: ConfigDict, declaration: DatasetDeclaration) -> list[Evaluator]:
    """The evaluators that a config names.

    Raises:
        ConfigError: there is no such evaluator, or two have a metric of the same name.
    """
    found: list[Evaluator] = []
    for name in config.evals:
        module = registry.module(
            name, package=__name__, what="evaluator", key="evals", known=names()
        )
        evaluator: Any = registry.class_in(module, Evaluator)
        if evaluator is None:
            raise ConfigError(f"evals: {module.__name__} has no subclass of {__name__}.Evaluator.")
        for other in found:
            if common := other.metrics.keys() & evaluator.metrics.keys():
                raise ConfigError(
                    f"evals: {name!r} and {type(other).__module__} both have the metric "
                    f"{', '.join(sorted(common))}. Leave one of them out."
                )
        found.append(evaluator(config, declaration))
    return found
