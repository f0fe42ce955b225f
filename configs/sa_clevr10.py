"""Slot Attention on all of CLEVR with masks (3 to 10 objects) at 128x128, 11 slots.

    objdisc train --config configs/sa_clevr10.py --config.data.path=clevr_with_masks.h5

Otherwise as configs/sa_clevr6.py. Cost: 500,000 steps of batch 64 on a GPU; not measured yet. Also
the config with which weights trained on CLEVR6 are scored on CLEVR10.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="clevr_with_masks")
    config.data.num_workers = 4
    config.model.num_slots = 11
    return config
