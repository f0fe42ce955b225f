"""Slot Attention on RAVENS at 128x128, 11 slots: up to eight objects, table, ground and robot.

    bash data_scripts/download_ravens.sh ARCHIVE
    objdisc train --config configs/sa_ravens.py

The middle of all three views; --config.data.crop=table is the table as seen from the front. Cost:
500,000 steps of batch 64; meant for one GPU, not measured yet. Repack badly chunked files first
(data_scripts/repack_hdf5.py): reading is many times faster.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="ravens")
    config.data.num_workers = 8
    config.model.num_slots = 11
    return config
