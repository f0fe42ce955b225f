"""README and docs/: their Python runs as it stands, and what they point to exists."""

import ast
import dataclasses
import importlib.util
import itertools
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image

from objdisc_jax import __main__ as commands
from objdisc_jax import config as configs
from objdisc_jax import convert, interop, models
from objdisc_jax.data.synthetic import tetrominoes
from tests.conftest import small_config

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "new_model"
README = ROOT / "README.md"
PAGES = sorted({README, *ROOT.glob("docs/**/*.md")})
TEXTS = [
    *PAGES,
    *(ROOT / name for name in ("CONTRIBUTING.md", "RESULTS.md", "CHANGELOG.md")),
    *sorted(ROOT.glob("objdisc_jax/pretrained/*/README.md")),
    *sorted(ROOT.glob("examples/*/README.md")),
]
FILE = re.compile(r"# ([\w/]+\.py)\n")
"""The first line of a block that is a file of the example, or a part of one."""


def named(file):
    return str(file.relative_to(ROOT))


def blocks(page, language="python"):
    """The code blocks of a page in a language; of a notebook, its cells."""
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text())["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def prose(page):
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


# Python


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A working directory that has what the pages speak of: runs, weights, images."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "docs").symlink_to(ROOT / "docs")
    runs = {
        "demo": ("slot_attention", {}),
        "slate_tetrominoes": ("slate", {"vocab_size": 64}),
        "gnm_tetrominoes": ("gnm", {}),
    }
    for name, (model, own) in runs.items():
        config = small_config(model)
        config.model.update(own)
        torch.manual_seed(0)
        weights = interop.create(configs.to_dict(config)["model"]).state_dict()
        torch.save(weights, folder / "weights.pt")
        convert.from_torch(folder / "weights.pt", config, folder / "runs" / name)
    convert.to_torch(folder / "runs" / "demo", folder / "demo.pt")
    for name, pixels in zip(
        ("a", "b", "photo"), tetrominoes.generate(0, 0, 3)["image"], strict=True
    ):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def run_page(template, tmp_path, monkeypatch):
    """Runs the Python of a page in a directory of its own; returns what it defined."""
    folder = tmp_path / "work"
    shutil.copytree(template, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(EXAMPLE)

    def run(page):
        scope = {}
        for number, block in enumerate(blocks(page), 1):
            if not FILE.match(block):
                exec(compile(block, f"{named(page)}, block {number}", "exec"), scope)
        return scope

    return run


SHAPES = {
    "README.md": {"painted": (1, 64, 64, 3)},
    "docs/quickstart.md": {"some": (1, 64, 64, 3), "mixed": (1, 64, 64, 3)},
    "docs/pretrained.md": {"result.masks": (7, 64, 64)},
    "docs/evaluation.md": {"labels": (64, 64)},
    "docs/models/slate.md": {
        "some": (1, 16, 16, 3),
        "mixed": (1, 16, 16, 3),
        "sampled": (1, 16, 16, 3),
    },
    "docs/models/gnm.md": {"scenes": (2, 16, 16, 3), "nats": (1,)},
    "docs/pytorch.md": {"labels": (16, 16)},
    "docs/new_model.md": {"painted": (1, 32, 32, 3)},
    "docs/new_dataset.md": {"dataset.image_size": ()},
    "examples/quickstart.ipynb": {"painted": (3, 64, 64, 3), "strips": (4, 16, 16, 3)},
}
"""Shapes of what pages compute, by the page; every page with Python of its own is here."""


def test_every_page_with_python_is_run():
    wanted = {
        named(page)
        for page in PAGES
        if not all(FILE.match(block) for block in blocks(page)) and page.name != "explore.md"
    }
    assert wanted | {named(file) for file in ROOT.glob("examples/*.ipynb")} == SHAPES.keys()


@pytest.mark.parametrize("page", SHAPES)
def test_python_of_a_page_runs(page, run_page):
    scope = run_page(ROOT / page)
    for expression, shape in SHAPES[page].items():
        value = eval(expression, scope)
        assert tuple(getattr(value, "shape", ())) == shape, expression
    if page.endswith("gnm.md"):
        assert len(scope["result"].boxes) == scope["result"].count


def test_blocks_of_the_walk_throughs_are_the_files_of_the_example():
    found = {}
    for page in PAGES:
        for block in blocks(page):
            if match := FILE.match(block):
                found.setdefault(match[1], []).append(block[match.end() :].strip("\n"))
    assert {"patch_slots/model.py", "patch_slots/disks.py", "configs/disks.py"} <= found.keys()
    for name, parts in found.items():
        without_blank_lines = [line for part in parts for line in part.splitlines() if line]
        file = (EXAMPLE / name).read_text().splitlines()
        assert [line for line in file if line] == without_blank_lines, name


def test_example_has_an_experiment_that_passes_the_checks(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    config = runpy.run_path(str(EXAMPLE / "configs" / "disks.py"))["get_config"]()
    configs.check(config)


@pytest.mark.slow
def test_example_keeps_the_contracts():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(EXAMPLE), str(ROOT)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    subprocess.run(command, check=True, cwd=EXAMPLE, env=environment)


# Text


def test_readme_is_short_and_begins_with_two_commands():
    text = README.read_text()
    assert len(text.split()) <= 600
    assert "    make demo\n    make test\n" in text[:600]


def anchors(page):
    """The ids that headings of a page have, on the forge and on the site."""
    return {
        re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())
        for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    }


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{target}: there is no such file"
        if anchor:
            assert anchor in anchors(file), f"{target}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_code_blocks_say_what_they_are(page):
    opened = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)[::2]
    assert set(opened) <= {"python", "sh", "text"}


@pytest.mark.parametrize("name", models.names())
def test_settings_of_a_model_are_as_its_page_says(name):
    page = ROOT / "docs" / "models" / f"{name}.md"
    assert page.is_file(), "every model has a page"
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", page.read_text(), re.MULTILINE)
    assert rows
    defaults = dataclasses.asdict(models.settings_class(name)())
    for setting, default in rows:
        assert defaults[setting] == ast.literal_eval(default), setting


# Commands


def commands_of(page):
    """The commands in indented and ```sh blocks, in words, lines joined."""
    lines = re.findall(r"^    (.*)$", prose(page).replace("\\\n", " "), re.MULTILINE)
    for block in blocks(page, "sh"):
        lines += block.replace("\\\n", " ").splitlines()
    for line in lines:
        for part in re.split(r"&&|;|\|", line.split(" # ")[0]):
            if words := shlex.split(part):
                yield words


def entry_point(words):
    """The file that a command runs, and its arguments; None where it is none of ours."""
    for number, word in enumerate(words):
        name = words[number + 1] if word in ("-m", "objdisc") and words[number + 1 :] else ""
        if word == "objdisc" and number == 0:
            assert name in commands.COMMANDS, f"there is no `objdisc {name}`"
            name = f"objdisc_jax.{commands.COMMANDS[name].module}"
        if name.startswith(("objdisc_jax.", "patch_slots.")):
            folder = ROOT if name.startswith("objdisc_jax.") else EXAMPLE
            return folder / (name.replace(".", "/") + ".py"), words[number + 2 :]
        if re.fullmatch(r"(data_scripts|benchmarks)/\w+\.(py|sh)", word):
            return ROOT / word, words[number + 1 :]
    return None


@cache
def options(file):
    """The names of options that an entry point defines, with _ for -."""
    source = file.read_text()
    found = set(re.findall(r"""\(\s*f?"--([\w-]+)""", source))
    found |= set(re.findall(r"""DEFINE_\w+\(\s*"(\w+)\"""", source))
    shared = re.findall(r"^from (objdisc_jax[\w.]*) import .*\badd_\w+", source, re.MULTILINE)
    found |= {
        name for module in shared for name in options(ROOT / f"{module.replace('.', '/')}.py")
    }
    return {name.replace("-", "_") for name in found}


def config_of(arguments):
    """The experiment that arguments name, or None where it isn't one of configs/."""
    pairs = itertools.pairwise([*arguments, ""])
    named = [value for option, value in pairs if option == "--config"]
    file = ROOT / named[0] if named else None
    return runpy.run_path(str(file))["get_config"]() if file and file.is_file() else None


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_commands_have_options_that_exist(page):
    for words in commands_of(page):
        if (found := entry_point(words)) is None:
            continue
        file, arguments = found
        command = " ".join(words)
        assert file.is_file(), command
        if "--" in arguments:  # what launch passes on
            position = arguments.index("--")
            assert_known(ROOT / "objdisc_jax/main.py", arguments[position + 1 :], command)
            arguments = arguments[:position]
        assert_known(file, arguments, command)


def assert_known(file, arguments, command):
    for argument in arguments:
        if not argument.startswith("--"):
            continue
        option = argument[2:].split("=")[0]
        if option.startswith("config."):
            assert "config" in options(file), command
            if (config := config_of(arguments)) is not None:
                assert has_key(config, option.removeprefix("config.")), f"{command}: {argument}"
        else:
            assert option.replace("-", "_") in options(file), f"{command}: {argument}"


def has_key(config, key):
    for part in key.split("."):
        if not hasattr(config, "keys") or part not in config:
            return False
        config = config[part]
    return True


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_options_that_are_mentioned_exist(page):
    files = [*ROOT.glob("objdisc_jax/*.py"), *ROOT.glob("objdisc_jax/data/inspect.py")]
    files += [*ROOT.glob("data_scripts/*.py"), *ROOT.glob("benchmarks/*.py")]
    known = {name for file in files for name in options(file)} | {"help", "seed"}
    for option in re.findall(r"`--([a-z][\w-]*)(?![\w.-])[^`]*`", prose(page)):
        assert option.replace("-", "_") in known, f"--{option}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_configs_that_are_mentioned_exist(page):
    for file in re.findall(r"configs/\w+\.py", page.read_text()):
        assert (ROOT / file).is_file() or (EXAMPLE / file).is_file(), file


# Site


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("mkdocs", "material", "mkdocstrings"))),
    reason="needs mkdocs: pip install 'objdisc_jax[docs]'",
)
def test_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "models" / "slot_attention.html").is_file()
