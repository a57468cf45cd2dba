"""Waiting, with a deadline and without a fixed sleep."""

import os
import time
from collections.abc import Callable, Iterator

SLOWDOWN = float(os.environ.get("SLOWDOWN", "1"))
"""Multiplies every timeout: an emulated machine is slow, a loaded one slower."""

_PAUSE = 0.002


class Timeout(AssertionError):
    """What was waited for did not come."""


def ticks(what: str, seconds: float = 5.0) -> Iterator[None]:
    """Yields until the caller leaves the loop; raises Timeout when the time is up."""
    deadline = time.monotonic() + seconds * SLOWDOWN
    while True:
        last = time.monotonic() >= deadline
        yield
        if last:
            raise Timeout(f"waited {seconds * SLOWDOWN:g} s for {what}")
        time.sleep(_PAUSE)


def wait_for[T](what: str, ask: Callable[[], T], seconds: float = 5.0) -> T:
    """Asks until the answer is true, and returns it."""
    for _ in ticks(what, seconds):
        answer = ask()
        if answer:
            return answer
    raise AssertionError("ticks() ends by itself")
