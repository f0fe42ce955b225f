"""Slot Attention on 3D Shapes at 64x64, 3 slots: object, floor and wall.

    bash data_scripts/download_shapes3d.sh (or python data_scripts/render_shapes3d.py)
    objdisc train --config configs/sa_shapes3d.py

The published PyTorch code's model, for which 64x64 makes a decoder grid of 4x4. No masks: the best
checkpoint is the one with the smallest validation loss. Cost: 500,000 steps of batch 64; meant for
one GPU, not measured yet.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="shapes3d")
    config.model.resolution = (64, 64)
    config.model.num_slots = 3
    config.model.decoder_grid = (4, 4)
    return config
