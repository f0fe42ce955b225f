"""Trial."""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slate", data="tetrominoes")
    config.batch_size = 32
    config.num_train_steps = 8_000
    config.optimizer.learning_rate = 3e-4
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "constant"
    config.schedule.warmup_steps = 1000
    config.schedule.warmup_offset = 1
    config.optimizer.groups.dvae.learning_rate = 1e-3
    config.optimizer.groups.dvae.schedule.name = "constant"
    config.log_every = 100
    config.eval.every = 1000
    config.checkpoint.every = 1000
    config.pictures.every = 2000
    config.data.num_workers = 0
    config.background.mode = "none"

    model = config.model
    model.resolution = (32, 32)
    model.num_slots = 4
    model.slot_size = 64
    model.mlp_hidden_size = 64
    model.vocab_size = 128
    model.d_model = 64
    model.num_heads = 4
    model.num_decoder_blocks = 3
    model.temperature_steps = 2_000
    model.rematerialize = False
    return config
