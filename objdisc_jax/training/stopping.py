"""Requests to stop: what SIGTERM and Ctrl-C are to the training loop."""

import contextlib
import signal
from collections.abc import Iterator


class StopRequest:
    """Whether this process was asked to stop.

    Attributes:
        made: whether it was.
    """

    made = False


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
