"""Slot Attention on BoxWorld at 128x128 with the published regularisers, 10 slots.

    objdisc train --config configs/sa_boxworld.py --config.data.path=boxworld.h5

Key and lock, side by side, are one object of twice the area of a cell (9 pixels square). Between
the steps 60,000 and 65,000 the masks are pushed to be hard (entropy, weight 0.003) and of that area
(weight 0.006). Cost: 500,000 steps of batch 64; meant for one GPU, not measured yet.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="boxworld")
    config.data.num_workers = 4
    model = config.model
    model.num_slots = 10
    model.separation = "entropy"
    model.separation_weight = 0.003
    model.separation_ramp = (60_000, 65_000)
    model.area_weight = 0.006
    model.area_ramp = (60_000, 65_000)
    model.area_of_object = 81
    return config
