"""The files of a run directory, by name, and how those that tell of it are read."""

import json
from pathlib import Path
from typing import Any

from objdisc_jax.errors import UserError

CONFIG = "config.json"
"""The experiment."""
FROZEN = "frozen.json"
"""Where the model's frozen parts come from, if it has any."""
ENVIRONMENT = "environment.json"
"""Versions and hardware."""
METRICS = "metrics.jsonl"
"""What was logged, a line for each time."""
CURVES = "curves.png"
"""Curves of it."""
VISUALIZATIONS = "visualizations"
"""A folder: panels of images."""
DIVERGED = "diverged.json"
"""The step at which training diverged, and its batch."""


def scores(split: str) -> str:
    """The file with the scores on a split."""
    return f"eval_{split}.json"


def read_json(file: Path) -> dict[str, Any]:
    """What a file of JSON holds; nothing if it is missing.

    Raises:
        UserError: it cannot be read.
    """
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}). Restore it, or remove it.") from error
    return found if isinstance(found, dict) else {}
