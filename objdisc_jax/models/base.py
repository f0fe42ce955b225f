"""The contract between a model and everything that trains, evaluates or shows it."""

import abc
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import flax.struct
import jax
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

Params = dict[str, Any]
Noise = PyTree[Array]


@flax.struct.dataclass
class Prediction:
    """What a model says about images.

    Attributes:
        recon: `[b, h, w, 3]` in the model's input range.
        masks: `[b, k, h, w]`, soft, sum to 1 over k.
        slots: `[b, k, d]`.
        background: index of the mask that is the background by construction, or None.
        count: how many objects the model says there are, `[b]`, or None if it doesn't count.
        extras: anything else worth showing, by name.
    """

    recon: Float[Array, "b h w 3"]
    masks: Float[Array, "b k h w"]
    slots: Float[Array, "b k d"]
    background: int | None = flax.struct.field(pytree_node=False, default=None)
    count: Int[Array, "b"] | None = None
    extras: dict[str, Array] = flax.struct.field(default_factory=dict)


class Model(nnx.Module, abc.ABC):
    """An object-discovery model.

    A model is built from keyword arguments that equal its block of the config (less `name`), plus
    `rngs`. It holds parameters only. Loss and prediction are deterministic functions of
    (parameters, image, noise, step); every random draw of a forward pass is made by `noise`,
    except dropout, which takes a key.

    Attributes:
        input_range: what black and white are to the model; the trainer scales images to it.
        resolution: height and width of the images that the model takes.
        optimizer_groups: groups of parameters that may have learning rates of their own, in
            `config.optimizer.groups`: by name, what the paths of their parameters begin with.
    """

    input_range: ClassVar[tuple[float, float]]
    optimizer_groups: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    resolution: tuple[int, int]

    @abc.abstractmethod
    def noise(self, key: Array, batch_size: int) -> Noise:
        """Every random draw of a forward pass, as a pytree of arrays `[b, ...]`."""

    def expand_noise(self, noise: Noise) -> Noise:
        """The same noise written out, where `noise` holds seeds in place of large draws.

        For tests and other frameworks; loss and prediction take either.
        """
        return noise

    @abc.abstractmethod
    def loss(
        self,
        image: Float[Array, "b h w 3"],
        noise: Noise,
        *,
        step: Int[Array, ""],
        dropout_key: Array | None = None,
    ) -> tuple[Float[Array, "b"], dict[str, Float[Array, "b"]]]:
        """Loss and its parts, one value an example so that padding can be masked out.

        Args:
            image: in `input_range`.
            noise: what `noise` drew.
            step: the training step, for schedules.
            dropout_key: key of the dropout masks; None switches dropout off.
        """

    @abc.abstractmethod
    def predict(
        self, image: Float[Array, "b h w 3"], noise: Noise, *, step: Int[Array, ""]
    ) -> Prediction:
        """Reconstruction, masks and slots."""

    @abc.abstractmethod
    def panels(
        self, image: Float[Array, "b h w 3"], noise: Noise, *, step: Int[Array, ""]
    ) -> dict[str, Array]:
        """Picture rows that only this model has, for a few images; may be slow.

        Every row is `[b, h, w, 3]` in [0, 1], `[b, k, h, w, 3]` likewise (k pictures an image),
        or an integer label map `[b, h, w]`. Input, reconstruction and segmentations are drawn for
        every model from its `Prediction` and don't belong here.
        """

    def expensive_metrics(
        self, image: Float[Array, "b h w 3"], prediction: Prediction
    ) -> dict[str, Float[Array, "b"]]:
        """Scores that only this model has and that take long, one value an example.

        Final evaluations compute them, validations during training if `eval.expensive_metrics` says so.

        Args:
            image: in `input_range`.
            prediction: what `predict` said of it.
        """
        del image, prediction
        return {}


def split(model: Model) -> tuple[nnx.GraphDef, Params]:
    """Takes a model apart into its static description and a plain pytree of parameters."""
    graphdef, state = nnx.split(model)
    return graphdef, nnx.to_pure_dict(state)


def merge(graphdef: nnx.GraphDef, params: Params) -> Model:
    """Puts a model together from what `split` returned; use it inside a jitted function."""
    return nnx.merge(graphdef, nnx.State(params))


def per_example_noise(model: Model, key: Array, index: Int[Array, "b"]) -> Noise:
    """Noise in which every example's draw depends on its own record number alone.

    Evaluation uses it, so that no score depends on how examples are batched.
    """

    def one(i: Array) -> Noise:
        return jax.tree.map(lambda x: x[0], model.noise(jax.random.fold_in(key, i), 1))

    return jax.vmap(one)(index)
