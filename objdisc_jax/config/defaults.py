"""The config keys beside the model's and the data set's: defaults, and what is allowed."""

import re
from typing import Any

from ml_collections import ConfigDict, config_dict

from objdisc_jax import segmentation
from objdisc_jax.data import datasets
from objdisc_jax.errors import ConfigError

SCHEDULES = ("constant", "exponential", "cosine")
REST = "rest"
"""The group of the parameters that are in no group of `optimizer.groups`."""


def default_config() -> ConfigDict:
    """Keys that every experiment has beside its `model` and `data` blocks.

    The defaults are those of the published Slot Attention runs.
    """
    config = ConfigDict()
    config.seed = 0  # fixes initialisation, order of the data, and all noise
    config.batch_size = 64  # images per update, over all devices
    config.num_microbatches = 1  # gradient accumulation: parts a batch is computed in
    config.num_train_steps = 500_000  # updates
    # A trained model whose parameters training begins with, as --pretrained names it; None: anew.
    config.pretrained = config_dict.placeholder(str)

    config.optimizer = optimizer = ConfigDict()
    optimizer.name = "adam"  # any of optax: adam, adamw, rmsprop, lion, contrib.muon, ...
    optimizer.learning_rate = 4e-4  # the schedule multiplies it
    # Its other keyword arguments; None is optax's default. A config file may add any it takes.
    optimizer.kwargs = kwargs = ConfigDict()
    kwargs.b1 = config_dict.placeholder(float)
    kwargs.b2 = config_dict.placeholder(float)
    kwargs.eps = config_dict.placeholder(float)
    kwargs.decay = config_dict.placeholder(float)
    kwargs.momentum = config_dict.placeholder(float)
    kwargs.nesterov = config_dict.placeholder(bool)
    optimizer.weight_decay = 0.0  # decoupled, for any optimiser; of parameters of two axes or more
    optimizer.clip_norm = config_dict.placeholder(float)  # largest gradient norm; None: any
    # Groups of parameters that are trained otherwise: blocks of `group_config`, by any name.
    optimizer.groups = ConfigDict()
    # Decay of a moving average of the parameters, which is what is evaluated, shown and exported.
    optimizer.ema_decay = config_dict.placeholder(float)

    # Steps above 1 are steps, up to 1 they are a share of num_train_steps.
    config.schedule = schedule = ConfigDict()
    schedule.name = "exponential"  # constant | exponential | cosine, each after the warm-up
    schedule.warmup_steps = 0.02  # linear warm-up
    schedule.warmup_offset = 0  # the first rate is this / warmup_steps of the full one: 0 or 1
    schedule.decay_steps = 0.2  # exponential: until half; cosine: until 0

    config.plateau = plateau = ConfigDict()  # lower rates when validation gets no better
    plateau.enabled = False
    plateau.factor = 0.5  # what the rates are multiplied by
    plateau.patience = 4  # validations in a row that may be no better before that
    plateau.threshold = 1e-4  # relative gain of the validation loss that counts as better

    config.log_every = 100  # steps between lines of metrics
    config.compilation_cache = True  # keep compiled programs in ~/.cache/objdisc_jax
    # What is scored: files in objdisc_jax/evaluation/evaluators, or modules elsewhere by their
    # dotted paths.
    # One that needs a field which the data set lacks is left out.
    config.evals = ("segmentation", "counting", "reconstruction")
    config.eval = evaluation = ConfigDict()
    evaluation.every = 10_000  # steps between validations
    evaluation.batch_size = 64  # images per batch; the scores don't depend on it
    evaluation.num_images = 320  # validation images; None: the whole split
    evaluation.expensive_metrics = False  # in every validation, not only at the end
    config.checkpoint = checkpoint = ConfigDict()
    checkpoint.every = 5_000  # steps between checkpoints, besides those at validations
    checkpoint.keep = 2  # the latest so many are kept, and the best
    # Which is the best: "max METRIC" or "min METRIC" of the validations. None: "max fg_ari", or
    # "min loss" where the data has no masks.
    checkpoint.best = config_dict.placeholder(str)
    config.visualize = visualize = ConfigDict()
    visualize.every = 10_000  # steps between panels of images
    visualize.num_images = 8  # validation images shown on them

    config.background = background = ConfigDict()
    # How background is told from objects, where the model doesn't do so itself: none |
    # low_confidence (pixels where every mask is low) | contrast (pixels that the other slots would
    # paint alike) | largest_segment (the slot that reaches furthest) | both (the first and the
    # last). ARI, mIoU and mBO count pixels of low confidence or contrast as a segment; FG-ARI is
    # always that of the masks.
    background.mode = "largest_segment"
    background.region = "hull_area"  # how far a slot reaches: hull_area | hull_diameter
    background.threshold = 0.5  # below it every mask of low_confidence is
    background.min_contrast = 0.1  # below it the background of contrast is; 1 is black on white

    config.profile = profile = ConfigDict()
    profile.start = config_dict.placeholder(int)  # step at which a trace begins; None: no trace
    profile.steps = 10  # steps that it covers
    config.wandb = wandb = ConfigDict()
    wandb.enabled = False  # report to Weights & Biases too (extra "wandb")
    wandb.project = "objdisc_jax"
    wandb.mode = "online"  # online | offline
    return config


def group_config(
    pattern: str, *, multiplier: float = 1.0, schedule: str | None = None, **keys: float
) -> ConfigDict:
    """A block of `optimizer.groups`.

    Args:
        pattern: regular expression that matches the whole paths of the parameters, as in
            "decoder/.*/bias". A parameter is in one group at most.
        multiplier: of the learning rate; 0 freezes: no update, no state of the optimiser.
        schedule: name of a schedule of their own, without warm-up unless `keys` says so; None is
            that of the rest.
        **keys: the schedule's other keys.
    """
    config = ConfigDict()
    config.pattern = pattern
    config.multiplier = multiplier
    config.decay_multiplier = 1.0  # of weight_decay
    config.schedule = block = ConfigDict()
    block.name = config_dict.placeholder(str)
    block.warmup_steps = 0.0
    block.warmup_offset = 0
    block.decay_steps = 0.2
    block.update(name=schedule, **keys)
    return config


OPEN = ("kwargs", "groups")
"""Blocks of `optimizer` that may have keys of any name."""

MUTABLE = (
    "num_train_steps",
    "log_every",
    "compilation_cache",
    "evals",
    "eval",
    "checkpoint.every",
    "checkpoint.keep",
    "visualize",
    "background",
    "profile",
    "wandb",
    "data.num_workers",
    "data.path",
    "data.features",
    "data.on_bad_image",
    "data.max_pixels",
)
"""Keys, or blocks of them, that may change when a run is continued."""

_AT_LEAST_ONE = (
    "batch_size",
    "num_microbatches",
    "num_train_steps",
    "log_every",
    "eval.every",
    "eval.batch_size",
    "eval.num_images",
    "checkpoint.every",
    "checkpoint.keep",
    "visualize.every",
    "visualize.num_images",
    "profile.start",
    "profile.steps",
    "data.num_test_images",
)
_AT_LEAST_ZERO = (
    "seed",
    "optimizer.learning_rate",
    "optimizer.clip_norm",
    "optimizer.weight_decay",
    "plateau.patience",
    "plateau.threshold",
    "data.num_workers",
)
_BETWEEN_ZERO_AND_ONE = (
    "background.threshold",
    "background.min_contrast",
    "plateau.factor",
    "optimizer.ema_decay",
)


def check(config: ConfigDict) -> None:
    """Checks the settings that would otherwise fail late or silently.

    Raises:
        ConfigError: a setting is out of its range; names it and the range.
    """
    needed = datasets.get(config.data.name).default_config().keys()
    if missing := set(needed) - set(config.data.keys()):
        raise ConfigError(
            f"data.name: the data set {config.data.name!r} needs {', '.join(sorted(missing))} in "
            f"the `data` block. Compose it with experiment(data={config.data.name!r})."
        )
    schedules = {"schedule": config.schedule}
    for name, group in config.optimizer.groups.items():
        _check_group(f"optimizer.groups.{name}", group)
        schedules[f"optimizer.groups.{name}.schedule"] = group.schedule
        _refuse_below(0, f"optimizer.groups.{name}.multiplier", group.multiplier)
        _refuse_below(0, f"optimizer.groups.{name}.decay_multiplier", group.decay_multiplier)
    for key, schedule in schedules.items():
        allowed = SCHEDULES if key == "schedule" else (None, *SCHEDULES)
        _check_choice(f"{key}.name", schedule.name, allowed)
        for name in ("warmup_steps", "warmup_offset"):
            _refuse_below(0, f"{key}.{name}", schedule[name])
        if schedule.decay_steps <= 0:
            raise ConfigError(f"{key}.decay_steps: got {schedule.decay_steps}; it is above 0.")
    for keys, least in ((_AT_LEAST_ONE, 1), (_AT_LEAST_ZERO, 0)):
        for key in keys:
            _refuse_below(least, key, _value(config, key))
    if config.seed >= 2**32:
        raise ConfigError(f"seed: got {config.seed}; it must be less than 2^32.")
    for key in _BETWEEN_ZERO_AND_ONE:
        value = _value(config, key)
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"{key}: got {value}; it lies between 0 and 1.")
    best = config.checkpoint.best
    if best is not None and (len(best.split()) != 2 or best.split()[0] not in ("max", "min")):
        raise ConfigError(
            f"checkpoint.best: got {best!r}; it is a direction and a metric, such as 'max fg_ari' "
            "or 'min loss'."
        )
    _check_choice("background.mode", config.background.mode, segmentation.MODES)
    _check_choice("background.region", config.background.region, segmentation.REGIONS)
    _check_choice("wandb.mode", config.wandb.mode, ("online", "offline"))


def _check_group(name: str, group: Any) -> None:
    """Refuses what `group_config` does not make, or only by mistake."""
    if name.endswith(f".{REST}"):
        raise ConfigError(f"{name}: this name is for what no group matches; choose another.")
    wanted = group_config("")
    for key, like in ((name, wanted), (f"{name}.schedule", wanted.schedule)):
        block = group if key == name else group.schedule
        found = set(block.keys()) if isinstance(block, ConfigDict) else set()
        if wrong := found.symmetric_difference(like.keys()):
            raise ConfigError(
                f"{key}: {', '.join(sorted(wrong))} is missing, or no key of it; it has "
                f"{', '.join(like.keys())}. Make the group with objdisc_jax.config.group_config."
            )
    unused = [key for key, value in wanted.schedule.items() if group.schedule[key] != value]
    if group.schedule.name is None and unused:
        raise ConfigError(f"{name}.schedule.name: is None, so {', '.join(unused)} would be unused.")
    try:
        re.compile(group.pattern)
    except re.error as error:
        raise ConfigError(
            f"{name}.pattern: {group.pattern!r} is no regular expression ({error})."
        ) from error


def _value(config: ConfigDict, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def _refuse_below(least: float, key: str, value: float | None) -> None:
    if value is not None and value < least:
        raise ConfigError(f"{key}: got {value}; it must be at least {least}.")


def _check_choice(key: str, value: str | None, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key}: got {value!r}; allowed are {', '.join(map(str, allowed))}.")
