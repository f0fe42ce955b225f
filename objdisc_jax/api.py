"""Trained models in Python: load one, segment images, paint slots.

    model = objdisc_jax.load("runs/demo")  # or a pretrained model's name
    result = model.segment("photo.jpg")
    result.overlay().save("found.png")

`objdisc_jax` has what is public here under its own name.
"""

import dataclasses
import io
import os
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict
from numpy.typing import ArrayLike
from PIL import Image

from objdisc_jax import models, pretrained, segmentation, visualize
from objdisc_jax.compiling import jit
from objdisc_jax.data import datasets, inputs
from objdisc_jax.data.images import ReadOptions, read_rgb, to_rgb
from objdisc_jax.errors import UserError
from objdisc_jax.models import base
from objdisc_jax.prediction.results import at_full_size
from objdisc_jax.prediction.segmenter import Segmented, Segmenter
from objdisc_jax.preprocessing import to_unit_range
from objdisc_jax.training import run_dir

ImageLike = Image.Image | np.ndarray | jax.Array | str | os.PathLike[str]
"""An image: of Pillow, an array (uint8 `[h, w, 3]` or `[h, w]`), or a file."""
MAX_SEED = 2**31 - 1


def load(
    source: str | os.PathLike[str],
    *,
    step: str | int = "latest",
    one_by_one: bool = False,
    keep_aspect: bool = False,
    **settings: Any,
) -> "Trained":
    """Loads a trained model.

    Args:
        source: a run directory, the name of a pretrained model (`list_pretrained`), the folder of
            one, or OWNER/NAME on the Hugging Face Hub.
        step: the checkpoint of a run: "latest", "best" or a step.
        one_by_one: images are computed one at a time. One takes a fraction of the time, many take
            longer, and a pixel between two slots may fall to the other one than with `predict`.
        keep_aspect: models on features of a vision transformer see every image in its own aspect
            ratio, in about as many patches as their resolution has, rather than stretched to it.
        **settings: of the model, in place of those it was trained with, where its parameters keep
            their shapes: `num_slots=5`, say, or `resolution=(448, 448)`.

    Raises:
        UserError: there is no such model, it has no such setting, or sees images of one shape.
    """
    folder = pretrained.locate(source)
    return Trained(
        folder,
        step=str(step),
        one_by_one=one_by_one,
        keep_aspect=keep_aspect,
        settings=settings,
    )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """What a model found in an image of H x W pixels, at its own resolution of h x w pixels.

    Attributes:
        image: the image, uint8 `[H, W, 3]`.
        segmentation: labels of its pixels, uint8 `[H, W]`: 0 is background, i + 1 is slot i.
        masks: soft, `[k, h, w]`, sum to 1 over k.
        slots: `[k, d]`.
        background: index of the mask that is the model's own background; None if it has none.
        recon: the model's reconstruction, in [0, 1], `[h, w, 3]`; None if it makes none.
        crop: what the model saw of the image: top, bottom, left, right.
        boxes: of the objects, in pixels of the image, `[n, 4]`: top, bottom, left, right; None if
            the model has none.
        count: how many objects the model counts; None if it doesn't count.
        extras: what else the model tells, by name.
    """

    image: UInt8[np.ndarray, "H W 3"]
    segmentation: UInt8[np.ndarray, "H W"]
    masks: Float[np.ndarray, "k h w"]
    slots: Float[np.ndarray, "k d"]
    background: int | None
    recon: Float[np.ndarray, "h w 3"] | None
    crop: tuple[int, int, int, int]
    boxes: Float[np.ndarray, "n 4"] | None
    count: int | None
    extras: Mapping[str, np.ndarray]

    def __repr__(self) -> str:
        height, width = self.segmentation.shape
        found = f"{len(self.found)} of {len(self.masks)} slots have pixels"
        return f"<Segmentation of {width}x{height} pixels: {found}>"

    def overlay(self, alpha: float = 0.45) -> Image.Image:
        """The image with every segment tinted and outlined; `alpha` is the tint's strength."""
        return Image.fromarray(visualize.overlay(self.image, self.segmentation, alpha))

    @property
    def found(self) -> list[int]:
        """The slots that have pixels."""
        return [int(label) - 1 for label in np.unique(self.segmentation) if label]

    def show(self) -> None:
        """Opens the overlay in the system's image viewer; in a notebook it shows itself."""
        self.overlay().show()

    def cutout(self, slot: int) -> Image.Image:
        """The pixels of a slot, all others transparent.

        Raises:
            UserError: there is no such slot.
        """
        if not 0 <= slot < len(self.masks):
            raise UserError(f"slot: got {slot}; allowed are 0 to {len(self.masks) - 1}.")
        inside = (self.segmentation == slot + 1)[..., None]
        opaque = np.concatenate([self.image, np.full_like(inside, 255, np.uint8)], axis=-1)
        return Image.fromarray(np.where(inside, opaque, np.uint8(0)))

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.overlay().save(content, "PNG")
        return content.getvalue()


class Trained:
    """A trained model, as `load` returns it."""

    config: ConfigDict
    """The experiment that it was trained with."""
    step: int
    """The training step of its parameters."""
    model: base.Model
    """The model itself, with its parameters, for what is not here; not for its loss, where other
    models have a share in that (`loss_only`)."""

    def __init__(
        self,
        folder: Path,
        *,
        step: str = "latest",
        one_by_one: bool = False,
        keep_aspect: bool = False,
        settings: Mapping[str, Any] = types.MappingProxyType({}),
    ):
        self._segmenter = Segmenter(
            folder,
            which=step,
            details=True,
            settings=settings,
            batch_size=1,
            one_by_one=one_by_one,
            keep_aspect=keep_aspect,
        )
        self._keep_aspect = keep_aspect
        run: run_dir.TrainedModel = self._segmenter.run
        self.config, self.step = run.config, run.step
        self.model = base.merge(run.graphdef, run.params)
        self._declaration = datasets.get(run.config.data.name).declare(run.config.data)
        self._cropping(None)  # refuses what the model cannot see
        self._render = jit(self._rendered)

    def __repr__(self) -> str:
        height, width = self.model.resolution
        return f"<{self.config.model.name} of {width}x{height} pixels, step {self.step:,}>"

    @overload
    def segment(
        self,
        images: ImageLike,
        *,
        crop: inputs.Crop | None = ...,
        seed: int = ...,
        background: str | None = ...,
    ) -> Segmentation: ...

    @overload
    def segment(
        self,
        images: Iterable[ImageLike],
        *,
        crop: inputs.Crop | None = ...,
        seed: int = ...,
        background: str | None = ...,
    ) -> list[Segmentation]: ...

    def segment(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        crop: inputs.Crop | None = None,
        seed: int = 0,
        background: str | None = None,
    ) -> Segmentation | list[Segmentation]:
        """Segments an image or several, each as if it were alone.

        Args:
            images: one, or a list of them.
            crop: what the model sees of each, see `objdisc_jax.data.inputs.Crop`; by default as
                `predict` has it.
            seed: of the noise, of slots before the first iteration say; 0 is `predict`'s.
            background: how background is told from objects, a mode of `objdisc_jax.segmentation`
                (`segmentation.MODES`: "none", "contrast" and others); by default as the model's
                experiment has it.

        Raises:
            UserError: an image cannot be read, or is too small for the crop; or there is no such
                mode, crop or seed.
        """
        how, seed = self._background(background), _checked_seed(seed)
        single = (
            isinstance(images, str | bytes)
            or hasattr(images, "__array__")
            or not isinstance(images, Iterable)
        )
        cropping, options = self._cropping(crop), self._declaration.read_options
        given: Any = [images] if single else images
        read = [_as_image(image, options) for image in given]
        seen = [cropping.see(image) for image in read]
        numbered = ((number, pixels) for number, (_, pixels) in enumerate(seen))
        found = dict(self._segmenter(numbered, draw=seed, background=how))
        results = [
            self._result(np.asarray(image), box, found[number], how)
            for number, (image, (box, _)) in enumerate(zip(read, seen, strict=True))
        ]
        return results[0] if single else results

    def attention(
        self, image: ImageLike, *, crop: inputs.Crop | None = None, seed: int = 0
    ) -> Float[np.ndarray, "t k h w"]:
        """How every iteration t of attention divides an image's features among the slots.

        Sums to 1 over k; of the features' own grid h x w. The arguments are those of `segment`.

        Raises:
            UserError: the model has no such iterations, or the image cannot be read.
        """
        seed = _checked_seed(seed)
        _, pixels = self._cropping(crop).see(_as_image(image, self._declaration.read_options))
        return self._segmenter.attention(pixels, draw=seed)

    def render(self, slots: ArrayLike, **options: ArrayLike) -> Float[np.ndarray, "b h w 3"]:
        """Paints slots `[b, k, d]`: some of an image's, or those of several mixed; in [0, 1].

        Args:
            slots: what is painted.
            **options: the model's own, such as GNM's `boxes` and `background`.

        Raises:
            UserError: the model paints no slots, or none of this shape.
        """
        slots = _as_slots(slots)
        try:
            images = self._render(slots, **options)
        except NotImplementedError:
            name = self.config.model.name
            raise UserError(f"The model {name!r} makes no image of its slots.") from None
        except (TypeError, ValueError) as error:
            raise UserError(
                f"slots: the model cannot paint an array of {list(slots.shape)}. Give it slots "
                "that `segment` found with this model."
            ) from error
        return np.asarray(images)

    def generate(
        self, slots: ArrayLike, *, seed: int = 0, **options: Any
    ) -> Float[np.ndarray, "b h w 3"]:
        """Makes images of slots `[b, k, d]` by sampling, in [0, 1], where the model can, as SLATE.

        Args:
            slots: as `render` takes them; it gives the likeliest tokens' images.
            seed: of the samples.
            **options: the model's own, such as `temperature` and `top_k`.

        Raises:
            UserError: the model samples no images of slots, or none of this shape.
        """
        model: Any = self.model
        if not hasattr(model, "generate"):
            raise UserError(f"The model {self.config.model.name!r} samples no images of its slots.")
        key = jax.random.key(_checked_seed(seed))
        tokens = model.generate(_as_slots(slots), key=key, **options)
        return np.asarray(model.decode_image(tokens))

    def sample(
        self, count: int = 1, *, seed: int = 0, **options: Any
    ) -> Float[np.ndarray, "b h w 3"]:
        """Makes new scenes, in [0, 1], where the model is one of scenes, as GNM is.

        Args:
            count: how many.
            seed: of the noise.
            **options: the model's own, such as `temperature`.

        Raises:
            UserError: the model makes no scenes.
        """
        sample = getattr(self.model, "sample", None)
        if sample is None:
            raise UserError(f"The model {self.config.model.name!r} makes no new scenes.")
        noise = self.model.noise(jax.random.key(_checked_seed(seed)), count)
        return np.asarray(sample(noise, step=jnp.int32(self.step), **options))

    def can_take(self, **settings: Any) -> bool:
        """Whether `load` takes these settings of the model: they exist, parameters keep shapes."""
        try:
            changed = models.changed_settings(self.config.model, settings)
        except UserError:
            return False
        other = nnx.eval_shape(lambda: type(self.model)(changed, rngs=nnx.Rngs(0)))
        shapes = [
            {path: leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(model))}
            for model in (self.model, other)
        ]
        return shapes[0] == shapes[1]

    def _cropping(self, crop: inputs.Crop | None) -> inputs.Cropping:
        return inputs.Cropping(crop, self._declaration, self.model.settings, self._keep_aspect)

    def _background(self, mode: str | None) -> Mapping[str, Any]:
        if mode is None:
            return self._segmenter.background
        if mode not in segmentation.MODES:
            allowed = ", ".join(segmentation.MODES)
            raise UserError(f"background: got {mode!r}; allowed are {allowed}. Choose one of them.")
        return {**self._segmenter.background, "mode": mode}

    def _rendered(self, slots: Array, **options: Array) -> Array:
        image = self.model.render(slots, step=jnp.int32(self.step), **options)
        return jnp.clip(to_unit_range(image, self.model.input_range), 0.0, 1.0)

    def _result(
        self,
        image: np.ndarray,
        crop: tuple[int, int, int, int],
        found: Segmented,
        background: Mapping[str, Any],
    ) -> Segmentation:
        details = dict(found.details)
        count = details.pop("count", None)
        size = (image.shape[0], image.shape[1])
        return Segmentation(
            image=image,
            segmentation=at_full_size(size, crop, found, background),
            masks=found.masks,
            slots=details.pop("slots"),
            background=found.own_background,
            recon=found.recon,
            crop=crop,
            boxes=self._boxes(details, crop),
            count=None if count is None else int(count),
            extras=details,
        )

    def _boxes(
        self, details: Mapping[str, np.ndarray], crop: tuple[int, int, int, int]
    ) -> Float[np.ndarray, "n 4"] | None:
        """The boxes of the objects that are there, in pixels of the image."""
        if "boxes" not in details:
            return None
        there = details["boxes"][details["z_pres"] > 0.5]
        top, bottom, left, right = crop
        height, width = self.model.resolution
        scale = np.array([(bottom - top) / height] * 2 + [(right - left) / width] * 2)
        return there * scale + np.array([top, top, left, left])


def _as_image(image: Any, options: ReadOptions) -> Image.Image:
    if isinstance(image, Image.Image):
        return to_rgb(image, options)
    if isinstance(image, str | os.PathLike):
        return read_rgb(Path(image).expanduser(), options)
    if not hasattr(image, "__array__"):
        raise UserError(
            f"images: got {type(image).__name__}; allowed are files, images of Pillow and arrays "
            "(uint8 [h, w, 3] or [h, w]), one of them or a list."
        )
    pixels = np.asarray(image)
    if (
        pixels.dtype != np.uint8
        or pixels.ndim < 2
        or pixels.shape[2:] not in ((), (3,))
        or not pixels.size
    ):
        raise UserError(
            f"images: got an array of {pixels.dtype} {list(pixels.shape)}; allowed is uint8 "
            "[h, w, 3] or [h, w], not empty. Scale it to 0 ... 255; several images are a list."
        )
    return Image.fromarray(pixels).convert("RGB")


def _as_slots(slots: ArrayLike) -> Array:
    found = jnp.asarray(slots)
    if found.ndim != 3:
        raise UserError(
            f"slots: got an array of {list(found.shape)}; allowed is [b, k, d]. Those of one image "
            "are result.slots[None]."
        )
    return found


def _checked_seed(seed: int) -> int:
    if not isinstance(seed, int | np.integer) or not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed: got {seed!r}; allowed is a whole number from 0 to {MAX_SEED}.")
    return int(seed)
