"""Slot Attention on Tetrominoes, small enough to train on two CPU cores in minutes.

    make demo

or, with the data of data_scripts/generate_tetrominoes.py in place,

    objdisc train --config configs/demo.py

RESULTS.md has times and scores. Four slots; five iterations of attention, a sixth with gradient.
What makes it quick: a strided encoder that leaves 49 positions, and a decoder that treats pixels
one by one and is trained on every third row and column. What makes it good: residual convolutions,
and position features fine enough for the pieces' edges. Clipping allows the high learning rate.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="tetrominoes")
    config.batch_size = 32
    config.num_train_steps = 25_000
    config.optimizer.learning_rate = 2e-3
    config.optimizer.kwargs.b2 = 0.99
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 300
    config.schedule.decay_steps = 1.0
    config.eval.every = 2500
    config.checkpoint.every = 2500
    config.visualize.every = 5000
    config.data.num_workers = 0
    config.background.mode = "contrast"  # black costs no slot anything, and all slots paint it

    model = config.model
    model.resolution = (35, 35)
    model.num_slots = 4
    model.num_iterations = 5
    model.encoder_channels = (64, 64, 64)
    model.encoder_kernels = (5, 3, 3)
    model.encoder_strides = (5, 1, 1)
    model.encoder_residual = True
    model.encoder_norm = True
    model.encoder_init = "kaiming"
    model.position = "fourier"
    model.activation = "relu"
    model.decoder = "mlp"
    model.decoder_channels = (64, 64)
    model.pixel_stride = 3
    model.num_frequencies = 12
    model.output = "tanh"
    return config
