"""Slot Attention on CLEVR6 at 64x64, small enough to train on two CPU cores in twenty minutes.

    python data_scripts/render_clevr.py --max-objects 6 --num-images 16000 --resolution 120 160 \
        --output data/clevr6_120x160.h5
    JAX_NUM_CPU_DEVICES=2 objdisc train --config configs/sa_clevr6_cpu.py

The model is that of configs/demo.py with seven slots: a strided encoder that leaves 256 positions,
and a decoder that treats pixels one by one and is trained on every fourth row and column. Two
devices, which share each batch, are faster than two threads. RESULTS.md has times and scores.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="clevr_with_masks")
    config.data.path = "data/clevr6_120x160.h5"
    config.data.image_size = (120, 160)
    config.data.max_objects = 6
    config.data.num_workers = 1
    config.batch_size = 32
    config.num_train_steps = 10_000
    config.optimizer.learning_rate = 1e-3
    config.optimizer.kwargs.b2 = 0.99
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 500
    config.schedule.decay_steps = 1.0
    config.eval.every = 1000
    config.checkpoint.every = 1000
    config.visualize.every = 2000
    config.background.mode = "low_confidence"  # all slots share the background, none claims it
    config.background.threshold = 0.6

    model = config.model
    model.resolution = (64, 64)
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
