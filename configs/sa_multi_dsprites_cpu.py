"""Slot Attention on Multi-dSprites at 64x64, small enough to train on two CPU cores.

    python data_scripts/generate_multi_dsprites.py
    JAX_NUM_CPU_DEVICES=2 objdisc train --config configs/sa_multi_dsprites_cpu.py

The model is that of configs/sa_clevr6_cpu.py with six slots.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="multi_dsprites")
    config.data.num_workers = 0
    config.batch_size = 32
    config.num_train_steps = 16_000
    config.optimizer.learning_rate = 1e-3
    config.optimizer.kwargs.b2 = 0.99
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 500
    config.schedule.decay_steps = 1.0
    config.eval.every = 1000
    config.checkpoint.every = 1000
    config.visualize.every = 2000

    model = config.model
    model.resolution = (64, 64)
    model.num_slots = 6
    model.encoder_channels = (64, 64, 64, 64)
    model.encoder_kernels = (4, 3, 3, 3)
    model.encoder_strides = (4, 1, 1, 1)
    model.encoder_residual = True
    model.encoder_norm = True
    model.encoder_init = "kaiming"
    model.position = "fourier"
    model.activation = "relu"
    model.decoder = "mlp"
    model.decoder_channels = (64, 64, 64)
    model.pixel_stride = 4
    return config
