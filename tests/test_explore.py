"""The page in a real browser: slow, and skipped where Gradio, Playwright or one is missing."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from objdisc_jax import explore
from objdisc_jax.exploration.explorer import SAMPLES
from tests.exploration import small

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 120
"""That something may take on a busy machine."""


def test_only_this_machine_reaches_the_page_unless_told_otherwise():
    arguments = explore.parse(["explore", "--pretrained", "sa_clevr6_cpu"])
    assert arguments.host == "127.0.0.1"
    assert not arguments.no_browser
    told = explore.parse(["explore", "--pretrained", "sa_clevr6_cpu", "--host", "0.0.0.0"])
    assert told.host == "0.0.0.0"


def test_without_gradio_it_is_said_what_to_install():
    hidden = "import sys; sys.modules['gradio'] = None; sys.argv = sys.argv[1:]; import runpy; "
    run = "runpy.run_module('objdisc_jax.explore', run_name='__main__')"
    command = [sys.executable, "-c", hidden + run, "explore", "--pretrained", "sa_clevr6_cpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1
    assert "pip install 'objdisc_jax[explore]'" in done.stderr
    assert "Traceback" not in done.stderr


def environment(**more):
    return {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "GLIBC_TUNABLES": "", **more}


class Server:
    """`objdisc explore` in a process of its own."""

    def __init__(self, folder, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{port}/", folder / "log.txt"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        command = [sys.executable, "-m", "objdisc_jax", "explore", "--no-browser"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, f"--port={port}", *map(str, options)],
                stdout=log,
                stderr=log,
                env=environment(TMPDIR=str(self.temporary)),
            )
        for _ in range(4 * SECONDS):
            if "The page is at" in self.log.read_text():
                return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.25)
        self.stop()
        raise AssertionError(self.log.read_text())

    def files(self):
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("gradio", reason="gradio is not installed: pip install gradio")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"there is no browser ({', '.join(BROWSERS)})")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    options = ["--pretrained", "sa_clevr6_cpu", "--max-pixels", "1000000", "--max-megabytes", "2"]
    server = Server(tmp_path_factory.mktemp("server"), *options)
    yield server
    server.stop()


@pytest.fixture
def visit(browser, server):
    """Opens the page for a visitor; everything that is fetched has to be the server's."""
    contexts, fetched = [], []

    def open_page(url=server.url, **viewport):
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900, **viewport}))
        page = contexts[-1].new_page()
        page.set_default_timeout(1000 * SECONDS)
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(url)
        page.wait_for_selector("#image_samples img")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [
        url for url in fetched if not url.startswith(("http://127.0.0.1", "data:", "blob:"))
    ]


def take_sample(page, number, name="image", shown="overlay"):
    before = shown_image(page, shown)
    page.locator(f"#{name}_samples button img").nth(number).click()
    return changed_image(page, shown, before)


def shown_image(page, name):
    image = page.locator(f"#{name} img")
    return image.get_attribute("src") if image.count() else None


def changed_image(page, name, before):
    """The address of a picture once it is another one."""
    for _ in range(10 * SECONDS):
        now = shown_image(page, name)
        if now is not None and now != before:
            return now
        page.wait_for_timeout(100)
    raise AssertionError(f"#{name} stays as it was")


def tiles(page, count):
    tiles = page.locator(".tile:visible")
    tiles.nth(count - 1).wait_for()
    return tiles


def pixels(page, address):
    """A picture that the page shows."""
    content = page.request.get(address).body()
    from io import BytesIO

    return np.asarray(Image.open(BytesIO(content)).convert("RGB")).astype(int)


@pytest.mark.slow
def test_an_image_is_uploaded_segmented_and_its_slots_switched(visit):
    page = visit()
    photo = sorted(SAMPLES.glob("*.jpg"))[1]
    page.locator("#image_upload input[type=file]").set_input_files(photo)
    whole = changed_image(page, "overlay", None)
    painted = changed_image(page, "repainted", None)
    boxes = tiles(page, 4).locator("input[type=checkbox]")
    boxes.first.uncheck()
    less = changed_image(page, "overlay", whole)
    changed_image(page, "repainted", painted)
    original = np.asarray(Image.open(photo).convert("RGB")).astype(int)
    difference = [np.abs(pixels(page, url) - original).sum() for url in (whole, less)]
    assert 0 < difference[1] < difference[0]
    slider = page.locator("#opacity input[type=number]")
    slider.fill("1")
    slider.press("Enter")
    changed_image(page, "overlay", less)


@pytest.mark.slow
def test_a_slot_has_another_color(visit):
    page = visit()
    before = take_sample(page, 1)
    tile = tiles(page, 4).first
    tile.locator("button.dialog-button").click()
    field = page.locator("input[type=text]:visible, .color-picker input[type=text]").first
    field.fill("#010203")
    field.press("Enter")
    after = changed_image(page, "overlay", before)
    assert (pixels(page, after) == [1, 2, 3]).all(-1).any()


@pytest.mark.slow
def test_a_slot_is_saved_with_transparency(visit, tmp_path):
    page = visit()
    take_sample(page, 1)
    with page.expect_download() as waiting:
        tiles(page, 4).first.get_by_text("Save as PNG").click()
    saved = waiting.value
    assert re.fullmatch(r"clevr_\d_slot_\d\.png", saved.suggested_filename)
    saved.save_as(tmp_path / "slot.png")
    opacity = np.asarray(Image.open(tmp_path / "slot.png"))[..., 3]
    assert set(np.unique(opacity)) == {0, 255}


@pytest.mark.slow
def test_slots_are_exchanged(visit):
    page = visit()
    page.get_by_role("tab", name="Exchange").click()
    for number, name in enumerate(("first_image", "second_image")):
        take_sample(page, number, name, shown=name)
    boxes = tiles(page, 8).locator("input[type=checkbox]")
    after = ("first_image_after", "second_image_after")
    before = [changed_image(page, name, None) for name in after]
    boxes.first.check()
    before[0] = changed_image(page, after[0], before[0])
    boxes.last.check()
    for name, painted in zip(after, before, strict=True):
        assert pixels(page, changed_image(page, name, painted)).shape == (256, 256, 3)


@pytest.mark.slow
def test_attention_is_shown(visit):
    page = visit()
    take_sample(page, 0)
    page.get_by_role("tab", name="Attention").click()
    page.locator("#iterations img").nth(3).wait_for()


@pytest.mark.slow
def test_settings_are_taken(visit):
    page = visit()
    first = take_sample(page, 1)
    page.get_by_text("Settings").click()
    seed = page.get_by_label("Seed")
    seed.fill("3")
    seed.press("Enter")
    second = changed_image(page, "overlay", first)
    before = pixels(page, second)  # which is gone once there is another result
    page.get_by_label("Background").click()
    page.get_by_role("option", name="none").click()
    third = changed_image(page, "overlay", second)
    assert (pixels(page, third)[0] != before[0]).any()  # all of it is tinted


@pytest.mark.slow
def test_bad_files_are_told_in_the_page(visit, server, tmp_path):
    page = visit()
    good = take_sample(page, 0)
    (tmp_path / "broken.png").write_bytes(b"no image at all")
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    (tmp_path / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    Image.new("RGB", (1100, 1000)).save(tmp_path / "wide.png")
    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "heavy.png")
    for name, message in (
        ("broken.png", "broken.png cannot be read"),
        ("wide.png", "1100 x 1000 pixels"),
        ("heavy.png", "maximum"),
        ("photo.heic", "invalid file type"),
        ("drawing.svg", "invalid file type"),
    ):
        page.locator("#image_upload input[type=file]").set_input_files(tmp_path / name)
        page.get_by_text(re.compile(message, re.IGNORECASE)).first.wait_for()
        assert shown_image(page, "overlay") == good
    assert "Traceback" not in server.log.read_text()
    take_sample(page, 1)  # the page goes on


@pytest.mark.slow
def test_images_of_every_kind_are_taken_one_after_the_other(visit, tmp_path):
    page = visit()
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.new("P", (30, 20), 3).save(tmp_path / "small.gif")
    Image.new("RGBA", (40, 60), (255, 0, 0, 100)).save(tmp_path / "clear.png")
    before = None
    for name, size in (("dot.png", "1 x 1"), ("deep.png", "64 x 64"), ("small.gif", "30 x 20")):
        page.locator("#image_upload input[type=file]").set_input_files(tmp_path / name)
        before = changed_image(page, "overlay", before)
        page.get_by_text(f"{size} pixels").first.wait_for()
    page.locator("#image_upload input[type=file]").set_input_files(tmp_path / "clear.png")
    changed_image(page, "overlay", before)


@pytest.mark.slow
def test_all_slots_may_be_off(visit):
    page = visit()
    whole = take_sample(page, 0)
    painted = changed_image(page, "repainted", None)
    boxes = tiles(page, 4).locator("input[type=checkbox]")
    for number in range(boxes.count()):
        boxes.nth(number).uncheck()
        whole = changed_image(page, "overlay", whole)
    changed_image(page, "repainted", painted)
    sample = np.asarray(Image.open(sorted(SAMPLES.glob("*.jpg"))[0]).convert("RGB"))
    np.testing.assert_array_equal(pixels(page, whole), sample)


@pytest.mark.slow
def test_two_visitors_do_not_see_each_other(visit):
    one, other = visit(), visit()
    mine = take_sample(one, 0)
    assert shown_image(other, "overlay") is None
    theirs = take_sample(other, 2)
    count = tiles(other, 4).count()
    boxes = tiles(one, 4).locator("input[type=checkbox]")
    boxes.first.uncheck()
    mine = changed_image(one, "overlay", mine)
    other.wait_for_timeout(1000)
    assert shown_image(other, "overlay") == theirs != mine
    assert tiles(other, 4).locator("input[type=checkbox]:checked").count() == count


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_reaches_beyond_the_screen(visit, width):
    page = visit(width=width)
    take_sample(page, 1)
    tiles(page, 4)
    page.wait_for_timeout(500)
    assert page.get_by_role("tab", name="Attention").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_files_of_the_machine_are_not_served(visit, server):
    visit()
    for path in (Path(explore.__file__), Path(__file__), "/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{server.url}gradio_api/file={path}")


@pytest.fixture
def serve(browser, tmp_path):
    """Starts a server of a small model; it leaves no traceback and no file behind."""
    servers = []

    def start(name):
        servers.append(Server(tmp_path, "--pretrained", small.write(name, tmp_path / name)))
        return servers[-1]

    yield start
    for server in servers:
        assert server.files()
        server.stop()
        assert "Traceback" not in server.log.read_text()
        assert not server.files()


def slide(page, label, value):
    field = page.get_by_label(re.compile(f"number input for {label}")).first
    field.fill(str(value))
    field.press("Enter")


@pytest.mark.slow
def test_objects_are_moved_copied_and_hidden_by_their_boxes(visit, serve):
    page = visit(serve("gnm").url)
    take_sample(page, 0)
    page.locator("#boxes img").wait_for()
    page.get_by_role("tab", name="Rearrange").click()
    found = changed_image(page, "rearranged", None)
    slide(page, "To the right", 40)
    moved = changed_image(page, "rearranged", found)
    count = page.locator("#object input").count()
    page.get_by_role("button", name="Copy").click()
    copied = changed_image(page, "rearranged", moved)
    assert page.locator("#object input").count() == count + 1
    assert page.get_by_label(re.compile("number input for To the right")).input_value() == "50"
    page.get_by_label("Hidden").check()
    hidden = changed_image(page, "rearranged", copied)
    different = {pixels(page, url).tobytes() for url in (found, moved, copied, hidden)}
    assert len(different) == 4
    page.get_by_role("button", name="All as found").click()
    again = changed_image(page, "rearranged", hidden)
    np.testing.assert_array_equal(pixels(page, again), pixels(page, found))
    page.get_by_role("tab", name="New scenes").click()
    page.get_by_role("button", name="Make new scenes").click()
    page.locator("#new_scenes img").nth(7).wait_for()


@pytest.mark.slow
def test_latents_are_changed(visit, serve):
    page = visit(serve("iodine").url)
    take_sample(page, 0)
    page.get_by_role("tab", name="Latents").click()
    before = changed_image(page, "walked", None)
    slide(page, "Latent 1", 2)
    changed_image(page, "walked", before)
