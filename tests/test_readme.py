"""The README's Python runs as it stands there."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from objdisc_jax import config as configs
from objdisc_jax import convert, interop
from objdisc_jax.data.synthetic import tetrominoes
from tests.conftest import small_config

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.slow
def test_a_run_is_used_in_python_as_the_readme_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, own in (("slate", {"vocab_size": 64}), ("gnm", {})):
        config = small_config(name)
        config.model.update(own)
        weights = interop.create(configs.to_dict(config)["model"]).state_dict()
        torch.save(weights, "weights.pt")
        convert.from_torch(Path("weights.pt"), config, Path(f"runs/{name}_tetrominoes"))
    for name, pixels in zip("ab", tetrominoes.generate(0, 0, 2)["image"], strict=True):
        Image.fromarray(pixels).save(f"{name}.png")
    section = README.read_text().split("## Use a run in Python")[1].split("\n## ")[0]
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, scope)
    for name, batch in (("some", 1), ("sampled", 1), ("mixed", 1), ("scenes", 2)):
        assert scope[name].shape == (batch, 16, 16, 3)
        assert scope[name].min() >= 0
    assert len(scope["result"].boxes) == scope["result"].count
    assert scope["nats"].shape == (1,)
