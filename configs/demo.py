"""Placeholder header."""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="tetrominoes")
    config.batch_size = 32
    config.num_train_steps = 25_000
    config.optimizer.learning_rate = 2e-3
    config.optimizer.b2 = 0.99
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 300
    config.schedule.decay_steps = 25_000
    config.eval.every = 2500
    config.checkpoint.every = 2500
    config.pictures.every = 5000
    config.data.num_workers = 0
    config.background.mode = "none"  # black costs no slot anything, so none has the background

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
    model.decoder_lattice = 3
    model.num_frequencies = 12
    model.output = "tanh"
    return config
