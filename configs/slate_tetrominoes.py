"""SLATE on Tetrominoes at 32x32, small enough to train on a CPU.

    python data_scripts/generate_tetrominoes.py
    objdisc train --config configs/slate_tetrominoes.py

Four slots, 64 tokens an image out of a vocabulary of 128, a transformer of three blocks. The
learning rates are higher than the published ones, and the temperature falls within 2,000 steps.
Masks are the attention of 8x8 tokens, so that no score can tell the pieces' edges exactly. Cost: 17
minutes on one core. Expect an FG-ARI of 0.4 to 0.73, depending on the seed, and a dVAE whose error
is 0.004 per pixel and channel (RESULTS.md).
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slate", data="tetrominoes")
    config.batch_size = 32
    config.num_train_steps = 6_000
    config.optimizer.learning_rate = 1e-3
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 500
    config.schedule.decay_steps = 1.0
    config.optimizer.groups.dvae.multiplier = 1.0
    config.eval.every = 500
    config.checkpoint.every = 500
    config.visualize.every = 2_000
    config.data.num_workers = 0
    config.background.mode = "none"  # black costs no slot anything, so none has the background

    model = config.model
    model.resolution = (32, 32)
    model.num_slots = 4
    model.slot_size = 64
    model.mlp_hidden_size = 64
    model.vocab_size = 128
    model.dvae_features = 32
    model.d_model = 64
    model.num_heads = 4
    model.num_decoder_blocks = 3
    model.temperature_steps = 2_000
    model.rematerialize = False
    return config
