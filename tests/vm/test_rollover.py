"""Sessions that live through many keys: by lifetimes alone, in every order, over a bad cable.

Data flows both ways all the time, so each change of keys comes upon segments that are queued, in
flight or not acknowledged.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

import pytest

import abi
from clock import ticks, wait_for
from link import ALGORITHMS, V4, V6, Connection, Ends, Host, Link, Mkt, Ours, Peer
from requirement import requirement
from tcp_authopt_verify import Report
from tcp_authopt_verify.wire import FIN, RST, SYN
from wall import Span, T, ask, give

pytestmark = pytest.mark.ours

ROLLOVERS = 100
PERIOD = 100
"""Seconds of the wall clock for which a key signs."""
B_IDS = 128
DATA = bytes((i * i + (i >> 8)) % 251 for i in range(1 << 16))

BESIDE = pytest.mark.parametrize(
    ("client", "server", "ends"),
    [
        pytest.param("ours", "ours", V4, id="ours-ours-v4"),
        pytest.param("ours", "ours", V6, id="ours-ours-v6"),
        pytest.param("ours", "native", V6, id="ours-native-v6"),
        pytest.param("native", "ours", V4, id="native-ours-v4"),
    ],
)


def numbered(n: int) -> Mkt:
    """One of a series of keys, of all algorithms in turn."""
    return Mkt(f"key {n}", f"secret {n}".encode(), n, B_IDS + n, ALGORITHMS[n % 3])


def period(n: int, earlier: int = 0, later: int = 0) -> Span:
    """From the first to the last second of a period, and some before and after."""
    return T + n * PERIOD - earlier, T + (n + 1) * PERIOD - 1 + later


@pytest.fixture(autouse=True)
def _one_cpu() -> Iterator[None]:
    """A cable between namespaces keeps the order of what one CPU sends."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def set_timers(link: Link, rto_min_us: int) -> None:
    """How soon TCP sends again what was not acknowledged."""
    for host in (link.a, link.b):
        host.namespace.write_sysctl("net/ipv4/tcp_rto_min_us", rto_min_us)
        host.namespace.write_sysctl("net/ipv4/tcp_rto_max_ms", 1000 + rto_min_us // 1000)


@pytest.fixture
def patient(link: Link) -> Link:
    """A link on which nothing is sent twice because the machine is slow, only what was lost."""
    set_timers(link, 30_000_000)
    for host in (link.a, link.b):
        host.namespace.write_sysctl("net/ipv4/tcp_early_retrans", 0)  # no loss probes
    return link


@pytest.fixture
def hasty(link: Link) -> Link:
    """A link on which what was lost is soon sent again."""
    set_timers(link, 20_000)
    return link


@contextmanager
def cable(link: Link, *netem: str) -> Iterator[None]:
    """Makes the cable a bad one in both directions."""

    def tc(host: Host, verb: str, *how: str) -> None:
        with host.namespace.entered():
            device = "dev", host.interface, "root"
            subprocess.run(["tc", "qdisc", verb, *device, *how], check=True)

    for host in (link.a, link.b):
        tc(host, "add", "netem", *netem)
    yield
    for host in (link.a, link.b):
        tc(host, "del")


def tcp_counter(link: Link, name: str) -> int:
    """The sum of both hosts' counters of this name."""
    total = 0
    for host in (link.a, link.b):
        lines = host.namespace.read("snmp") + host.namespace.read("netstat")
        pairs = zip(lines.splitlines()[::2], lines.splitlines()[1::2], strict=True)
        counters = dict(
            pair
            for names, values in pairs
            if names.startswith("Tcp")
            for pair in zip(names.split()[1:], values.split()[1:], strict=True)
        )
        total += int(counters[name])
    return total


class Flow:
    """Data both ways, some of it under way from one call to the next."""

    def __init__(self, connection: Connection) -> None:
        self.peers = connection.peers
        self.sent, self.got = [0, 0], [0, 0]
        """Bytes: from client to server, and the other way."""
        for peer in self.peers:
            peer.sock.setblocking(False)

    def move(self, ahead: int = 4000) -> None:
        """Until data has arrived each way that was sent later; at most `ahead` bytes follow it."""
        self._run([sent + 1 for sent in self.sent], ahead)

    def finish(self) -> None:
        """Until all is where it should be, and acknowledged."""
        self._run(self.sent, 0)
        for peer in self.peers:
            wait_for("the last answers", lambda peer=peer: peer.unacknowledged == 0, 20)

    def _run(self, goals: list[int], ahead: int) -> None:
        for _ in ticks("data to arrive both ways", 20):
            for way, sender in enumerate(self.peers):
                self._send(way, sender, self.got[way] + ahead)
                self._receive(way, self.peers[1 - way])
            if all(got >= goal for got, goal in zip(self.got, goals, strict=True)):
                break

    def _send(self, way: int, sender: Peer, end: int) -> None:
        while self.sent[way] < end:
            start = self.sent[way] % len(DATA)
            try:
                self.sent[way] += sender.sock.send(DATA[start : start + end - self.sent[way]])
            except BlockingIOError:
                break

    def _receive(self, way: int, receiver: Peer) -> None:
        while self.got[way] < self.sent[way]:
            start = self.got[way] % len(DATA)
            try:
                data = receiver.sock.recv(len(DATA) - start)
            except BlockingIOError:
                break
            assert data == DATA[start : start + len(data)] != b""
            self.got[way] += len(data)


def session(
    link: Link, roles: tuple[str, str], ends: Ends, keys: dict[int, tuple[Span, Span]]
) -> Connection:
    """A connection with all these keys at both ends, and their lifetimes where there are any."""
    client, listener = link.client(roles[0], ends), link.listen(roles[1], ends)
    for peer in (client, listener):
        # The kernel's own begins with the one that was added last.
        for n in sorted(keys, reverse=True):
            learn(peer, n, *keys[n])
    return link.connect(client, listener)


def learn(peer: Peer, n: int, send: Span, accept: Span) -> None:
    """Adds a key, with its lifetimes if the end knows of those."""
    if isinstance(peer.role, Ours):
        give(peer, numbered(n), send, accept)
    else:
        peer.add(numbered(n))


def keys_in_turn(report: Report, host: Host) -> list[int]:
    """Which keys a host has signed with, one after the other, by their numbers."""
    signed = [r for r in report.signed if r.source in host.addresses.values()]
    return [int(name.removeprefix("key ")) for name, _ in groupby(r.key.name for r in signed)]


def signs_with(peer: Peer) -> int:
    """The number of the key that the end has used last."""
    native = not isinstance(peer.role, Ours)
    keyid = (
        abi.NativeInfo.read(peer.sock).current_key
        if native
        else abi.get_authopt(peer.sock).send_keyid
    )
    return keyid % B_IDS


def nothing_was_lost(link: Link) -> bool:
    """No segment was refused, and none had to be sent again."""
    assert (link.a.counters(), link.b.counters()) == ({}, {})
    assert tcp_counter(link, "RetransSegs") == 0
    return True


@requirement(14)
@BESIDE
def test_lifetimes_alone(patient, wall, client, server, ends):
    """Nobody does anything, and each key signs in its time, once, and no other.

    The kernel's own end has no lifetimes; it takes the keys that it is asked for.
    """
    link, count = patient, 12
    wall.set(T + PERIOD // 2)
    periods = {n: (period(n), period(n, PERIOD, PERIOD)) for n in range(count + 1)}
    connection = session(link, (client, server), ends, periods)
    flow = Flow(connection)
    for n in range(count + 1):
        wall.set(T + n * PERIOD + PERIOD // 2)
        flow.move()
    flow.finish()
    connection.close()
    report = link.verify()
    for peer in connection.peers:
        turns = keys_in_turn(report, peer.host)
        if isinstance(peer.role, Ours):
            assert turns == list(range(count + 1))
        else:  # it is asked for those that are accepted already
            assert turns in (list(range(count + 1)), list(range(1, count + 1)))
    assert nothing_was_lost(link)


@requirement(14)
@BESIDE
@pytest.mark.parametrize("first", ["client", "server"])
def test_order_of_learning(patient, wall, client, server, ends, first):
    """A new key is used once both ends have it, whichever has it first; the old one then ends."""
    link = patient
    wall.set(T)
    lifetimes = {n: (period(n, later=50), period(n, later=150)) for n in range(4)}
    connection = session(link, (client, server), ends, {0: lifetimes[0]})
    flow = Flow(connection)
    flow.move()
    order = connection.peers if first == "client" else connection.peers[::-1]
    for n in range(1, 4):
        wall.set(T + n * PERIOD + 10)
        for peer, used in zip(order, (n - 1, n), strict=True):
            learn(peer, n, *lifetimes[n])
            if not isinstance(peer.role, Ours):
                ask(peer, numbered(n))
            flow.move()
            flow.move()
            assert [signs_with(end) for end in order] == [used, used]
        wall.set(T + n * PERIOD + 60)
        flow.move()
    flow.finish()
    connection.close()
    report = link.verify()
    for host in (link.a, link.b):
        assert keys_in_turn(report, host) == [0, 1, 2, 3]
    assert nothing_was_lost(link)


@requirement(42)
@pytest.mark.parametrize(
    ("skew", "ends"), [pytest.param(30, V4, id="v4"), pytest.param(-30, V6, id="v6")]
)
@pytest.mark.parametrize("means", ["overlap", "tolerance"])
def test_clocks_that_differ(patient, wall, means, skew, ends):
    """By so many seconds is B's clock late: its lifetimes are all later, which is the same.

    What covers it are receive lifetimes that are wider, or the tolerance. Either goes for
    handshakes between the changes of one end and of the other, too.
    """
    link, count, cover = patient, 3, 40
    wide = cover if means == "overlap" else 0
    wall.set(T + PERIOD // 2)
    client, listener = link.client("ours", ends), link.listen("ours", ends)
    for peer, late in ((client, 0), (listener, skew)):
        for n in range(count + 1):
            send, accept = period(n, -late, late), period(n, wide - late, wide + late)
            learn(peer, n, send, accept)
        if means == "tolerance":
            peer.host.namespace.write_sysctl("net/ipv4/tcp_authopt_accept_tolerance", cover)
    connection = link.connect(client, listener)
    flow = Flow(connection)
    # Five seconds from every change.
    for second in range(T + PERIOD // 2 + 5, T + count * PERIOD + PERIOD // 2, 10):
        wall.set(second)
        flow.move()
        if abs(second - T - PERIOD) < abs(skew):
            another = link.connect(link.client("ours", ends), listener)
            another.exchange()
            another.close()
    flow.finish()
    connection.close()
    report = link.verify()
    for host in (link.a, link.b):
        assert list(dict.fromkeys(keys_in_turn(report, host))) == list(range(count + 1))
    assert nothing_was_lost(link)


@requirement(14)
@BESIDE
def test_idle_through_many_keys(patient, wall, client, server, ends):
    """The key that the other end asked for last has ended long ago."""
    link = patient
    wall.set(T + PERIOD // 2)
    connection = session(
        link, (client, server), ends, {n: (period(n), period(n)) for n in range(7)}
    )
    connection.exchange()
    speakers = [peer for peer in connection.peers if isinstance(peer.role, Ours)]
    for n, speaker in zip((3, 5), speakers, strict=False):
        wall.set(T + n * PERIOD + PERIOD // 2)
        connection.send(speaker)
        assert [signs_with(end) for end in connection.peers] == [n, n]
    connection.close()
    report = link.verify()
    for host in (link.a, link.b):
        assert keys_in_turn(report, host) == [0, 3, 5][: 1 + len(speakers)]
    assert nothing_was_lost(link)


@requirement(41)
@BESIDE
def test_sent_again_after_its_key_has_ended(hasty, wall, client, server, ends):
    """With the key of that time: what was lost before is not lost for good."""
    link = hasty
    wall.set(T + PERIOD // 2)
    connection = session(
        link, (client, server), ends, {n: (period(n), period(n)) for n in range(5)}
    )
    connection.exchange()
    with cable(link, "loss", "100%"):
        for peer in connection.peers:
            peer.sock.send(peer.host.name.encode())
            wait_for("it to be sent again", lambda: tcp_counter(link, "RetransSegs"))
        wall.set(T + 3 * PERIOD + PERIOD // 2)
        # It is sent again and again before the cable carries anything.
        before = tcp_counter(link, "RetransSegs")
        wait_for("it to be sent again", lambda: tcp_counter(link, "RetransSegs") > before)
    for peer, other in (connection.peers, connection.peers[::-1]):
        assert other.sock.recv(10) == peer.host.name.encode()
    connection.exchange()
    connection.close()
    report = link.verify()
    if "native" not in (client, server):  # which goes on with its key until it is asked
        assert (link.a.counters(), link.b.counters()) == ({}, {})
    for peer in connection.peers:
        if isinstance(peer.role, Ours):
            assert keys_in_turn(report, peer.host) == [0, 3]


@requirement(14, 40)
@BESIDE
def test_a_hundred_rollovers_over_a_bad_cable(hasty, wall, client, server, ends):
    """One segment in a hundred is lost, one in twenty overtakes others; the session does not mind.

    The kernel's own end asks for each key at its time, by itself.
    """
    link = hasty
    wall.set(T + PERIOD // 2)
    # What is late is late by no more than some changes of keys.
    wide = 3 * PERIOD
    periods = {n: (period(n), period(n, wide, wide)) for n in range(ROLLOVERS + 1)}
    connection = session(link, (client, server), ends, periods)
    flow = Flow(connection)
    with cable(link, "delay", "2ms", "reorder", "5%", "loss", "1%", "seed", "1"):
        for n in range(ROLLOVERS + 1):
            wall.set(T + n * PERIOD + PERIOD // 2)
            for peer in connection.peers:
                if not isinstance(peer.role, Ours):
                    ask(peer, numbered(n))
            flow.move()
        flow.finish()
    assert tcp_counter(link, "RetransSegs") > 0
    assert tcp_counter(link, "TCPOFOQueue") > 0
    assert (link.a.counters(), link.b.counters()) == ({}, {})

    report = link.verify()
    records = report.signed
    assert [r.segment.flags & (SYN | FIN | RST) for r in records[:3]] == [SYN, SYN, 0]
    assert not any(r.segment.flags & (SYN | FIN | RST) for r in records[3:])
    for peer in connection.peers:
        if isinstance(peer.role, Ours):
            used = dict.fromkeys(keys_in_turn(report, peer.host))
            assert list(used) == list(range(ROLLOVERS + 1))
    connection.close()
    link.verify()
