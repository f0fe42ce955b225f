"""Placeholder header."""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="tetrominoes")
    config.batch_size = 32
    config.num_train_steps = 20_000
    config.optimizer.learning_rate = 2e-3
    config.optimizer.b2 = 0.99
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 300
    config.schedule.decay_steps = 20_000
    config.eval.every = 2000
    config.checkpoint.every = 2000
    config.pictures.every = 4000
    config.data.num_workers = 0

    model = config.model
    model.resolution = (35, 35)
    model.num_slots = 4
    model.num_iterations = 5
    model.encoder_channels = (64, 64, 64)
    model.encoder_kernels = (5, 3, 3)
    model.encoder_strides = (5, 1, 1)
    model.encoder_residual = True
    model.encoder_norm = True
    model.position = "fourier"
    model.activation = "relu"
    model.decoder = "mlp"
    model.decoder_channels = (64, 64)
    model.decoder_lattice = 3
    model.num_frequencies = 12
    model.output = "tanh"
    model.separation = "uniform"
    model.separation_weight = 0.003
    model.separation_ramp = (4_000, 8_000)
    config.background.mode = "spread_out"
    return config
