"""Slot Attention on the images of CLEVR v1.0 (no masks) at 128x128, 11 slots.

    bash data_scripts/download_clevr.sh
    objdisc train --config configs/sa_clevr_v1.py

The crop shows the region that CLEVR with masks shows; the best checkpoint is the one with the
smallest validation loss. Cost: 500,000 steps of batch 64; meant for one GPU, not measured yet. To
score the weights on a set with masks:

    objdisc eval --config configs/sa_clevr10.py --workdir runs/sa_clevr_v1
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="clevr_v1")
    config.data.num_workers = 8
    config.model.num_slots = 11
    return config
