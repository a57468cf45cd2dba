"""Allocations that fail on demand, on kernels with CONFIG_FAILSLAB: those of `make test-debug`."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FAILSLAB = Path("/sys/kernel/debug/failslab")
SLABS = Path("/sys/kernel/slab")

needs_failslab = pytest.mark.skipif(
    not FAILSLAB.exists(), reason="the kernel has no CONFIG_FAILSLAB: see make test-debug"
)

MODULES = 0xFFFFFFFFA0000000, 0xFFFFFFFFFF000000
"""Where the code of modules is; ours is the only one that does anything meanwhile."""
ANYWHERE = 0, 2**64 - 1

EVERYTHING = ("",)
OURS = ("kmalloc",)
"""Slabs, by the beginning of their name: all that the module allocates comes from these."""
SOCKETS = ("TCP", "request_sock_TCP", "tw_sock_TCP", "tcp_bind")
SEGMENTS = ("skbuff_fclone", "skbuff_small_head", "request_sock_TCP")
"""Not skbuff_head_cache, without which a tap misses frames."""

NEVER = 0
FAILURES = 1_000_000


def code_of(function: str) -> tuple[int, int]:
    """Where a function of the kernel begins, and what follows it."""
    symbols = [line.split() for line in Path("/proc/kallsyms").read_text().splitlines()]
    (start,) = (int(symbol[0], 16) for symbol in symbols if symbol[2:] == [function])
    return start, min(address for symbol in symbols if (address := int(symbol[0], 16)) > start)


@contextmanager
def failing(
    slabs: tuple[str, ...], callers: tuple[int, int], every: int = NEVER
) -> Iterator[Callable[[], int]]:
    """Every so manieth allocation from the slabs fails that has one of the callers on its stack.

    In any context; gives how many have failed.
    """
    for slab in SLABS.iterdir():
        (slab / "failslab").write_text("1" if slab.name.startswith(slabs) else "0")
    start, end = callers
    # It complains that what it finds can be relied on no more.
    spared = code_of("ref_tracker_alloc")
    settings = {
        "cache-filter": "Y",
        "ignore-gfp-wait": "N",
        "task-filter": "N",
        "verbose": 0,
        "require-start": f"{start:#x}",
        "require-end": f"{end:#x}",
        "reject-start": f"{spared[0]:#x}",
        "reject-end": f"{spared[1]:#x}",
        "stacktrace-depth": 32,
        "times": FAILURES,
        "interval": every,
        "probability": 100 if every else 0,
    }
    try:
        for name, value in settings.items():
            (FAILSLAB / name).write_text(str(value))
        yield lambda: FAILURES - int((FAILSLAB / "times").read_text())
    finally:
        (FAILSLAB / "probability").write_text("0")


def each_failing(
    slabs: tuple[str, ...], callers: tuple[int, int], growth: float = 1
) -> Iterator["Attempt"]:
    """An attempt whose first allocation fails, one whose second does, until there are no more.

    With `growth` those that are that many times later; the first few are tried all the same.
    The last attempt meets no failure. An earlier one may succeed, too: the allocator itself makes
    allocations that it can do without.
    """
    with failing(slabs, callers):
        number = 1
        while True:
            attempt = Attempt(number)
            yield attempt
            if not attempt.failed:
                break
            number = max(number + 1, int(number * growth))
        assert number > 1, "nothing was allocated"


class Attempt:
    """One call whose nth allocation fails, if there are so many."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.failed = False

    def answer(self, call: Callable[[], object]) -> int:
        """The errno of the call, or 0."""
        nth = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
        os.pwrite(nth, str(self.number).encode(), 0)
        try:
            call()
            answer = 0
        except OSError as error:
            answer = error.errno
        finally:
            self.failed = os.pread(nth, 16, 0).strip() == b"0"
            os.pwrite(nth, b"0", 0)
            os.close(nth)
        return answer
