"""The page itself, in Gradio: its tabs, its looks, and how it is served.

A visitor's results are in `gr.State`, which every session has for itself.
"""

import functools
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]
from absl import logging

from objdisc_jax.errors import UserError
from objdisc_jax.exploration import controls, tabs
from objdisc_jax.exploration.explorer import Explorer

_CSS = """
.gradio-container {width: 100% !important; max-width: 1280px !important;
  margin: 0 auto !important; overflow-x: hidden}
.picture img {width: 100% !important; height: 100% !important; object-fit: contain !important}
.samples .grid-container {grid-template-columns: repeat(auto-fill, 72px) !important}
.tiles {display: grid !important; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr))}
.tiles.small {grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)); gap: 8px}
.tiles.small .tile {padding: 4px; gap: 4px}
.strip, .strip .grid-wrap {min-height: 0 !important; height: auto !important;
  max-height: none !important}
@media (max-width: 480px) {.tab-container button {padding: 0 6px !important; font-size: 13px}}
.tile {min-width: 0 !important; border: 1px solid var(--border-color-primary); border-radius: 8px;
  padding: 8px}
.tile img {background: repeating-conic-gradient(#ddd 0% 25%, #fff 0% 50%) 0 0 / 16px 16px}
.tile .block {border: 0; padding: 0; overflow: visible}
"""


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
    folder = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()))
    with gr.Blocks(
        title="objdisc explore",
        analytics_enabled=False,
        delete_cache=(controls.AN_HOUR, controls.AN_HOUR),
    ) as page:
        gr.Markdown(f"## Objects in images\n{explorer.name}")
        options = controls.options(explorer)
        choose = functools.partial(
            controls.image_chooser, explorer, explorer.samples(folder), options
        )
        with gr.Tab("Segment"):
            view = choose("image")
            tabs.segment(explorer, view)
        if abilities.renders:
            with gr.Tab("Exchange"):
                tabs.exchange(explorer, choose)
        if abilities.moves:
            with gr.Tab("Rearrange"):
                tabs.rearrange(explorer, view)
        if abilities.latents:
            with gr.Tab("Latents"):
                tabs.latents(explorer, view)
        if abilities.attends:
            with gr.Tab("Attention"):
                tabs.attention(explorer, view)
        if abilities.samples:
            with gr.Tab("New scenes"):
                tabs.new_scenes(explorer)
    return page
