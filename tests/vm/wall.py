"""The wall clock, which tests set, and keys that live by it."""

import time
from collections.abc import Callable

import abi
from clock import ticks
from link import Mkt, Ours, Peer

T = 2_000_000_000
"""A time of the tests' own, years from any that the machine may have."""

Span = tuple[int | None, int | None]
ALWAYS: Span = (None, None)


class Wall:
    """CLOCK_REALTIME, of the whole machine. Deadlines are of another clock, and do not notice."""

    def __init__(self) -> None:
        self._right = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.monotonic_ns()

    def set(self, second: int) -> None:
        """Makes it the beginning of that second."""
        time.clock_settime(time.CLOCK_REALTIME, second)

    def within[A](self, second: int, act: Callable[[], A]) -> A:
        """What act() gives when all of it has happened in that second; it may have to be repeated.

        For what cannot go wrong right after that second either, but says nothing then.
        """
        for _ in ticks(f"a second to be long enough for {act}", 30):
            self.set(second)
            answer = act()
            if int(time.clock_gettime(time.CLOCK_REALTIME)) == second:
                return answer
        raise AssertionError("ticks() ends by itself")

    def stop_until[A](self, second: int, what: str, ask: Callable[[], A]) -> A:
        """Lets the clock not leave that second until the answer is true."""
        for _ in ticks(f"{what} at {second - T:+}", 20):
            self.set(second)
            if answer := ask():
                return answer
        raise AssertionError("ticks() ends by itself")

    def restore(self) -> None:
        """Makes it what it would be by now."""
        time.clock_settime_ns(time.CLOCK_REALTIME, time.monotonic_ns() + self._right)


def give(peer: Peer, key: Mkt, send: Span = ALWAYS, accept: Span = ALWAYS, flags: int = 0) -> None:
    """Adds or replaces a key of an end of ours."""
    assert isinstance(peer.role, Ours)
    bits = (
        abi.KEY_SEND_LIFETIME_BEGIN,
        abi.KEY_SEND_LIFETIME_END,
        abi.KEY_RECV_LIFETIME_BEGIN,
        abi.KEY_RECV_LIFETIME_END,
    )
    times = (*send, *accept)
    packed = abi.pack_key(
        *peer.host.ids(key),
        alg=key.algorithm.ours,
        secret=key.secret,
        address=peer.address,
        flags=flags | sum(bit for bit, time in zip(bits, times, strict=True) if time is not None),
        lifetimes=tuple(time or 0 for time in times),
    )
    peer.link.know(key)
    abi.set_key(peer.sock, packed)


def ask(peer: Peer, key: Mkt) -> None:
    """Makes the end ask the other one for this key, whatever else it would ask for."""
    _, recv_id = peer.host.ids(key)
    if isinstance(peer.role, Ours):
        abi.set_authopt(peer.sock, abi.FLAG_LOCK_RNEXTKEYID, send_rnextkeyid=recv_id)
    else:
        abi.native_ask(peer.sock, recv_id)
