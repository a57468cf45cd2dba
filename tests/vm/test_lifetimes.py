"""Lifetimes of keys, by a wall clock that is set forward and back under live connections."""

import errno
import socket
from typing import NamedTuple

import pytest

import abi
from clock import wait_for
from link import (
    FIRST,
    KEY_NOT_FOUND,
    SECOND,
    SHA256,
    TIMEOUT,
    V4,
    V6,
    Connection,
    Ends,
    Host,
    Link,
    Mkt,
    Peer,
)
from requirement import requirement
from test_live_keys import Watch
from wall import ALWAYS, T, ask, give

pytestmark = pytest.mark.ours


class Case(NamedTuple):
    """Who connects to whom, and which end, always one of ours, has lifetimes."""

    client: str
    server: str
    limited: str
    ends: Ends

    def connect(self, link: Link) -> tuple[Connection, Peer, Peer]:
        """A connection, its end that has lifetimes, and the other one."""
        connection = link.connected(self.client, self.server, self.ends)
        pair = connection.peers
        return connection, *(pair if self.limited == "client" else pair[::-1])


CASES = pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case("ours", "ours", "client", V4), id="ours-ours-client-v4"),
        pytest.param(Case("ours", "ours", "server", V6), id="ours-ours-server-v6"),
        pytest.param(Case("ours", "native", "client", V6), id="ours-native-client-v6"),
        pytest.param(Case("native", "ours", "server", V4), id="native-ours-server-v4"),
    ],
)
BESIDE = pytest.mark.parametrize(
    ("other", "ends"),
    [pytest.param("ours", V4, id="ours-v4"), pytest.param("native", V6, id="native-v6")],
)

ELSEWHERE = Mkt("elsewhere", b"a key that one end lacks", 200, 201, SHA256)
SO_ERROR = socket.SOL_SOCKET, socket.SO_ERROR


@pytest.fixture
def link(link):
    """Repeats what was refused soon, and goes on doing so."""
    for host in (link.a, link.b):
        host.namespace.write_sysctl("net/ipv4/tcp_rto_min_us", 20_000)
        host.namespace.write_sysctl("net/ipv4/tcp_rto_max_ms", 1000)
    return link


class Refusals:
    """Segments that a host has refused since the last question."""

    def __init__(self, host: Host) -> None:
        self.host, self.seen = host, host.counters().get(KEY_NOT_FOUND, 0)

    def more(self) -> bool:
        """Whether there was any."""
        before, self.seen = self.seen, self.host.counters().get(KEY_NOT_FOUND, 0)
        assert self.host.counters().keys() <= {KEY_NOT_FOUND}
        return self.seen > before

    def another(self) -> None:
        """Waits for one that comes after this call."""
        self.more()
        wait_for(f"{self.host.name} to refuse a segment", self.more, 10)


def policy(peer: Peer, **sysctls: int) -> None:
    """Sets sysctls of the end's namespace."""
    for name, value in sysctls.items():
        peer.host.namespace.write_sysctl(f"net/ipv4/tcp_authopt_{name}", value)


# The other end has no lifetimes, and takes every key at any time.


@requirement(40)
@CASES
@pytest.mark.parametrize("asked", [FIRST, SECOND], ids=lambda key: f"asked-{key.name}")
def test_send_lifetimes(link, wall, case, asked):
    """Which key signs in their first and last second, and when the clock is set back.

    The other end asks for one of the two all the time. What it signs with stays as it is.
    """
    wall.set(T)
    connection, end, other = case.connect(link)
    other.add(SECOND)
    ask(other, asked)
    give(end, FIRST, send=(T, T + 100))
    give(end, SECOND, send=(T + 101, None))
    connection.exchange()
    watch = Watch(link)
    mine, its = end.host.name, other.host.name
    address = end.host.addresses[case.ends.wire]

    def signs_with(second: int, key: Mkt) -> None:
        wall.within(second, connection.exchange)
        signed = [r for r in link.verify().signed if r.source == address]
        assert signed[-1].key.name == key.name, second - T

    signs_with(T, FIRST)
    signs_with(T + 100, FIRST)
    watch.keys()
    wall.set(T + 101)
    connection.exchange()
    assert watch.keys() == {mine: ["second"], its: ["first"]}
    signs_with(T + 100, FIRST)
    watch.keys()
    wall.set(T + 50)
    connection.exchange()
    connection.close()
    assert watch.keys() == {mine: ["first"], its: ["first"]}
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(40)
@BESIDE
def test_key_begins_beside_one_without_end(link, wall, other, ends):
    """It is used from its first second on, since it is asked for; and not before that second."""
    wall.set(T)
    connection = link.connected("ours", other, ends)
    client, server = connection.peers
    server.add(SECOND)
    ask(server, SECOND)
    give(client, SECOND, send=(T + 100, None))
    connection.exchange()
    watch = Watch(link)
    for second, key in ((T, FIRST), (T + 100, SECOND), (T, FIRST)):
        wall.set(second)
        connection.exchange()
        assert watch.keys()["A"] == [key.name], second - T
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(40, 41)
@CASES
def test_receive_lifetime(link, wall, case):
    """Accepted in its first and last second, refused before and after, and sent with always."""
    wall.set(T + 50)
    connection, end, other = case.connect(link)
    give(end, FIRST, accept=(T + 10, T + 100))
    connection.exchange()
    refusals = Refusals(end.host)

    def refused_then_accepted(refused: int, accepted: int) -> None:
        wall.set(refused)
        data = f"not at {refused - T}, but at {accepted - T}".encode()
        other.sock.send(data)
        refusals.another()
        end.sock.send(data)
        assert other.sock.recv(100) == data, "sending is another lifetime"
        refusals.another()
        assert not end.asked
        give(end, FIRST, accept=(T + 10, T + 100))  # a key that was chosen before has no say
        wall.stop_until(accepted, "the segment to be accepted", lambda: end.asked)
        assert end.sock.recv(100) == data
        for peer in connection.peers:
            wall.stop_until(accepted, "the answer", lambda peer=peer: peer.unacknowledged == 0)

    refused_then_accepted(T + 101, T + 100)
    refused_then_accepted(T - 100, T + 10)
    wall.set(T + 50)
    connection.exchange()
    connection.close()
    link.verify()
    assert other.host.counters() == {}


@requirement(40)
@CASES
def test_nosend_and_norecv_over_lifetimes(link, wall, case):
    """A key that may not be used may not be used in its lifetime either."""
    wall.set(T)
    connection, end, other = case.connect(link)
    other.add(SECOND)
    give(end, SECOND, send=(T + 100, None))
    watch = Watch(link)
    mine, its = end.host.name, other.host.name

    give(end, FIRST, send=(T, T + 99), flags=abi.KEY_NOSEND)
    end.sock.send(b"with neither of the two")
    assert wait_for("the error", lambda: end.sock.getsockopt(*SO_ERROR)) == errno.ENOKEY
    give(end, SECOND)
    assert other.sock.recv(100) == b"with neither of the two"
    connection.exchange()
    assert watch.keys() == {mine: ["second"], its: ["first"]}

    give(end, FIRST, accept=(T, T + 99), flags=abi.KEY_NORECV)
    policy(end, accept_tolerance=50)
    refusals = Refusals(end.host)
    other.sock.send(b"with the first")
    refusals.another()
    connection.send(end)
    assert end.sock.recv(100) == b"with the first"
    connection.exchange()
    connection.close()
    assert watch.keys()[its] == ["first", "second"]
    assert other.host.counters() == {}


@requirement(40)
@CASES
@pytest.mark.parametrize("what", ["send", "both"])
def test_last_key_ends(link, wall, case, what):
    """ENOKEY, and not a segment leaves; with another key all goes on that was held up."""
    wall.set(T)
    connection, mute, other = case.connect(link)
    other.add(SECOND)
    span = (T, T + 100)
    give(mute, FIRST, send=span, accept=span if what == "both" else ALWAYS)
    connection.exchange()
    before = len(link.verify().records)
    refusals = Refusals(mute.host)

    wall.set(T + 101)
    assert mute.sock.send(b"kept back") == len(b"kept back")
    assert wait_for("the error", lambda: mute.sock.getsockopt(*SO_ERROR)) == errno.ENOKEY
    other.sock.send(b"let in or not")
    if what == "both":
        wait_for("the other end to be refused", refusals.more)
        assert not mute.asked
    else:
        wait_for("the other end's data", lambda: mute.asked)
    wait_for("the error, once more", lambda: mute.sock.getsockopt(*SO_ERROR))
    address = mute.host.addresses[case.ends.wire]
    assert [str(r) for r in link.verify().records[before:] if r.source == address] == []

    watch = Watch(link)
    give(mute, SECOND, send=(T + 101, None), accept=(T + 101, None))
    mute.sock.getsockopt(*SO_ERROR)
    mute.sock.settimeout(TIMEOUT)
    assert other.sock.recv(100) == b"kept back"
    assert mute.sock.recv(100) == b"let in or not"
    connection.exchange()
    connection.close()
    assert watch.keys()[mute.host.name] == ["second"]
    assert other.host.counters() == {}


@requirement(40)
@CASES
@pytest.mark.parametrize("then", ["longer", "another"])
def test_last_key_to_receive_ends(link, wall, case, then):
    """Nothing comes in, but what goes out is signed as ever; no error, and nothing is lost."""
    wall.set(T)
    connection, deaf, other = case.connect(link)
    other.add(SECOND)
    give(deaf, FIRST, accept=(T, T + 100))
    connection.exchange()
    refusals = Refusals(deaf.host)

    wall.set(T + 101)
    other.sock.send(b"not yet")
    refusals.another()
    deaf.sock.send(b"arrives")
    assert other.sock.recv(100) == b"arrives"
    refusals.another()
    assert (deaf.asked, deaf.sock.getsockopt(*SO_ERROR)) == (False, 0)

    give(deaf, *((FIRST,) if then == "longer" else (SECOND, (T + 1000, None))))
    assert deaf.sock.recv(100) == b"not yet"
    wait_for("its own data to be acknowledged", lambda: deaf.unacknowledged == 0)
    watch = Watch(link)
    connection.exchange()
    connection.close()
    its = "first" if then == "longer" else "second"
    assert watch.keys() == {deaf.host.name: ["first"], other.host.name: [its]}
    assert other.host.counters() == {}


@requirement(40)
@BESIDE
def test_connect_before_the_key_begins(link, wall, other, ends):
    """It fails, and no SYN leaves; from the first second on it works."""
    wall.set(T)
    listener = link.listen(other, ends, FIRST)
    client = link.client("ours", ends)
    give(client, FIRST, send=(T + 100, None))
    with pytest.raises(OSError, match=rf"\[Errno {errno.ENOKEY}\]"):
        client.sock.connect((client.address, listener.sock.getsockname()[1]))
    assert link.audit().segments == []
    wall.set(T + 100)
    connection = link.connect(link.client("ours", ends), listener)
    connection.exchange()
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(40)
@BESIDE
def test_listener_before_the_key_begins(link, wall, other, ends):
    """SYNs that are signed with it are refused, and unsigned ones too, without an answer."""
    wall.set(T)
    listener = link.listen("ours", ends)
    give(listener, FIRST, accept=(T + 100, None))
    refusals = Refusals(link.b)
    early = link.client(other, ends, FIRST)
    link.start(early)
    wait_for("the SYN to be refused", refusals.more)
    assert early.pending
    early.sock.close()
    assert [r.source for r in link.verify().segments] == [link.a.addresses[ends.wire]]
    wall.set(T + 100)
    connection = link.connect(link.client(other, ends, FIRST), listener)
    connection.exchange()
    connection.close()
    link.verify()


# ---- the two rules ----


@requirement(9)
@CASES
def test_rule_of_rollover(link, wall, case):
    """The key that ends last, or the one that begins last; changed under a live connection.

    The other end asks for a key that we lack, so that the rule decides; and does what we ask for.
    """
    wall.set(T + 50)
    connection, end, other = case.connect(link)
    other.add(SECOND)
    other.add(ELSEWHERE)
    ask(other, ELSEWHERE)
    give(end, FIRST, send=(T, None), accept=(T, None))
    give(end, SECOND, send=(T + 10, T + 1000), accept=(T + 10, T + 1000))
    watch = Watch(link)
    mine, its = end.host.name, other.host.name

    for rule, key in ((0, "first"), (1, "second"), (0, "first"), (1, "second")):
        policy(end, rollover_rule=rule)
        watch.keys()
        connection.send(end)
        connection.exchange()
        assert watch.keys() == {mine: [key], its: [key]}, rule
    wall.set(T + 1001)
    connection.send(end)
    connection.exchange()
    assert watch.keys() == {mine: ["first"], its: ["first"]}, "of keys that may be used now"
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(9)
@BESIDE
@pytest.mark.parametrize("rule", [0, 1])
def test_rule_of_rollover_in_a_syn(link, wall, other, ends, rule):
    """Nobody has asked for anything yet."""
    wall.set(T + 50)
    listener = link.listen(other, ends, FIRST, SECOND)
    client = link.client("ours", ends)
    give(client, FIRST)
    give(client, SECOND, send=(T + 10, T + 1000), accept=(T + 10, T + 1000))
    policy(client, rollover_rule=rule)
    connection = link.connect(client, listener)
    connection.exchange()
    connection.close()
    syn, key = link.verify().signed[0], SECOND if rule else FIRST
    assert (syn.key.name, syn.rnextkeyid) == (key.name, key.b_id)


def test_rules_of_namespaces_are_their_own(link, wall):
    """What one end's root sets is nothing to the other end."""
    wall.set(T + 50)
    connection = link.connected("ours", "ours")
    policy(connection.client, rollover_rule=1)
    for peer in connection.peers:
        give(peer, SECOND, send=(T, T + 100), accept=(T, T + 100))
    watch = Watch(link)
    connection.send(connection.client)
    connection.exchange()
    connection.close()
    assert watch.keys() == {"A": ["first"], "B": ["second"]}, "each does as the other asks"
    assert (link.a.counters(), link.b.counters()) == ({}, {})


# ---- the tolerance ----


@requirement(42)
@CASES
def test_tolerance(link, wall, case):
    """So many seconds after the receive lifetime, and before it, and not one more."""
    wall.set(T + 50)
    connection, end, other = case.connect(link)
    give(end, FIRST, accept=(T, T + 100))
    connection.exchange()
    refusals = Refusals(end.host)

    # The clock runs on, out of what is refused before the lifetime: hence the wide margin.
    for second, not_enough in ((T + 130, 29), (T - 30, 10)):
        policy(end, accept_tolerance=not_enough)
        wall.set(second)
        data = f"at {second - T}".encode()
        other.sock.send(data)
        wall.stop_until(second, "a segment to be refused", refusals.more)
        assert not end.asked
        policy(end, accept_tolerance=30)
        wall.stop_until(second, "the segment to be accepted", lambda: end.asked)
        assert end.sock.recv(100) == data
        wall.stop_until(second, "the answer", lambda: other.unacknowledged == 0)
        refusals.more()
    wall.set(T + 50)
    policy(end, accept_tolerance=0)
    connection.exchange()
    connection.close()
    link.verify()
    assert other.host.counters() == {}


@requirement(42)
def test_tolerance_is_not_asked_for(link, wall):
    """The RNextKeyID names no key that has not begun, or has ended."""
    wall.set(T + 50)
    connection = link.connected("ours", "ours")
    end, other = connection.peers
    policy(end, accept_tolerance=50)
    give(other, SECOND)
    give(end, FIRST, accept=(T, T + 100))
    give(end, SECOND, accept=(T + 120, T + 130), flags=abi.KEY_NOSEND)
    start = len(link.verify().records)

    def asks_for(second: int, key: Mkt) -> None:
        nonlocal start
        wall.within(second, connection.exchange)
        records = link.verify().records[start:]
        start += len(records)
        asked = [r.rnextkeyid for r in records if r.source == end.host.addresses["v4"]]
        assert asked[-1] == end.host.ids(key)[1], second - T

    asks_for(T + 100, FIRST)
    asks_for(T + 110, FIRST)  # the key that signs
    asks_for(T + 120, SECOND)
    asks_for(T + 130, SECOND)
    asks_for(T + 140, FIRST)  # the key that signs
    asks_for(T + 50, FIRST)
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})
