"""The config keys beside the model's and the data set's: defaults, and what is allowed."""

from typing import Any

from ml_collections import ConfigDict, config_dict

from objdisc_jax import segmentation
from objdisc_jax.errors import ConfigError

OPTIMIZERS = ("adam", "rmsprop")
SCHEDULES = ("constant", "exponential", "cosine")


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
    optimizer.groups = ConfigDict()  # rates of groups of parameters, where the model has some

    config.schedule = schedule = ConfigDict()
    schedule.name = "exponential"  # constant | exponential | cosine, each after the warm-up
    schedule.warmup_steps = 10_000  # steps of linear warm-up
    schedule.warmup_offset = 0  # the first rate is this / warmup_steps of the full one: 0 or 1
    schedule.decay_steps = 100_000  # exponential: steps to half; cosine: step at which it is 0

    config.plateau = plateau = ConfigDict()  # lower rates when validation gets no better
    plateau.enabled = False
    plateau.factor = 0.5  # what the rates are multiplied by
    plateau.patience = 4  # validations in a row that may be no better before that
    plateau.threshold = 1e-4  # relative gain of the validation loss that counts as better

    config.log_every = 100  # steps between lines of metrics
    config.eval = evaluation = ConfigDict()
    evaluation.every = 10_000  # steps between validations
    evaluation.batch_size = 64  # images a batch; the scores don't depend on it
    evaluation.num_images = 320  # validation images; None: the whole split
    evaluation.slow_scores = False  # scores that take long in every validation, not only at the end
    config.checkpoint = checkpoint = ConfigDict()
    checkpoint.every = 5_000  # steps between checkpoints, besides those at validations
    checkpoint.keep = 2  # the latest so many are kept, and the best
    config.pictures = pictures = ConfigDict()
    pictures.every = 10_000  # steps between panels of pictures
    pictures.num_images = 8  # validation images shown on them

    config.background = background = ConfigDict()
    # How background is told from objects, where the model doesn't do so itself: none | spread_out
    # (pixels that no slot claims) | concentrated (the slot that reaches furthest) | both. ARI, mIoU
    # and mBO count the pixels that no slot claims as a segment; FG-ARI is always that of the masks.
    background.mode = "concentrated"
    background.region = "area"  # what "furthest" compares: area | distance
    background.threshold = 0.5  # the claim that spread_out asks for

    config.profile = profile = ConfigDict()
    profile.start = config_dict.placeholder(int)  # step at which a trace begins; None: no trace
    profile.steps = 10  # steps that it covers
    config.wandb = wandb = ConfigDict()
    wandb.enabled = False  # report to Weights & Biases too (extra "wandb")
    wandb.project = "objdisc_jax"
    wandb.mode = "online"  # online | offline
    return config


def group_config() -> ConfigDict:
    """The keys of a group of parameters in `optimizer.groups`."""
    config = ConfigDict()
    config.learning_rate = config_dict.placeholder(float)  # None: as for the rest
    config.schedule = schedule = ConfigDict()
    schedule.name = config_dict.placeholder(str)  # as in the schedule block; None: as for the rest
    schedule.warmup_steps = 0
    schedule.warmup_offset = 0
    schedule.decay_steps = 100_000
    return config


MUTABLE = (
    "num_train_steps",
    "log_every",
    "eval",
    "checkpoint",
    "pictures",
    "background",
    "profile",
    "wandb",
    "data.num_workers",
    "data.path",
    "data.on_bad_image",
)
"""Keys, or blocks of them, that may change when a run is continued."""

_AT_LEAST_ONE = (
    "batch_size",
    "num_train_steps",
    "log_every",
    "eval.every",
    "eval.batch_size",
    "eval.num_images",
    "checkpoint.every",
    "checkpoint.keep",
    "pictures.every",
    "pictures.num_images",
    "profile.start",
    "profile.steps",
    "schedule.decay_steps",
    "data.num_test_images",
)
_AT_LEAST_ZERO = (
    "seed",
    "schedule.warmup_steps",
    "schedule.warmup_offset",
    "plateau.patience",
    "plateau.threshold",
    "data.num_workers",
)


def check(config: ConfigDict) -> None:
    """Checks the settings that would otherwise fail late or silently.

    Raises:
        ConfigError: a setting is out of its range; names it and the range.
    """
    groups = [f"optimizer.groups.{name}.schedule" for name in config.optimizer.groups]
    at_least_one = (*_AT_LEAST_ONE, *(f"{name}.decay_steps" for name in groups))
    at_least_zero = (
        *_AT_LEAST_ZERO,
        *(f"{name}.{key}" for name in groups for key in ("warmup_steps", "warmup_offset")),
    )
    for keys, least in ((at_least_one, 1), (at_least_zero, 0)):
        for key in keys:
            value: Any = config
            for part in key.split("."):
                value = value[part]
            if value is not None and value < least:
                raise ConfigError(f"{key}: got {value}; it must be at least {least}.")
    if config.seed >= 2**32:
        raise ConfigError(f"seed: got {config.seed}; it must be less than 2^32.")
    if not 0 <= config.background.threshold <= 1:
        raise ConfigError(
            f"background.threshold: got {config.background.threshold}; it lies between 0 and 1."
        )
    if not 0 < config.plateau.factor < 1:
        raise ConfigError(f"plateau.factor: got {config.plateau.factor}; it lies between 0 and 1.")
    for key, value, allowed in (
        ("background.mode", config.background.mode, segmentation.MODES),
        ("background.region", config.background.region, segmentation.REGIONS),
        ("optimizer.name", config.optimizer.name, OPTIMIZERS),
        ("schedule.name", config.schedule.name, SCHEDULES),
        ("wandb.mode", config.wandb.mode, ("online", "offline")),
        *(
            (f"optimizer.groups.{name}.schedule.name", group.schedule.name, (None, *SCHEDULES))
            for name, group in config.optimizer.groups.items()
        ),
    ):
        if value not in allowed:
            raise ConfigError(f"{key}: got {value!r}; allowed are {', '.join(map(str, allowed))}.")
