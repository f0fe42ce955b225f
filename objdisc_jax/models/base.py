"""The contract between a model and everything that trains, evaluates or shows it."""

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import flax.struct
import jax
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree, Shaped

from objdisc_jax.settings import Settings

__all__ = ["Batch", "Loss", "Model", "Noise", "Params", "Prediction", "Settings", "Step"]

Params = dict[Any, Any]
Noise = PyTree[Array]
Step = Int[Array, ""]
Loss = tuple[Float[Array, "b"], dict[str, Float[Array, "b"]]]
"""One value per example: the loss, and its parts by name."""


@flax.struct.dataclass
class Batch:
    """What a model is given of some examples: the fields that it names.

    Attributes:
        fields: by name, `[b, ...]` each. "image" is at the model's resolution and in its input
            range; the others are as the data set declares them.
    """

    fields: dict[str, Array]

    @property
    def image(self) -> Float[Array, "b h w 3"]:
        """The field "image"."""
        return self.fields["image"]

    def __getitem__(self, name: str) -> Shaped[Array, "b *n"]:
        return self.fields[name]

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))


@flax.struct.dataclass
class Prediction:
    """What a model says about examples.

    Attributes:
        recon: `[b, h, w, 3]` in the model's input range; None if it reconstructs no images.
        masks: `[b, k, h, w]`, soft, sum to 1 over k; None if it has none.
        slots: `[b, k, d]`.
        background: index of the mask that is the background by construction, or None.
        count: how many objects the model says there are, `[b]`, or None if it doesn't count.
        contrast: how firmly each pixel is painted in a colour of its slot's own, `[b, h, w]`, by
            which `background.mode = "contrast"` goes (`nn.contrast`); None if slots don't paint.
        extras: anything else worth showing, by name.
    """

    recon: Float[Array, "b h w 3"] | None
    masks: Float[Array, "b k h w"] | None
    slots: Float[Array, "b k d"]
    background: int | None = flax.struct.field(pytree_node=False, default=None)
    count: Int[Array, "b"] | None = None
    contrast: Float[Array, "b h w"] | None = None
    extras: dict[str, Array] = flax.struct.field(default_factory=dict)


class Model(nnx.Module, abc.ABC):
    """An object-discovery model.

    It is built from its `Settings` and a source of initial parameters, and holds parameters only.
    Loss and prediction are deterministic functions of (parameters, batch, noise, step); every
    random draw of a forward pass is made by `noise`, except dropout, which takes a key.

    Attributes:
        input_range: what black and white are to the model; the trainer scales images to it.
        fields: what the model needs of the data set, "image" being one such field.
        loss_only: frozen parts that nothing but the loss uses, such as a teacher; prediction,
            export and stored fields do without them.
        settings: what it was built from.
    """

    input_range: ClassVar[tuple[float, float]]
    fields: tuple[str, ...] = ("image",)
    loss_only: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        del rngs  # of the subclass
        self.settings = settings

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width of the images that the model takes."""
        return self.settings.resolution

    @property
    def frozen(self) -> Mapping[str, str]:
        """Parts that are not trained, such as a pretrained encoder.

        By the attribute that holds each, the file or Hugging Face repository that its parameters
        come from. They have no gradient and no optimiser state, and checkpoints leave them out.
        """
        return {}

    def load_frozen(self, part: str, file: Path) -> dict[str, Any]:
        """The parameters of a frozen part: arrays by their paths in it, as in "layers.0.kernel".

        By default the file is a safetensors file that has them under those names.

        Args:
            part: its name.
            file: what `frozen` names, on this machine.
        """
        from safetensors.numpy import load_file

        del part
        return load_file(file)

    @property
    def encoding(self) -> Mapping[str, Any]:
        """The settings that `encode_frozen` depends on, JSON.

        Stored fields tell them, and a model with others refuses those fields.
        """
        return {}

    def encode_frozen(self, image: Float[Array, "b h w 3"]) -> dict[str, Array]:
        """Fields that frozen parts make of images, `[b, ...]` each.

        `objdisc features` stores them beside the data, for a model that names them
        in place of "image".
        """
        del image
        return {}

    @abc.abstractmethod
    def noise(self, key: Array, batch_size: int) -> Noise:
        """Every random draw of a forward pass, as a pytree of arrays `[b, ...]`."""

    def render(self, slots: Float[Array, "b k d"], *, step: Step) -> Float[Array, "b h w 3"]:
        """Images of slots, such as `predict` finds, of any number, in the model's range.

        Raises:
            NotImplementedError: the model makes no image of its slots.
        """
        raise NotImplementedError

    def attention(self, batch: Batch, noise: Noise, *, step: Step) -> Float[Array, "b t k h2 w2"]:
        """How every iteration t of attention divides the features' grid among the slots.

        Raises:
            NotImplementedError: the model has no such iterations.
        """
        raise NotImplementedError

    def expand_noise(self, noise: Noise) -> Noise:
        """The same noise written out, where `noise` holds seeds in place of large draws.

        For tests and other frameworks; loss and prediction take either.
        """
        return noise

    @abc.abstractmethod
    def loss(
        self, batch: Batch, noise: Noise, *, step: Step, dropout_key: Array | None = None
    ) -> Loss:
        """Loss and its parts, one value per example so that padding can be masked out.

        Args:
            batch: the fields that the model names.
            noise: what `noise` drew.
            step: the training step, for schedules.
            dropout_key: key of the dropout masks; None switches dropout off.
        """

    @abc.abstractmethod
    def predict(self, batch: Batch, noise: Noise, *, step: Step) -> Prediction:
        """Reconstruction, masks and slots."""

    def visualize(self, batch: Batch, noise: Noise, *, step: Step) -> dict[str, Array]:
        """Rows of images that only this model has, for a few examples; may be slow.

        Every row is `[b, h, w, 3]` in [0, 1], `[b, k, h, w, 3]` likewise (k images per example),
        or an integer label map `[b, h, w]`. Input, reconstruction and segmentations are drawn for
        every model from its `Prediction` and don't belong here.
        """
        del batch, noise, step
        return {}

    def expensive_metrics(
        self, batch: Batch, prediction: Prediction
    ) -> dict[str, Float[Array, "b"]]:
        """Metrics that only this model has and that take long, one value per example.

        Final evaluations compute them, validations if `eval.expensive_metrics` says so.

        Args:
            batch: the fields that the model names.
            prediction: what `predict` said of it.
        """
        del batch, prediction
        return {}


def split(model: Model) -> tuple[nnx.GraphDef, Params]:
    """Takes a model apart into its static description and a plain pytree of parameters."""
    graphdef, state = nnx.split(model)
    return graphdef, nnx.to_pure_dict(state)


def merge(graphdef: nnx.GraphDef, params: Params) -> Model:
    """Puts a model together from what `split` returned; use it inside a jitted function."""
    return nnx.merge(graphdef, nnx.State(params))


def partition(params: Params, model: Model) -> tuple[Params, Params]:
    """A model's parameters apart: those that are trained, and the frozen parts."""
    frozen = {part: params[part] for part in model.frozen}
    return {part: tree for part, tree in params.items() if part not in frozen}, frozen


def per_example_noise(model: Model, key: Array, index: Int[Array, "b"]) -> Noise:
    """Noise in which every example's draw depends on its own record number alone.

    Evaluation uses it, so that no score depends on how examples are batched.
    """

    def one(i: Array) -> Noise:
        return jax.tree.map(lambda x: x[0], model.noise(jax.random.fold_in(key, i), 1))

    return jax.vmap(one)(index)
