"""Slot Attention on patches, on coloured disks.

    python -m patch_slots.disks
    objdisc train --config configs/disks.py

Small enough for a CPU core. The 3,000 steps show that all parts work together: slots begin to
divide the image, and it takes more of them to find every disk.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="patch_slots.model", data="patch_slots.disks")
    config.batch_size = 32
    config.num_train_steps = 3_000
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 200
    config.schedule.decay_steps = 1.0
    config.eval.every = 500
    config.checkpoint.every = 500
    config.visualize.every = 1_000
    config.data.num_workers = 0
    config.background.mode = "low_confidence"
    return config
