"""The tabs of the page, one a function: which pictures are where, and what happens on a click."""

import dataclasses
from collections.abc import Callable
from itertools import compress
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]
import numpy as np

from objdisc_jax.errors import UserError
from objdisc_jax.exploration import arrangement, pictures
from objdisc_jax.exploration.arrangement import Placed
from objdisc_jax.exploration.controls import (
    BEGIN,
    LATEST,
    QUIET,
    View,
    gallery,
    of_view,
    picture,
    switch,
    told,
)
from objdisc_jax.exploration.explorer import Explorer, widest_latents


def segment(explorer: Explorer, view: Any) -> None:
    """The slots of an image, and what is painted of those that are on."""
    abilities = explorer.abilities
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            overlay = picture("Slots", "overlay")
            alpha = gr.Slider(0, 1, value=0.45, step=0.05, label="Opacity", elem_id="opacity")
        with gr.Column(scale=2, min_width=300):
            summary = gr.Markdown(BEGIN)
            repainted = picture("Painted by the decoder", "repainted", visible=abilities.renders)
            boxes = picture("Boxes", "boxes", visible=abilities.boxes)

    def paint(view: View, alpha: float, *controls: Any) -> str:
        on, colors = controls[: len(view.slots)], controls[len(view.slots) :]
        chosen = dict(zip(view.slots, colors, strict=False))  # new tiles may be on their way
        shown = list(compress(view.slots, on))
        return view.written(pictures.painted(view.result, alpha, shown, chosen))

    def repaint(view: View, *on: bool) -> Any:
        off = set(view.slots) - set(compress(view.slots, on))
        slots = np.delete(view.result.slots, sorted(off), axis=0)
        return pictures.enlarged(explorer.render(slots, view.result))

    @told
    def first(view: View | None, alpha: float) -> Any:
        if view is None:
            return [None, BEGIN, None]
        on, result = [True] * len(view.slots), view.result
        painted = paint(view, alpha, *on, *map(pictures.color_code, view.slots))
        boxed = None if result.boxes is None else pictures.outlined(result.image, result.boxes)
        return [painted, _summary(view), boxed]

    @told
    def whole(view: View | None) -> Any:
        return None if view is None else repaint(view, *[True] * len(view.slots))

    view.change(first, [view, alpha], [overlay, summary, boxes], **QUIET)
    if abilities.renders:
        view.change(whole, view, repainted, **QUIET)

    @gr.render(inputs=view, triggers=[view.change], show_progress="hidden")
    def tiles(now: View | None) -> None:
        if now is None:
            return
        switches, pickers = [], []
        with gr.Row(elem_classes="tiles"):
            for slot in now.slots:
                with gr.Column(elem_classes="tile", min_width=140):
                    switches.append(switch(now, slot, is_on=True))
                    pickers.append(
                        gr.ColorPicker(
                            pictures.color_code(slot),
                            label="Color",
                            container=False,
                            interactive=True,
                        )
                    )
                    file = pictures.export(now.result, slot, now.folder, now.file.stem)
                    gr.DownloadButton("Save as PNG", value=file, size="sm")
        controls = [*switches, *pickers]
        gr.on(
            [alpha.change, *(control.change for control in controls)],
            of_view(paint),
            [view, alpha, *controls],
            overlay,
            **LATEST,
        )
        if abilities.renders and switches:
            gr.on(
                [box.change for box in switches],
                of_view(repaint),
                [view, *switches],
                repainted,
                **LATEST,
            )


def _summary(view: View) -> str:
    height, width = view.result.image.shape[:2]
    name = view.file.stem.replace("`", "_")
    parts = [f"`{name}`", f"{width} x {height} pixels"]
    parts.append(f"slots in use: {len(view.result.found)}")
    if view.result.count is not None:
        parts.append(f"objects counted by the model: {view.result.count}")
    return ", ".join(parts)


def exchange(explorer: Explorer, choose: Callable[[str], Any]) -> None:
    """Slots of two images that move to the other one.

    Args:
        explorer: of the model.
        choose: makes a place to choose an image, by its name; returns the state of its `View`.
    """
    gr.Markdown("Choose two images and tick slots: they move to the other image.")
    names, views = ("first image", "second image"), []
    with gr.Row():
        for name in names:
            with gr.Column(min_width=300):
                view = choose(name)
                shown = picture(name.capitalize(), name.replace(" ", "_"))
                view.change(
                    lambda view: None if view is None else view.result.overlay(),
                    view,
                    shown,
                    **QUIET,
                )
                views.append(view)
    with gr.Row():
        after = [
            picture(f"{name.capitalize()}, painted", f"{name.replace(' ', '_')}_after")
            for name in names
        ]

    def exchanged(first: View, second: View | None, *ticks: bool) -> list[Any]:
        if second is None:
            return [None, None]
        count = len(first.slots)
        moved = (
            list(compress(first.slots, ticks[:count])),
            list(compress(second.slots, ticks[count:])),
        )
        both = pictures.exchanged((first.result.slots, second.result.slots), moved)
        return [
            pictures.enlarged(explorer.render(slots, view.result))
            for slots, view in zip(both, (first, second), strict=True)
        ]

    @gr.render(inputs=views, triggers=[view.change for view in views], show_progress="hidden")
    def ticks(*now: View | None) -> None:
        boxes = []
        with gr.Row():
            for view, name in zip(now, names, strict=True):
                with gr.Column(min_width=300):
                    if view is None:
                        continue
                    gr.Markdown(f"Slots of the {name}")
                    with gr.Row(elem_classes=["tiles", "small"]):
                        for slot in view.slots:
                            with gr.Column(elem_classes="tile", min_width=80):
                                boxes.append(switch(view, slot, is_on=False))
        if boxes and None not in now:
            gr.on(
                [box.change for box in boxes],
                of_view(exchanged),
                [*views, *boxes],
                after,
                **LATEST,
            )

    @told
    def unchanged(first: View | None, second: View | None) -> list[Any]:
        return [None, None] if first is None else exchanged(first, second)

    gr.on([view.change for view in views], unchanged, views, after, **QUIET)


def rearrange(explorer: Explorer, view: Any) -> None:
    """Objects of an image that are moved, enlarged, hidden and copied by their boxes."""
    gr.Markdown("Choose an object of the image of the first tab; move it, hide it or copy it.")
    objects = gr.State([])
    with gr.Row():
        with gr.Column(min_width=300):
            chosen = gr.Radio([], label="Object", elem_id="object")
            right = gr.Slider(-100, 100, value=0, step=1, label="To the right (% of the image)")
            down = gr.Slider(-100, 100, value=0, step=1, label="Down (% of the image)")
            size = gr.Slider(0.25, 4, value=1, step=0.05, label="Size (1: as found)")
            hidden = gr.Checkbox(False, label="Hidden")
            with gr.Row():
                copy = gr.Button("Copy", size="sm", min_width=100)
                back = gr.Button("All as found", size="sm", min_width=100)
        with gr.Column(min_width=300):
            scene = picture("Painted by the decoder", "rearranged")
    edits = [right, down, size, hidden]

    def paint(view: View, objects: list[Placed], number: int | None) -> Any:
        slots, boxes = arrangement.painted(objects, view.result, explorer.resolution)
        image = pictures.enlarged(explorer.render(slots, view.result, boxes))
        if number is None:
            return image
        scale = len(image) / explorer.resolution[0]
        box = np.array(objects[number].box(explorer.resolution)) * scale
        return pictures.outlined(image, [box])

    def choose(view: View, objects: list[Placed], number: int | None) -> list[Any]:
        """The picture and the values of the controls, for one of the objects."""
        if number is None:
            return [paint(view, objects, None), 0, 0, 1, False]
        one = objects[number]
        values = [one.right, one.down, one.size, one.hidden]
        return [paint(view, objects, number), *values]

    def offer(view: View, objects: list[Placed], number: int | None) -> list[Any]:
        """As `choose`, and the objects to choose from."""
        choices = [(one.name, i) for i, one in enumerate(objects)]
        return [
            objects,
            gr.Radio(choices, value=number, interactive=True),
            *choose(view, objects, number),
        ]

    @told
    def begin(view: View | None) -> list[Any]:
        if view is None:
            return [[], gr.Radio([]), None, 0, 0, 1, False]
        objects = arrangement.found(view.result)
        return offer(view, objects, 0 if objects else None)

    def edit(
        view: View,
        objects: list[Placed],
        number: int | None,
        right: float,
        down: float,
        size: float,
        hidden: bool,
    ) -> list[Any]:
        objects = list(objects)
        if number is not None:
            objects[number] = dataclasses.replace(
                objects[number], right=right, down=down, size=size, hidden=hidden
            )
        return [objects, paint(view, objects, number)]

    def add(view: View, objects: list[Placed], number: int | None) -> list[Any]:
        if number is None:
            raise UserError("There is no object to copy. Choose another image.")
        objects = arrangement.copied(objects, number)
        return offer(view, objects, len(objects) - 1)

    everything = [objects, chosen, scene, *edits]
    now = [view, objects, chosen]
    view.change(begin, view, everything, **QUIET)
    back.click(begin, view, everything, **QUIET)
    copy.click(of_view(add), now, everything, **QUIET)
    chosen.input(of_view(choose), now, [scene, *edits], **QUIET)
    gr.on(
        [control.input for control in edits],
        of_view(edit),
        [*now, *edits],
        [objects, scene],
        **LATEST,
    )


def latents(explorer: Explorer, view: Any) -> None:
    """Sliders of a slot's latents, and what is painted."""
    gr.Markdown("The latents of a slot that say most of the image; 0 is the prior's mean.")

    @gr.render(inputs=view, triggers=[view.change], show_progress="hidden")
    def sliders(now: View | None) -> None:
        if now is None:
            gr.Markdown("Choose an image in the first tab.")
            return
        result = now.result
        slots = now.slots or list(range(len(result.slots)))
        choices = [(f"Slot {slot + 1}", slot) for slot in slots]

        def take(slot: int) -> list[float]:
            means = result.slots[slot, widest_latents(result, slot)]
            return [round(float(np.clip(mean, -3, 3)), 2) for mean in means]

        def walk(slot: int, *values: float) -> Any:
            changed = result.slots.copy()
            latents = zip(widest_latents(result, slot), values, take(slot), strict=True)
            for latent, value, shown in latents:
                if value != shown:  # sliders are rounded, and end at 3; what is left alone stays
                    changed[slot, latent] = value
            return pictures.enlarged(explorer.render(changed, result))

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
                before = pictures.enlarged(explorer.render(result.slots, result))
                painted = picture("Painted by the decoder", "walked", value=before)
        chosen.change(told(take), chosen, values, **QUIET)
        gr.on(
            [slider.change for slider in values],
            told(walk),
            [chosen, *values],
            painted,
            **LATEST,
        )


def attention(explorer: Explorer, view: Any) -> None:
    """How every iteration divides an image."""
    gr.Markdown(
        "How each iteration divides the image of the first tab among the slots, in their colors."
    )
    strip = gallery("Iterations", "iterations")

    @told
    def iterations(view: View | None) -> list[Any]:
        if view is None:
            return []
        attn = explorer.attention(view.result.image, view.options)
        return [
            (pictures.attention_strip(step), f"Iteration {number}")
            for number, step in enumerate(attn, 1)
        ]

    view.change(iterations, view, strip, **QUIET)


def new_scenes(explorer: Explorer) -> None:
    """Scenes sampled from the model."""
    with gr.Row():
        seed = gr.Number(0, precision=0, label="Seed", min_width=160)
        temperature = gr.Slider(
            0, 2, value=1, step=0.05, label="Temperature", info="0: the most typical scene"
        )
    button = gr.Button("Make new scenes", variant="primary")
    strip = gallery("New scenes", "new_scenes")

    @told
    def sampled(seed: float | None, temperature: float) -> list[Any]:
        scenes = explorer.sample(seed=int(seed or 0), temperature=temperature)
        return [pictures.enlarged(scene) for scene in scenes]

    button.click(sampled, [seed, temperature], strip, api_visibility="private")
