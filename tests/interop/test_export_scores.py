"""What a trained run scores in JAX, its exported weights score in PyTorch."""

import importlib

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from objdisc_jax import config as configs
from objdisc_jax import convert, interop, metrics
from objdisc_jax.data import loader, splits
from objdisc_jax.data.synthetic import tetrominoes
from objdisc_jax.evaluation.runner import evaluation_noise
from objdisc_jax.models import base
from objdisc_jax.training import run_dir
from objdisc_jax.training.evaluate import evaluate
from objdisc_jax.training.loop import train

SPLITS = {"train": range(0, 640), "test": range(640, 960), "val": range(960, 1000)}


@pytest.mark.slow
def test_exported_run_scores_the_same_in_torch(tmp_path):
    file, workdir = tmp_path / "tetrominoes.h5", tmp_path / "run"
    with h5py.File(file, "w") as hdf5:
        for name, values in tetrominoes.generate(7, 0, 1000).items():
            hdf5.create_dataset(name, data=values)
        hdf5.attrs.update(splits.to_attributes(SPLITS))
    config = importlib.import_module("configs.demo").get_config()
    config.data.path = str(file)
    config.data.num_workers = 0
    config.num_train_steps = 1500
    config.eval.every = config.checkpoint.every = config.visualize.every = 1500
    train(config, workdir)
    expected = evaluate(workdir, split="test")
    assert expected.num_images == 320

    convert.to_torch(workdir, tmp_path / "weights.pt")
    model = interop.create(configs.to_dict(config)["model"])
    model.load_state_dict(torch.load(tmp_path / "weights.pt"))
    batch = loader.load(config.data, "test").read(np.arange(320))
    run = run_dir.abstract(config)
    noise = jax.jit(
        lambda index: evaluation_noise(
            base.merge(run.graphdef, run.state.params), config.seed, index
        )
    )(batch["index"].astype(np.int32))
    image = torch.from_numpy(batch["image"]).movedim(-1, 1) / 127.5 - 1.0
    with torch.no_grad():
        prediction = model(image, jax.tree.map(lambda x: torch.from_numpy(np.array(x)), noise))
    table = metrics.contingency_table(
        jnp.asarray(batch["segmentation"]),
        jnp.asarray(prediction.masks.argmax(1).numpy()),
        num_true=int(batch["segmentation"].max()) + 1,
        num_predicted=config.model.num_slots,
    )
    fg_ari = float(metrics.fg_adjusted_rand_index(table, (0,)).mean())
    print(f"FG-ARI after 1500 steps: {expected.means['fg_ari']:.5f} JAX, {fg_ari:.5f} PyTorch")
    assert fg_ari == pytest.approx(expected.means["fg_ari"], abs=1e-3)
    assert 0.05 < fg_ari < 1.0  # it has learnt something, so that agreement means something
