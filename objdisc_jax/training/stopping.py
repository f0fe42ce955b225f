"""Requests to stop: what SIGTERM and Ctrl-C are to the training loop."""

import contextlib
import signal
import time
from collections.abc import Iterator

from absl import logging

NOTICE_SECONDS = 1.0
"""How much sooner than this process others around it may be told to end."""


class StopRequest:
    """Whether this process was asked to stop.

    Attributes:
        made: whether it was.
    """

    made = False

    def wait(self, seconds: float) -> bool:
        """Whether this process is asked to stop within so many seconds."""
        deadline = time.monotonic() + seconds
        while not self.made and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.made

    @contextlib.contextmanager
    def excuses_errors(self, but: type[Exception]) -> Iterator[None]:
        """Makes an error in the block a warning where this process is asked to stop.

        Whatever else a scheduler ends around the training loop, the run can save what it has.

        Args:
            but: errors that are raised nevertheless.
        """
        try:
            yield
        except but:
            raise
        except Exception as error:
            if not self.wait(NOTICE_SECONDS):
                raise
            logging.warning("Asked to stop, and then: %s: %s", type(error).__name__, error)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turns SIGTERM and SIGINT into a request that the loop grants at its next step."""
    request = StopRequest()

    def make(signum: int, frame: object) -> None:
        del signum, frame
        request.made = True

    before = {s: signal.signal(s, make) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
