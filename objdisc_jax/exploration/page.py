"""The page itself, in Gradio: which pictures are where, and what happens on a click.

A visitor's results are in `gr.State`, which every session has for itself.
"""

import functools
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]
import numpy as np
from absl import logging

from objdisc_jax.api import Segmentation
from objdisc_jax.data.images import SUFFIXES
from objdisc_jax.errors import UserError
from objdisc_jax.exploration import pictures
from objdisc_jax.exploration.explorer import (
    SAMPLES,
    Explorer,
    Options,
    widest_latents,
)
from objdisc_jax.segmentation import MODES

_CSS = """
.gradio-container {max-width: 1280px !important; margin: 0 auto !important; overflow-x: hidden}
.picture img {width: 100% !important; height: 100% !important; object-fit: contain !important}
.samples .grid-container {grid-template-columns: repeat(auto-fill, 72px) !important}
.tiles {display: grid !important; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr))}
.tiles.small {grid-template-columns: repeat(auto-fill, minmax(100px, 1fr))}
.tile {min-width: 0 !important; border: 1px solid var(--border-color-primary); border-radius: 8px;
  padding: 8px}
.tile img {background: repeating-conic-gradient(#ddd 0% 25%, #fff 0% 50%) 0 0 / 16px 16px}
.tile .block {border: 0; padding: 0; overflow: visible}
"""
_AN_HOUR = 3600
_AS_TRAINED = "as trained"
_NO_CONTAINER = {"container": False, "show_label": False}


class View:
    """A result that a visitor looks at, and the folder with what can be saved of it.

    Two are never equal, so that Gradio takes a new one for a change. The folder goes with it.
    """

    def __init__(self, file: Path, result: Segmentation, options: Options):
        self.name, self.result, self.options = file.stem, result, options
        self.folder = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


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


def serve(
    explorer: Explorer, *, host: str, port: int | None, max_megabytes: int, browser: bool
) -> None:
    """Serves the page until it is interrupted.

    Args:
        explorer: of the model.
        host: address to listen at.
        port: None is the first free one from 7860 on.
        max_megabytes: of a file that is taken.
        browser: whether the page is opened.

    Raises:
        UserError: nothing can listen there.
    """
    page = build(explorer)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            inbrowser=browser,
            max_file_size=f"{max_megabytes}mb",
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            enable_monitoring=False,
            theme=_theme(),
            css=_CSS,
        )
    except OSError as error:
        raise UserError(
            f"--host {host}, --port {port or '7860 to 7959'}: nothing can listen there ({error}). "
            "Name another port."
        ) from error
    logging.info("The page is at %s; Ctrl-C ends it.", url)
    try:
        page.block_thread()
    finally:
        page.close(verbose=False)


def _theme() -> Any:
    """Plain, with the reader's own fonts: nothing is fetched from elsewhere."""
    return gr.themes.Default(
        font=["ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )


def build(explorer: Explorer) -> Any:
    """The page, a `gradio.Blocks`."""
    abilities = explorer.abilities
    with gr.Blocks(
        title="objdisc explore", analytics_enabled=False, delete_cache=(_AN_HOUR, _AN_HOUR)
    ) as page:
        gr.Markdown(f"## Objects in images\n{explorer.name}")
        options = _options(explorer)
        with gr.Tab("Segment"):
            view = _image_chooser(explorer, options, "image")
            _segment_tab(explorer, view)
        if abilities.renders:
            with gr.Tab("Exchange"):
                _exchange_tab(explorer, options)
        if abilities.latents:
            with gr.Tab("Latents"):
                _latents_tab(explorer, view)
        if abilities.attends:
            with gr.Tab("Attention"):
                _attention_tab(explorer, view)
        if abilities.samples:
            with gr.Tab("New scenes"):
                _samples_tab(explorer)
    return page


def _options(explorer: Explorer) -> list[Any]:
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
            minimum=0,
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


def _image_chooser(explorer: Explorer, options: list[Any], name: str) -> Any:
    """A place to drop an image in, and samples; returns the state that holds the `View`."""
    view, source = gr.State(None, time_to_live=_AN_HOUR), gr.State(None, time_to_live=_AN_HOUR)
    samples = sorted(SAMPLES.glob("*.jpg"))
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
            columns=len(samples),
            rows=1,
            height=130,
            show_label=False,
            allow_preview=False,
            interactive=False,
            object_fit="cover",
            buttons=[],
            min_width=240,
            elem_classes="samples",
            elem_id=f"{name.replace(' ', '_')}_samples",
        )

    @told
    def segmented(file: str | None, num_slots: int | None, seed: float | None, mode: str) -> Any:
        if file is None:
            return None
        background = None if mode == _AS_TRAINED else mode
        chosen = Options(num_slots, 0 if seed is None else int(seed), background)
        return View(Path(file), explorer.segment(Path(file), chosen), chosen)

    def sampled(event: gr.SelectData) -> str:
        return str(samples[event.index])

    private = {"api_visibility": "private"}
    gr.on([upload.upload], lambda file: file, upload, source, **private)
    gallery.select(sampled, None, source, **private)
    changed = [source.change, *(o.change for o in options if not isinstance(o, gr.State))]
    gr.on(changed, segmented, [source, *options], view, trigger_mode="always_last", **private)
    return view


def _segment_tab(explorer: Explorer, view: Any) -> None:
    abilities = explorer.abilities
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            overlay = _picture("Slots", "overlay")
            alpha = gr.Slider(0, 1, value=0.45, step=0.05, label="Opacity", elem_id="opacity")
        with gr.Column(scale=2, min_width=300):
            summary = gr.Markdown("Drop an image in, or take a sample.")
            repainted = _picture("Painted by the decoder", "repainted", visible=abilities.renders)
            boxes = _picture("Boxes", "boxes", visible=abilities.boxes)

    def paint(view: View, alpha: float, *controls: Any) -> Any:
        slots = pictures.tiled_slots(view.result)
        on, colors = controls[: len(slots)], controls[len(slots) :]
        shown = [slot for slot, is_on in zip(slots, on, strict=True) if is_on]
        chosen = dict(zip(slots, colors, strict=True))
        return pictures.painted(view.result, alpha, shown, chosen)

    def repaint(view: View, *on: bool) -> Any:
        off = [
            s for s, is_on in zip(pictures.tiled_slots(view.result), on, strict=True) if not is_on
        ]
        slots = np.delete(view.result.slots, off, axis=0)
        if not len(slots):
            return None
        return pictures.enlarged(explorer.render(slots))

    def first(view: View | None, alpha: float) -> Any:
        if view is None:
            return [None, "Drop an image in, or take a sample.", None, None]
        slots = pictures.tiled_slots(view.result)
        colors = [pictures.color_code(slot) for slot in slots]
        painted = paint(view, alpha, *[True] * len(slots), *colors)
        again = repaint(view, *[True] * len(slots)) if abilities.renders else None
        boxed = pictures.with_boxes(view.result) if abilities.boxes else None
        return [painted, _summary(view), again, boxed]

    outputs = [overlay, summary, repainted, boxes]
    private = {"show_progress": "hidden", "api_visibility": "private"}
    view.change(told(first), [view, alpha], outputs, **private)

    @gr.render(inputs=view, triggers=[view.change], show_progress="hidden")
    def tiles(view_now: View | None) -> None:
        if view_now is None:
            return
        switches, pickers = [], []
        with gr.Row(elem_classes="tiles"):
            for slot in pictures.tiled_slots(view_now.result):
                with gr.Column(elem_classes="tile", min_width=140):
                    switches.append(_switch(view_now, slot, f"Slot {slot + 1}", True))
                    pickers.append(
                        gr.ColorPicker(
                            pictures.color_code(slot),
                            label="Color",
                            container=False,
                            interactive=True,
                        )
                    )
                    file = pictures.export(view_now.result, slot, view_now.folder, view_now.name)
                    gr.DownloadButton("Save as PNG", value=file, size="sm")
        controls = [*switches, *pickers]
        events = [alpha.change, *(control.change for control in controls)]
        gr.on(
            events,
            told(paint),
            [view, alpha, *controls],
            overlay,
            trigger_mode="always_last",
            **private,
        )
        if abilities.renders and switches:
            gr.on(
                [switch.change for switch in switches],
                told(repaint),
                [view, *switches],
                repainted,
                trigger_mode="always_last",
                **private,
            )


def _exchange_tab(explorer: Explorer, options: list[Any]) -> None:
    gr.Markdown("Ticked slots move to the other image; the decoder paints both anew.")
    names, views = ("first image", "second image"), []
    with gr.Row():
        for name in names:
            with gr.Column(min_width=300):
                view = _image_chooser(explorer, options, name)
                picture = _picture(name.capitalize(), name.replace(" ", "_"))
                view.change(
                    lambda view: None if view is None else view.result.overlay(),
                    view,
                    picture,
                    show_progress="hidden",
                    api_visibility="private",
                )
                views.append(view)
    first, second = views

    def exchange(first: View, second: View, *ticks: bool) -> list[Any]:
        slots = [pictures.tiled_slots(view.result) for view in (first, second)]
        ticked = [ticks[: len(slots[0])], ticks[len(slots[0]) :]]
        moved = [
            [slot for slot, is_ticked in zip(*pair, strict=True) if is_ticked]
            for pair in zip(slots, ticked, strict=True)
        ]
        both = pictures.exchanged((first.result.slots, second.result.slots), (moved[0], moved[1]))
        return [pictures.enlarged(explorer.render(slots)) for slots in both]

    private = {"show_progress": "hidden", "api_visibility": "private"}

    @gr.render(
        inputs=[first, second], triggers=[first.change, second.change], show_progress="hidden"
    )
    def ticks(now: View | None, other: View | None) -> None:
        columns = []
        with gr.Row():
            for number, view in enumerate((now, other), 1):
                with gr.Column(min_width=300), gr.Row(elem_classes=["tiles", "small"]):
                    columns.append(
                        [
                            _ticked_tile(view, slot, f"{number}.{slot + 1}")
                            for slot in ([] if view is None else pictures.tiled_slots(view.result))
                        ]
                    )
        boxes = [*columns[0], *columns[1]]
        if now is not None and other is not None and boxes:
            gr.on(
                [box.change for box in boxes],
                told(exchange),
                [first, second, *boxes],
                outputs,
                trigger_mode="always_last",
                **private,
            )

    with gr.Row():
        outputs = [
            _picture(f"{name.capitalize()} after the exchange", f"{name.replace(' ', '_')}_after")
            for name in names
        ]


def _latents_tab(explorer: Explorer, view: Any) -> None:
    gr.Markdown("The latents of a slot that say most of the image, in steps of the prior.")

    @gr.render(inputs=view, triggers=[view.change], show_progress="hidden")
    def sliders(now: View | None) -> None:
        if now is None:
            gr.Markdown("Choose an image in the first tab.")
            return
        slots = pictures.tiled_slots(now.result) or list(range(len(now.result.slots)))
        choices = [(f"Slot {slot + 1}", slot) for slot in slots]

        def take(slot: int) -> list[float]:
            means = now.result.slots[slot, widest_latents(now.result, slot)]
            return [float(np.clip(mean, -3, 3)) for mean in means]

        def walk(slot: int, *values: float) -> Any:
            changed = now.result.slots.copy()
            changed[slot, widest_latents(now.result, slot)] = values
            return pictures.enlarged(explorer.render(changed))

        with gr.Row():
            with gr.Column(min_width=300):
                chosen = gr.Radio(choices, value=slots[0], label="Slot", interactive=True)
                values = [
                    gr.Slider(
                        -3, 3, value=value, step=0.05, label=f"Latent {number}", interactive=True
                    )
                    for number, value in enumerate(take(slots[0]), 1)
                ]
            with gr.Column(min_width=300):
                before = pictures.enlarged(explorer.render(now.result.slots))
                painted = _picture("Painted by the decoder", "walked", value=before)
        private = {"show_progress": "hidden", "api_visibility": "private"}
        chosen.change(told(take), chosen, values, **private)
        gr.on(
            [slider.change for slider in values],
            told(walk),
            [chosen, *values],
            painted,
            trigger_mode="always_last",
            **private,
        )


def _attention_tab(explorer: Explorer, view: Any) -> None:
    gr.Markdown("How each iteration divides the image among the slots, in the slots' colors.")
    gallery = _gallery("Iterations", "iterations")

    @told
    def iterations(view: View | None) -> list[Any]:
        if view is None:
            return []
        attn = explorer.attention(view.result.image, view.options)
        return [
            (pictures.attention_strip(step), f"Iteration {number}")
            for number, step in enumerate(attn, 1)
        ]

    view.change(iterations, view, gallery, show_progress="hidden", api_visibility="private")


def _samples_tab(explorer: Explorer) -> None:
    with gr.Row():
        seed = gr.Number(0, precision=0, minimum=0, label="Seed", min_width=160)
        temperature = gr.Slider(
            0, 2, value=1, step=0.05, label="Temperature", info="0: the most typical scene"
        )
    button = gr.Button("Make new scenes", variant="primary")
    gallery = _gallery("New scenes", "new_scenes")

    @told
    def sampled(seed: float | None, temperature: float) -> list[Any]:
        scenes = explorer.sample(seed=int(seed or 0), temperature=temperature)
        return [pictures.enlarged(scene) for scene in scenes]

    button.click(sampled, [seed, temperature], gallery, api_visibility="private")


def _gallery(label: str, name: str) -> Any:
    """Several images that are shown only."""
    return gr.Gallery(
        label=label,
        columns=4,
        height="auto",
        object_fit="contain",
        interactive=False,
        buttons=[],
        elem_id=name,
    )


def _picture(label: str, name: str, value: Any = None, *, visible: bool = True) -> Any:
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


def _switch(view: View, slot: int, label: str, value: bool) -> Any:
    """A slot's small picture and a box beside its name."""
    gr.Image(
        pictures.tile(view.result, slot),
        format="png",
        image_mode="RGBA",
        interactive=False,
        buttons=[],
        **_NO_CONTAINER,
    )
    return gr.Checkbox(value, label=label, container=False, interactive=True)


def _ticked_tile(view: View | None, slot: int, label: str) -> Any:
    assert view is not None
    with gr.Column(elem_classes="tile", min_width=100):
        return _switch(view, slot, f"Slot {label}", False)


def _summary(view: View) -> str:
    result = view.result
    height, width = result.image.shape[:2]
    lines = [f"**{view.name}**, {width} x {height} pixels as shown"]
    lines.append(f"{len(result.found)} slots have pixels")
    if result.count is not None:
        lines.append(f"the model counts {result.count} objects")
    return "; ".join(lines) + "."
