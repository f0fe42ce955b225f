"""Draws what every pretrained model finds into docs/gallery: python docs/gallery.py.

The images are made by the command that the model's card names, with another seed.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from objdisc_jax import config as configs
from objdisc_jax import pretrained
from objdisc_jax.evaluation.runner import Scores
from objdisc_jax.training import evaluate

ROOT = Path(__file__).parents[1]
SEED = 99
NUM_SHOWN = 8


def main() -> None:
    """Draws a JPEG of each model."""
    folder = ROOT / "docs" / "gallery"
    folder.mkdir(exist_ok=True)
    for name in pretrained.names():
        with tempfile.TemporaryDirectory() as scratch:
            score(name, Path(scratch), num_images=2 * NUM_SHOWN, seed=SEED)
            (panel,) = Path(scratch).rglob("*.png")
            Image.open(panel).save(folder / f"{name}.jpg", quality=88)


def score(name: str, output: Path, *, num_images: int, seed: int) -> Scores:
    """Makes data as a model's card says, and scores the model on it; the panel is drawn, too.

    Args:
        name: of a model that comes along.
        output: the folder to write to.
        num_images: how many are made; those of the training split, two in three, are scored.
        seed: of the data.
    """
    folder = pretrained.find(name)
    card = json.loads((folder / "scores.json").read_text())
    program, *command = shlex.split(card["data"]["command"])
    assert program == "python", command
    data = output / "data.h5"
    made = ["--num-images", str(num_images), "--seed", str(seed), "--output", str(data)]
    subprocess.run([sys.executable, *command, *made], check=True, cwd=ROOT)
    config = configs.load(folder)
    config.data.path, config.data.num_workers = str(data), 0
    config.visualize.num_images = NUM_SHOWN
    return evaluate.evaluate(folder, config=config, split="train", output=output)


if __name__ == "__main__":
    main()
