"""The config keys of training and evaluation, with their defaults."""

from ml_collections import ConfigDict, config_dict


def default_config() -> ConfigDict:
    """Keys that every experiment has beside its `model` and `data` blocks.

    The optimiser's defaults are those of the published Slot Attention runs.
    """
    config = ConfigDict()
    config.seed = 0  # fixes initialisation, order of the data, and all noise
    config.batch_size = 64  # images an update, over all devices
    config.accumulate_steps = 1  # parts a batch is computed in, to save memory
    config.num_train_steps = 500_000  # updates

    config.optimizer = optimizer = ConfigDict()
    optimizer.name = "adam"  # adam | rmsprop
    optimizer.learning_rate = 4e-4  # the schedule multiplies it
    optimizer.b1 = 0.9  # adam: decay of the mean
    optimizer.b2 = 0.999  # adam, rmsprop: decay of the mean square
    optimizer.eps = 1e-8  # added to the root
    optimizer.clip_norm = config_dict.placeholder(float)  # largest gradient norm; None: any

    config.schedule = schedule = ConfigDict()
    schedule.name = "exponential"  # constant | exponential | cosine, each after the warm-up
    schedule.warmup_steps = 10_000  # steps of linear warm-up from 0
    schedule.decay_steps = 100_000  # exponential: steps to half; cosine: step at which it is 0

    config.log_every = 100  # steps between lines of metrics
    config.eval = evaluation = ConfigDict()
    evaluation.every = 10_000  # steps between validations
    evaluation.batch_size = 64  # images a batch; the scores don't depend on it
    evaluation.num_images = 320  # validation images; None: the whole split
    config.checkpoint = checkpoint = ConfigDict()
    checkpoint.every = 5_000  # steps between checkpoints, besides those at validations
    checkpoint.keep = 2  # the latest so many are kept, and the best
    config.pictures = pictures = ConfigDict()
    pictures.every = 10_000  # steps between panels of pictures
    pictures.num_images = 8  # validation images shown on them

    config.profile = profile = ConfigDict()
    profile.start = config_dict.placeholder(int)  # step at which a trace begins; None: no trace
    profile.steps = 10  # steps that it covers
    config.wandb = wandb = ConfigDict()
    wandb.enabled = False  # report to Weights & Biases too (extra "wandb")
    wandb.project = "objdisc_jax"
    wandb.mode = "online"  # online | offline
    return config


MUTABLE = (
    "num_train_steps",
    "log_every",
    "eval",
    "checkpoint",
    "pictures",
    "profile",
    "wandb",
    "data.num_workers",
    "data.path",
)
"""Keys, or blocks of them, that may change when a run is continued."""
