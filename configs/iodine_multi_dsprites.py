"""IODINE on Multi-dSprites at 64x64 with the official settings.

    python data_scripts/generate_multi_dsprites.py
    objdisc train --config configs/iodine_multi_dsprites.py

(or the published data: see configs/sa_multi_dsprites.py). Cost: 1,000,000 steps of batch 128; meant
for GPUs, not measured yet. The paper reports an FG-ARI of 76.7 %. The learning rate goes with the
root of the batch: 3e-4 times √(batch_size / 128).
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="iodine", data="multi_dsprites")
    config.batch_size = 128
    config.optimizer.learning_rate = 3e-4
    model = config.model
    model.resolution = (64, 64)
    model.num_slots = 6
    model.slot_size = 16
    model.gradient_scale = 1 / 16
    model.decoder_channels = (32, 32, 32, 32)
    model.decoder_kernel = 5
    model.encoder_channels = (32, 32, 32)
    model.encoder_kernel = 5
    model.mlp_sizes = (128,)
    model.lstm_size = 128
    model.coordinates = "cosine"
    return config
