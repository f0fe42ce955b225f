"""Slot Attention on Sketchy at 128x128, 10 slots.

    python data_scripts/process_sketchy.py --input EPISODES
    objdisc train --config configs/sa_sketchy.py

No masks: the best checkpoint is the one with the smallest validation loss. Cost: 500,000 steps of
batch 64; meant for one GPU, not measured yet.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="sketchy")
    config.data.num_workers = 8
    config.model.num_slots = 10
    return config
