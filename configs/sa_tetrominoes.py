"""Slot Attention on Tetrominoes at 35x35 as in the 2020 paper (arXiv 2006.15055, appendix).

    python data_scripts/generate_tetrominoes.py
    objdisc train --config configs/sa_tetrominoes.py

Cost: 500,000 steps of batch 64; meant for one GPU, not measured yet. The paper reports an FG-ARI of
99.5 % on the 320 test images. configs/demo.py is the variant that trains on a CPU in minutes.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="tetrominoes")
    model = config.model
    model.resolution = (35, 35)
    model.num_slots = 4
    model.gradient = "unrolled"
    model.encoder_channels = (32, 32, 32, 32)
    model.encoder_norm = True
    model.activation = "relu"
    model.decoder_channels = (32, 32, 32)
    model.decoder_strides = (1, 1, 1)
    model.decoder_grid = (35, 35)
    return config
