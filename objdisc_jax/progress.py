"""Progress of long work: a bar on a terminal, a line every half minute elsewhere."""

import time
from typing import TypeVar

from absl import logging
from tqdm import tqdm

Own = TypeVar("Own")
LOG_SECONDS = 30.0
"""Between two lines, where there is no terminal."""


class Progress:
    """Tells how far work has come, while its context lasts.

    Args:
        total: how much there is to do.
        unit: what is counted, in the plural.
        what: what is done, in front of the bar or the line.
        begun: how much of it was done before.
        is_shown: whether to tell anything.
        has_lines: whether there are lines where there is no terminal.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        what: str = "",
        *,
        begun: int = 0,
        is_shown: bool = True,
        has_lines: bool = True,
    ):
        self._bar = tqdm(
            total=total,
            initial=begun,
            desc=what or None,
            unit=f" {unit}",
            leave=False,
            disable=None if is_shown else True,
        )
        self._has_lines = is_shown and has_lines and self._bar.disable
        self._prefix, self._unit = what and f"{what}: ", unit
        self._total, self._begun, self._done = total, begun, begun
        self._start = self._told = time.monotonic()

    def update(self, count: int = 1) -> None:
        """Tells of more that was done, of what is left at most."""
        count = min(count, self._total - self._done)
        self._bar.update(count)
        self._done += count
        now = time.monotonic()
        if self._has_lines and now - self._told >= LOG_SECONDS:
            self._told = now
            speed = (self._done - self._begun) / (now - self._start)
            left = tqdm.format_interval((self._total - self._done) / speed)
            logging.info(
                "%s%d of %d %s, %.1f %s/s, %s left.",
                *(self._prefix, self._done, self._total, self._unit, speed, self._unit, left),
            )

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.close()

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
