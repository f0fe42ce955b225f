"""What all tests share: four simulated devices, a small data set, a small experiment."""

import os
import tempfile

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")  # none is broadcast to more axes unseen
# Most of the time goes into compiling the same functions in many tests and processes.
CACHE = os.path.join(tempfile.gettempdir(), f"objdisc_jax_tests_{os.getuid()}")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# What is found out about data files is cached, too; not among the user's own.
USER_CACHE = tempfile.TemporaryDirectory(prefix="objdisc_jax_tests_")
os.environ["XDG_CACHE_HOME"] = USER_CACHE.name

import h5py
import jax
import pytest
from jaxtyping import install_import_hook

import tests.typechecker

# Annotations of shapes and types are checked whenever a function of ours is called.
install_import_hook("objdisc_jax", f"{tests.typechecker.__name__}.check")

from objdisc_jax import models
from objdisc_jax.config import experiment, model_block
from objdisc_jax.data import splits
from objdisc_jax.data.synthetic import tetrominoes

NUM_IMAGES = 160
SPLITS = {"train": range(0, 64), "test": range(64, 112), "val": range(112, 160)}


@pytest.fixture(scope="module", autouse=True)
def _forgotten_programs():
    """Compiled programs of a module are of little use to the next, and take gigabytes together."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def tetrominoes_file(tmp_path_factory):
    """A Tetrominoes file of 160 images: 64 train, 48 test, 48 val."""
    file = tmp_path_factory.mktemp("data") / "tetrominoes.h5"
    records = tetrominoes.generate(7, 0, NUM_IMAGES)
    with h5py.File(file, "w") as hdf5:
        for name, values in records.items():
            hdf5.create_dataset(name, data=values)
        hdf5.attrs.update(splits.to_attributes(SPLITS))
    return file


@pytest.fixture
def tiny(tetrominoes_file):
    """An experiment that trains twelve steps in a few seconds."""
    return tiny_experiment(tetrominoes_file)


def tiny_experiment(data_file):
    config = experiment(model="slot_attention", data="tetrominoes")
    config.data.path = str(data_file)
    config.data.num_workers = 0
    config.batch_size = 8
    config.num_train_steps = 12
    config.log_every = 2
    config.eval.every = 6
    config.eval.batch_size = 16
    config.checkpoint.every = 4
    config.visualize.every = 12
    config.visualize.num_images = 2
    config.optimizer.learning_rate = 1e-3
    config.schedule.name = "constant"
    config.schedule.warmup_steps = 2
    config.model.update(
        resolution=(35, 35),
        num_slots=3,
        slot_size=8,
        num_iterations=1,
        mlp_hidden_size=8,
        encoder_channels=(8,),
        encoder_kernels=(5,),
        encoder_strides=(5,),
        encoder_norm=True,
        position="fourier",
        num_frequencies=4,
        decoder="mlp",
        decoder_channels=(8,),
        pixel_stride=3,
        output="tanh",
    )
    return config.lock()


def small_config(model):
    """The experiment of a small model on Tetrominoes."""
    config = experiment(model=model, data="tetrominoes")
    config.model = model_block(model, models.settings_class(model).small())
    return config
