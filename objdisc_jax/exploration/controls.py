"""What the tabs of the page are made of: images to choose, pictures, tiles of slots, messages."""

import functools
import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]
import numpy as np
from absl import logging
from PIL import Image

from objdisc_jax.api import Segmentation
from objdisc_jax.data.images import SUFFIXES
from objdisc_jax.errors import UserError
from objdisc_jax.exploration import pictures
from objdisc_jax.exploration.explorer import Explorer, Options
from objdisc_jax.segmentation import MODES

AN_HOUR = 3600
"""As many seconds does the page keep what nobody uses."""
QUIET: Any = {"show_progress": "hidden", "api_visibility": "private"}
"""Of events that answer at once."""
LATEST: Any = {**QUIET, "trigger_mode": "always_last"}
"""Of those that come faster than answers: the last one counts."""
BEGIN = "Drop an image in, or take a sample."
_AS_TRAINED = "as trained"


class View:
    """A result that a visitor looks at, and the folder with what can be saved of it.

    Two are never equal, so that Gradio takes a new one for a change. The folder goes with it.

    Attributes:
        file: the image.
        result: what the model found in it.
        options: how.
        slots: those that are shown as tiles.
        folder: of pictures that the page shows or lets save.
    """

    def __init__(self, file: Path, result: Segmentation, options: Options):
        self.file, self.result, self.options = file, result, options
        self.slots = pictures.tiled_slots(result)
        self.folder = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def written(self, image: np.ndarray) -> str:
        """The file of a large picture for the page; Gradio itself would take thrice the time."""
        file = self.folder / f"{hashlib.sha256(image.tobytes()).hexdigest()}.png"
        if not file.exists():
            Image.fromarray(image).save(file, compress_level=1)
        return str(file)


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes what goes wrong a message in the page."""

    @functools.wraps(function)
    def with_messages(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from None
        except Exception as error:
            logging.exception("explore: %s", error)
            message = "This went wrong, and not by your doing; the program's log says why."
            raise gr.Error(message, duration=None, print_exception=False) from None

    return with_messages


def of_view(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `told`, of a function whose first argument is a `View`, which may be gone."""

    @functools.wraps(function)
    def with_view(view: View | None, *args: Any) -> Any:
        if view is None:
            raise UserError("This result is an hour old and has been removed. Choose the image.")
        return function(view, *args)

    return told(with_view)


def options(explorer: Explorer) -> list[Any]:
    """The controls of how images are segmented; of what the model doesn't have, placeholders."""
    abilities = explorer.abilities
    num_slots, modes = gr.State(None), gr.State(_AS_TRAINED)
    with gr.Accordion("Settings", open=False), gr.Row():
        if abilities.num_slots is not None:
            num_slots = gr.Dropdown(
                list(range(1, explorer.max_slots + 1)),
                value=abilities.num_slots,
                label="Number of slots",
                info="Another number is compiled first: some seconds.",
                min_width=200,
            )
        seed = gr.Number(
            0,
            precision=0,
            label="Seed",
            info="Of the noise that slots begin with.",
            min_width=160,
        )
        if abilities.background:
            modes = gr.Dropdown(
                [_AS_TRAINED, *MODES],
                value=_AS_TRAINED,
                label="Background",
                info="How it is told from objects.",
                min_width=200,
            )
    return [num_slots, seed, modes]


def image_chooser(
    explorer: Explorer, samples: Sequence[Path], options: Sequence[Any], name: str
) -> Any:
    """A place to drop an image in, and samples; returns the state that holds the `View`."""
    view, sent = gr.State(None, time_to_live=AN_HOUR), gr.State(None)
    with gr.Row(equal_height=True):
        upload = gr.File(
            label=f"Your {name}",
            file_types=list(SUFFIXES),
            height=130,
            min_width=240,
            elem_id=f"{name.replace(' ', '_')}_upload",
        )
        gallery = gr.Gallery(
            [str(file) for file in samples],
            label="Samples",
            show_label=False,
            columns=len(samples),
            height=130,
            allow_preview=False,
            interactive=False,
            object_fit="cover",
            buttons=[],
            min_width=240,
            elem_classes="samples",
            elem_id=f"{name.replace(' ', '_')}_samples",
        )

    def segmented(file: Path, num_slots: int | None, seed: float | None, mode: str) -> View:
        background = None if mode == _AS_TRAINED else mode
        chosen = Options(num_slots, 0 if seed is None else int(seed), background)
        return View(file, explorer.segment(file, chosen), chosen)

    @told
    def uploaded(file: str, *chosen: Any) -> View:
        return segmented(Path(file), *chosen)

    @told
    def sampled(event: gr.SelectData, *chosen: Any) -> View:
        return segmented(samples[event.index], *chosen)

    @told
    def again(view: View | None, *chosen: Any) -> View | None:
        return None if view is None else segmented(view.file, *chosen)

    private = {"api_visibility": "private"}
    # The place is emptied first, for the next one, whatever comes of this one.
    upload.upload(lambda file: (file, None), upload, [sent, upload], **QUIET).then(
        uploaded, [sent, *options], view, **private
    )
    gallery.select(sampled, list(options), view, **private)
    changed = [option.change for option in options if not isinstance(option, gr.State)]
    gr.on(changed, again, [view, *options], view, trigger_mode="always_last", **private)
    return view


def gallery(label: str, name: str) -> Any:
    """Several images that are shown only."""
    return gr.Gallery(
        label=label,
        columns=4,
        height="auto",
        object_fit="contain",
        interactive=False,
        buttons=[],
        elem_id=name,
        elem_classes="strip",
    )


def picture(label: str, name: str, value: Any = None, *, visible: bool = True) -> Any:
    """An image that is shown only."""
    return gr.Image(
        value,
        label=label,
        visible=visible,
        interactive=False,
        format="png",
        height=320,
        buttons=["fullscreen"],
        elem_id=name,
        elem_classes="picture",
    )


def switch(view: View, slot: int, *, is_on: bool) -> Any:
    """A slot's small picture and a box beside its name."""
    gr.Image(
        pictures.tile(view.result, slot),
        format="png",
        image_mode="RGBA",
        interactive=False,
        buttons=[],
        container=False,
        show_label=False,
    )
    return gr.Checkbox(is_on, label=f"Slot {slot + 1}", container=False, interactive=True)
