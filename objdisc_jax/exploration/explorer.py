"""A trained model that many visitors ask: what it can do, and results for what they send."""

import inspect
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float
from PIL import Image

from objdisc_jax import api, pretrained
from objdisc_jax.data import dataset, datasets
from objdisc_jax.errors import UserError
from objdisc_jax.exploration import pictures
from objdisc_jax.models.base import Model

SAMPLES = Path(__file__).parent / "samples"
"""Images that come along."""
MAX_SLOTS = 24
"""As many slots as may be asked for, of a model that was trained with no more."""
_MAX_MODELS = 4
"""Models with other numbers of slots that are kept at a time, the default's not counted."""
NUM_SAMPLES = 6
"""Images of the data that the model was trained on, to choose from."""
NUM_LATENTS = 6
"""Sliders of a slot's latents."""


class Abilities(NamedTuple):
    """What the page offers."""

    num_slots: int | None  # the number that it was trained with, where others are possible
    background: bool  # whether background modes matter: the model has no background of its own
    renders: bool  # makes images of slots
    samples: bool  # makes new scenes
    attends: bool  # has iterations of attention
    boxes: bool
    moves: bool  # draws objects in other boxes than those they were found in
    latents: bool  # slots are means of posteriors, worth a walk along their dimensions


class Options(NamedTuple):
    """What a visitor may choose."""

    num_slots: int | None = None  # None: as trained
    seed: int = 0
    background: str | None = None  # None: as the experiment has it


AS_TRAINED = Options()


class Explorer:
    """A trained model, and its variants with other numbers of slots, for any number of threads.

    It segments an image at once, which compiles what the first visitor needs.

    Args:
        source: as `objdisc_jax.load` takes it.
        max_pixels: of an image that is taken.

    Attributes:
        abilities: what the model can do.
        name: of the model.
        max_pixels: of an image that is taken.
        max_slots: as many as may be asked for.
        resolution: of the model, height and width.

    Raises:
        UserError: there is no such model, or it segments no images.
    """

    def __init__(self, source: Path | str, *, max_pixels: int):
        self._source, self.max_pixels = source, max_pixels
        self._trained = api.load(source, one_by_one=True)
        self._variants: OrderedDict[int, api.Trained] = OrderedDict()
        self._lock = threading.Lock()
        self.name = f"{Path(source).name}, {self._trained.config.model.name}"
        self.resolution = self._trained.model.resolution
        self._takes = inspect.signature(type(self._trained.model).render).parameters
        blank = self._trained.segment(Image.new("RGB", (self.resolution[1], self.resolution[0])))
        self.abilities = self._abilities(blank)
        self.max_slots = max(MAX_SLOTS, self.abilities.num_slots or 0)

    def _abilities(self, result: api.Segmentation) -> Abilities:
        model = self._trained.model
        num_slots = getattr(model.settings, "num_slots", None)
        free = num_slots is not None and self._trained.can_take(num_slots=num_slots + 1)
        kind = type(model)
        return Abilities(
            num_slots=num_slots if free else None,
            background=result.background is None,
            renders=kind.render is not Model.render,
            samples=hasattr(model, "sample"),
            attends=kind.attention is not Model.attention,
            boxes=result.boxes is not None,
            moves="boxes" in self._takes,
            latents=kind.render is not Model.render and "z_std" in result.extras,
        )

    def segment(self, file: Path, options: Options = AS_TRAINED) -> api.Segmentation:
        """Segments an image file, scaled down to `pictures.MAX_SIDE`.

        Raises:
            UserError: it cannot be read, or an option is not possible.
        """
        image = pictures.read_image(file, self.max_pixels)
        trained = self._variant(options.num_slots)
        return trained.segment(image, seed=options.seed, background=options.background)

    def render(
        self,
        slots: Float[np.ndarray, "k d"],
        result: api.Segmentation,
        boxes: Float[np.ndarray, "k 4"] | None = None,
    ) -> Float[np.ndarray, "h w 3"]:
        """What the model paints of slots, in [0, 1].

        Args:
            slots: of any results.
            result: the one whose background is painted, where the model tells backgrounds apart.
            boxes: where the slots are painted, for a model that `moves` objects: top, bottom, left
                and right in pixels of its own; None is where they were found.

        Raises:
            UserError: there is no slot, or the model paints none.
        """
        options = {} if boxes is None else {"boxes": boxes[None]}
        background = result.extras["background"] if "background" in self._takes else None
        if background is not None and not len(slots):
            return background
        if not len(slots):
            raise UserError("There is no slot left to paint. Switch one on.")
        if background is not None:
            options["background"] = background[None]
        return self._trained.render(slots[None], **options)[0]

    def attention(
        self, image: np.ndarray, options: Options = AS_TRAINED
    ) -> Float[np.ndarray, "t k h2 w2"]:
        """How every iteration divides an image, see `Trained.attention`."""
        trained = self._variant(options.num_slots)
        return trained.attention(image, seed=options.seed)

    def sample(self, *, seed: int, temperature: float) -> Float[np.ndarray, "b h w 3"]:
        """Eight new scenes."""
        return self._trained.sample(8, seed=seed, temperature=temperature)

    def samples(self, folder: Path) -> list[Path]:
        """Images to choose from, of the data that the model was trained on if it is here.

        Args:
            folder: where they are written, in that case; otherwise they come along with the model,
                or with this package.
        """
        config = self._trained.config.data
        try:
            declared = datasets.get(config.name).declare(config).splits
            split = next(name for name in ("test", "val", *declared) if name in declared)
            data = dataset.load(config, split)
            positions = np.unique(np.linspace(0, len(data) - 1, NUM_SAMPLES).astype(int))
            batch, _ = data.read_or_replace(positions, names=["image"], replace=False)
        except UserError:
            logging.info("The data that the model was trained on is not here: other samples.")
            own = pretrained.locate(self._source) / pretrained.SAMPLES
            return sorted(own.iterdir()) if own.is_dir() else sorted(SAMPLES.glob("*.jpg"))
        files = []
        valid = batch["valid"]
        for number, image in zip(batch["index"][valid], batch["image"][valid], strict=True):
            files.append(folder / f"{config.name.split('.')[-1]}_{split}_{number}.png")
            Image.fromarray(image).save(files[-1])
        return files

    def _variant(self, num_slots: int | None) -> api.Trained:
        """The model with so many slots."""
        if num_slots is None or num_slots == self.abilities.num_slots:
            return self._trained
        if self.abilities.num_slots is None or not 1 <= num_slots <= self.max_slots:
            raise UserError(
                f"Number of slots: got {num_slots}; allowed is 1 to {self.max_slots}, for models "
                "whose parameters do not depend on it."
            )
        with self._lock:
            if num_slots not in self._variants:
                self._variants[num_slots] = api.load(
                    self._source, one_by_one=True, num_slots=num_slots
                )
            self._variants.move_to_end(num_slots)
            while len(self._variants) > _MAX_MODELS:
                self._variants.popitem(last=False)
            return self._variants[num_slots]


def widest_latents(result: api.Segmentation, slot: int) -> list[int]:
    """The dimensions of a slot that say most of the image: those of the smallest variance."""
    return [int(i) for i in np.argsort(result.extras["z_std"][slot], kind="stable")[:NUM_LATENTS]]
