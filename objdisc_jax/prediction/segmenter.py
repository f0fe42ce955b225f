"""A trained run that segments images, in batches of any size with the same results."""

import functools
import types
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from objdisc_jax import config as configs
from objdisc_jax import models, segmentation, sharding
from objdisc_jax.compiling import jit
from objdisc_jax.errors import UserError
from objdisc_jax.evaluation import visualization
from objdisc_jax.evaluation.chunks import CHUNK, in_chunks, whole_chunks
from objdisc_jax.evaluation.runner import evaluation_noise
from objdisc_jax.models import base
from objdisc_jax.preprocessing import prepare_batch, prepare_images, to_unit_range
from objdisc_jax.training import run_dir

Key = TypeVar("Key")
_FEW = 4
"""In place of `CHUNK` for models on features of a vision transformer: each image is work enough,
and those that fill up a chunk cost as much."""


class Segmented(NamedTuple):
    """What a model says of an image, at its resolution."""

    labels: UInt8[np.ndarray, "h w"]  # 0 is background, i + 1 is slot i
    masks: Float[np.ndarray, "k h w"]
    details: dict[str, np.ndarray]  # slots, count, and the model's extras, if asked for
    rows: dict[str, np.ndarray]  # images of the panel, [1, ...] each, if asked for
    own_background: int | None  # index of the mask that is the model's own background
    is_coarse: bool = False  # enlarge masks smoothly, see `Settings.has_coarse_masks`
    recon: Float[np.ndarray, "h w 3"] | None = None  # in [0, 1], if asked for and there is one


@flax.struct.dataclass
class _Found:
    """What the devices compute of a batch: the fields of `Segmented`, without labels."""

    masks: Float[Array, "b k h w"]
    details: dict[str, Array]
    rows: dict[str, Array]
    recon: Array | None
    contrast: Float[Array, "b h w"] | None
    own_background: int | None = flax.struct.field(pytree_node=False)


class Segmenter:
    """Segments images with the model of a run.

    An image's result depends on its pixels alone: one noise serves all, and devices compute in
    chunks of one size.

    Args:
        workdir: the run directory.
        which: the checkpoint: "latest", "best" or a step.
        background: how background is told from objects; what it leaves open is as the run's config
            has it.
        batch_size: images at a time, rounded up to whole chunks on every device.
        one_by_one: images are chunks of their own on a single device: one takes a fraction of the
            time, all together more, and the last bits are others.
        details: whether to compute slots, count, reconstruction and extras.
        panel: whether to compute the rows of the panel.
        settings: of the model, in place of the run's: the number of slots, say. Its parameters keep
            their shapes.
        keep_aspect: images may have any resolution that `Settings.fitted` returns.

    Attributes:
        run: the trained model.
        background: how background is told from objects.

    Raises:
        UserError: there is no such run or checkpoint, or the model takes more than images.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        which: str = "latest",
        background: Mapping[str, Any] | None = None,
        batch_size: int = 16,
        one_by_one: bool = False,
        details: bool = False,
        panel: bool = False,
        settings: Mapping[str, Any] = types.MappingProxyType({}),
        keep_aspect: bool = False,
    ):
        devices = jax.local_devices()
        self._mesh = sharding.data_mesh(devices[:1] if one_by_one else devices)
        config = None
        if settings:
            config = configs.load(workdir)
            config.model.update(vars(models.changed_settings(config.model, settings)))
        place = sharding.replicated(self._mesh)
        run = run_dir.load_trained(workdir, place, which=which, config=config)
        further = [name for name in run.model.fields if name != "image"]
        self._made = self._makes(run) & set(further) if further else set()
        if further := [name for name in further if name not in self._made]:
            raise UserError(
                f"The model {run.config.model.name!r} needs {', '.join(further)} beside "
                "images, so it can only be evaluated on its data: "
                "objdisc eval --config CONFIG --workdir RUN"
            )
        self.run, self._keep_aspect = run, keep_aspect
        self.background = {**run.config.background.to_dict(), **(background or {})}
        chunk = 1 if one_by_one else _FEW if run.model.settings.has_coarse_masks else CHUNK
        self._batch_size = whole_chunks(batch_size, self._mesh, chunk)
        self._least = whole_chunks(1, self._mesh, chunk)
        predict = functools.partial(self._predict, details=details, panel=panel)
        self._step = in_chunks(predict, self._mesh, chunk)
        self._attention = jit(self._attend)

    @staticmethod
    def _makes(run: run_dir.TrainedModel) -> Set[str]:
        """The fields that the run's frozen parts make of images."""
        image = jax.ShapeDtypeStruct((1, *run.model.resolution, 3), jnp.float32)
        return jax.eval_shape(
            lambda params, image: base.merge(run.graphdef, params).encode_frozen(image),
            run.params,
            image,
        ).keys()

    def __call__(
        self,
        images: Iterable[tuple[Key, UInt8[np.ndarray, "h w 3"]]],
        *,
        draw: int = 0,
        background: Mapping[str, Any] | None = None,
    ) -> Iterator[tuple[Key, Segmented]]:
        """Yields the results of images as they come, each with the key that the image had.

        A batch is read and started before the results of the one before are waited for. Images of
        one size keep their order; a program is compiled for each size, so there should be few.

        Args:
            images: with their keys.
            draw: number of the noise that all of them get.
            background: how background is told from objects, in place of `self.background`.

        Raises:
            UserError: the model has no masks.
        """
        background = self.background if background is None else background
        started = None
        for keys, pixels in self._batches(images):
            before, started = started, (keys, self._start(pixels, draw))
            if before is not None:
                yield from self._finish(*before, background)
        if started is not None:
            yield from self._finish(*started, background)

    def _batches(self, images: Iterable[tuple[Key, Any]]) -> Iterator[tuple[list[Key], Any]]:
        """Batches of images of one size, full ones, and of what is left the smallest there are."""
        waiting: dict[tuple[int, ...], tuple[list[Key], list[np.ndarray]]] = {}
        for key, image in images:
            keys, batch = waiting.setdefault(image.shape, ([], []))
            keys.append(key)
            batch.append(image)
            if len(batch) == self._batch_size:
                del waiting[image.shape]
                yield keys, batch
        for keys, batch in waiting.values():
            for i in range(0, len(batch), self._least):
                yield keys[i : i + self._least], batch[i : i + self._least]

    def attention(
        self, image: UInt8[np.ndarray, "h w 3"], *, draw: int = 0
    ) -> Float[np.ndarray, "t k h2 w2"]:
        """How every iteration of the model divides an image among the slots.

        Raises:
            UserError: the model has no attention.
        """
        fields = {"image": jnp.asarray(image[None]), "index": jnp.array([draw], jnp.int32)}
        try:
            attn = self._attention(self.run.params, fields, jnp.int32(self.run.step))
        except NotImplementedError:
            name = self.run.config.model.name
            raise UserError(f"The model {name!r} has no iterations of attention.") from None
        return np.asarray(attn[0])

    def _start(self, images: list[np.ndarray], draw: int) -> _Found:
        size = self._least if len(images) <= self._least else self._batch_size
        batch = {
            "image": np.stack(images + [images[0]] * (size - len(images))),
            "index": np.full(size, draw, np.int32),  # so that all have the same noise
        }
        step = jnp.int32(self.run.step)
        return self._step(self.run.params, sharding.put_batch(batch, self._mesh), step)

    def _finish(
        self, keys: list[Key], found: _Found, background: Mapping[str, Any]
    ) -> Iterator[tuple[Key, Segmented]]:
        found = jax.device_get(found)
        found = jax.tree.map(lambda x: x[: len(keys)], found)
        own = found.own_background
        labels = segmentation.segment(
            found.masks, contrast=found.contrast, background=own, **background
        )
        for i, key in enumerate(keys):
            yield (
                key,
                Segmented(
                    labels[i],
                    np.asarray(found.masks[i]),
                    {name: np.asarray(value[i]) for name, value in found.details.items()},
                    {name: np.asarray(row[i : i + 1]) for name, row in found.rows.items()},
                    own,
                    self.run.model.settings.has_coarse_masks,
                    None if found.recon is None else np.asarray(found.recon[i]),
                ),
            )

    def _with_made(self, model: base.Model, fields: dict[str, Any]) -> dict[str, Any]:
        """Fields with those that the run read from a file, made of the images."""
        if not self._made:
            return fields
        image = prepare_images(fields["image"], model.resolution, model.input_range)
        made = model.encode_frozen(image)
        return {**fields, **{name: made[name] for name in self._made}}

    def _model(self, params: base.Params, image: Array) -> base.Model:
        """The model, for images of this size if it takes several."""
        settings, size = self.run.model.settings, (image.shape[1], image.shape[2])
        if not self._keep_aspect or size == settings.resolution:
            return base.merge(self.run.graphdef, params)
        resized = settings.resized(size)
        shapes = nnx.eval_shape(lambda: type(self.run.model)(resized, rngs=nnx.Rngs(0)))
        return base.merge(base.split(shapes)[0], params)

    def _attend(self, params: base.Params, fields: Any, step: base.Step) -> Array:
        model = self._model(params, fields["image"])
        noise = evaluation_noise(model, self.run.config.seed, fields["index"])
        batch = prepare_batch(self._with_made(model, fields), model)
        return model.attention(batch, noise, step=step)

    def _predict(
        self, params: base.Params, fields: Any, step: base.Step, *, details: bool, panel: bool
    ) -> _Found:
        model, seed = self._model(params, fields["image"]), self.run.config.seed
        fields = self._with_made(model, fields)
        if panel:
            rows, prediction = visualization.draw(model, fields, seed, step)
        else:
            noise = evaluation_noise(model, seed, fields["index"])
            rows, prediction = {}, model.predict(prepare_batch(fields, model), noise, step=step)
        if prediction.masks is None:
            raise UserError(
                f"The model {self.run.config.model.name!r} has no masks, and so segments no "
                "images. Name a run of another model."
            )
        kept, recon = {}, None
        if details:
            counted = {} if prediction.count is None else {"count": prediction.count}
            kept = {**prediction.extras, **counted, "slots": prediction.slots}
            if prediction.recon is not None:
                recon = jnp.clip(to_unit_range(prediction.recon, model.input_range), 0.0, 1.0)
        return _Found(
            prediction.masks, kept, rows, recon, prediction.contrast, prediction.background
        )
