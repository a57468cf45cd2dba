"""Policies come and go on one CPU while connections begin on another one.

None is unsigned whose SYN was sent while its REQUIRE was there: one that began after the call that
added it had returned, and was complete before the next call began. Both processes read one clock.
"""

import errno
import json
import os
import random
import select
import socket
import struct
import time
from bisect import bisect
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

import abi
from link import PORT, V4, V6, Ends, Host, Link
from test_policy import family_of, require, set_policy

pytestmark = [pytest.mark.ours, pytest.mark.usefixtures("quick")]

CASES = [
    pytest.param(side, ends, id=f"{side}-{name}")
    for side in ("listen", "connect")
    for name, ends in (("v4", V4), ("v6", V6))
]
LONG = os.environ.get("TAO_RACE_SECONDS")
SECONDS = float(LONG or "6") / len(CASES)
HANDSHAKES, CHANGES = (500, 125) if LONG else (1, 2)
"""So many at least: of complete handshakes, and of changes of policies."""

RESET = struct.pack("=ii", 1, 0)


class Untapped(Link):
    """Nobody captures: these are more frames than can be kept."""

    def __init__(self) -> None:
        super().__init__()
        self.audit()
        self.tap.close()
        self.tap = SimpleNamespace(close=lambda: None)


@pytest.fixture
def topology() -> type[Link]:
    return Untapped


def change(host: Host, other: Host, ends: Ends, pause: float) -> tuple[int, list]:
    """Adds a REQUIRE, replaces it, deletes it; says when there was one for sure, in nanoseconds."""
    chance = random.Random(5925)
    address = other.addresses[ends.wire]
    end = time.monotonic() + SECONDS
    changes, times = 0, []
    while time.monotonic() < end:
        require(host, other, ends)
        since = time.monotonic_ns()
        time.sleep(chance.uniform(0, pause))
        until = time.monotonic_ns()
        times.append((since, until))
        last = abi.KEY_REQUIRE
        if chance.random() < 0.5:
            last = abi.KEY_EXEMPT
            set_policy(host, ends, last, address=address)
            changes += 1
            time.sleep(chance.uniform(0, pause))
        set_policy(host, ends, last | abi.KEY_DEL, address=address)
        changes += 2
        time.sleep(chance.uniform(0, pause))
    return changes, times


@dataclass
class Attempt:
    """When a connection began and was complete at either end, in nanoseconds; 0: it was not."""

    begun: int
    connected: int = 0
    accepted: int = 0


class Connector:
    """Opens unsigned connections from A to B, one after the other."""

    def __init__(self, link: Link, ends: Ends) -> None:
        self.ends = ends
        self.listener = link.listen("plain", ends).sock
        self.listener.setblocking(False)
        self.address = link.b.address(ends.wire, ends.client), PORT

    def connect(self, patience: float) -> Attempt:
        """One that is given up if it takes longer."""
        with socket.socket(self.ends.client) as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            attempt = Attempt(time.monotonic_ns())
            err = sock.connect_ex(self.address)
            if err == errno.ENOKEY:
                return attempt
            assert err == errno.EINPROGRESS
            if not select.select([], [sock], [], patience)[1]:
                return attempt
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return attempt
            attempt.connected = time.monotonic_ns()
            if self._accept(sock.getsockname()[1], patience):
                attempt.accepted = time.monotonic_ns()
            return attempt

    def _accept(self, port: int, patience: float) -> bool:
        """Whether there is a connection from this port; those of earlier ones are taken, too."""
        while select.select([self.listener], [], [], patience)[0]:
            accepted, peer = self.listener.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            accepted.close()
            if peer[1] == port:
                return True
        return False


@pytest.mark.parametrize(("side", "ends"), CASES)
def test_no_unsigned_connection(link: Link, side, ends, record_property):
    """Of the host that listens, and of the one that connects."""
    host, other = (link.b, link.a) if side == "listen" else (link.a, link.b)
    connector = Connector(link, ends)
    host.control(family_of(ends))
    with link.a.namespace.entered():
        usual = [connector.connect(5) for _ in range(10)]
        usual = sorted(attempt.accepted - attempt.begun for attempt in usual)[5] / 1e9
        cpus = sorted(os.sched_getaffinity(0))
        assert len(cpus) > 1, "it takes two CPUs"
        result, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.sched_setaffinity(0, cpus[1:])
                with os.fdopen(tell, "w") as file:
                    json.dump(change(host, other, ends, 4 * usual), file)
            finally:
                os._exit(0)
        os.close(tell)
        os.sched_setaffinity(0, cpus[:1])
        attempts = []
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            attempts.append(connector.connect(4 * usual))
        os.sched_setaffinity(0, cpus)
        with os.fdopen(result) as file:
            changes, times = json.load(file)
        os.waitpid(child, 0)
    done = [it for it in attempts if (it.accepted if side == "listen" else it.connected)]
    record_property(
        "counted", f"{len(done)} of {len(attempts)} handshakes complete, {changes} changes"
    )
    for attempt in done:
        complete = attempt.accepted if side == "listen" else attempt.connected
        # The last policy that was there before it began.
        before = bisect(times, [attempt.begun])
        assert not before or complete > times[before - 1][1], "unsigned"
    count = len(done)
    assert count >= HANDSHAKES
    assert changes >= CHANGES
    assert len(attempts) > count, "none was refused"
