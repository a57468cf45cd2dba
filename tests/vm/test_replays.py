"""Old segments that are sent once more: their ids, which steer the victim's own, count no more.

Their MAC is right, under a key that may still receive. Honest segments that look old do count: see
test_what_is_sent_again_counts.
"""

import socket
from collections.abc import Callable

import pytest

import abi
from clock import SLOWDOWN, wait_for
from craft import ACK, PSH
from forge import Forger
from link import FIRST, SECOND, SHA256, V4, V6, Connection, Ends, Link, Mkt, Peer
from requirement import requirement
from test_live_keys import Watch
from test_segments import deaf, set_timers
from wall import ask

pytestmark = [pytest.mark.ours, pytest.mark.usefixtures("quick")]

THIRD = Mkt("third", b"the one after that", 130, 131, SHA256)
TIMES = 5

ENDS = pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
PAIRINGS = pytest.mark.parametrize(
    ("client", "server", "victim"),
    [
        pytest.param("ours", "ours", "client", id="ours-ours-client"),
        pytest.param("ours", "ours", "server", id="ours-ours-server"),
        pytest.param("ours", "native", "client", id="ours-native-client"),
        pytest.param("native", "ours", "server", id="native-ours-server"),
    ],
)


def both(connection: Connection, victim: str) -> tuple[Peer, Peer]:
    """The victim, and its peer."""
    pair = connection.peers
    return pair if victim == "client" else pair[::-1]


def asked_for(victim: Peer) -> int:
    """The KeyID that the victim takes its peer to want."""
    return abi.get_authopt(victim.sock).recv_rnextkeyid


def mine(victim: Peer, key: Mkt) -> int:
    """The KeyID that the victim sends with this key."""
    return victim.host.ids(key)[0]


def good(victim: Peer) -> int:
    """How many segments the victim's host has accepted."""
    return victim.host.namespace.counters()["TCPAOGood"]


def accepted(victim: Peer, send: Callable[[], None], times: int = 1) -> None:
    """Sends what has a right MAC, so often, and waits until all of it was judged so."""
    before = good(victim)
    for _ in range(times):
        send()
    wait_for("the MAC to be found right", lambda: good(victim) == before + times)


def frames_of(link: Link, peer: Peer) -> list[tuple[bytes, int]]:
    """What the end has sent so far, and the length of its data, oldest first."""
    report = link.verify()
    addresses = peer.host.addresses.values()
    pairs = zip(link.tap.frames, report.records, strict=True)
    return [(f.data, len(r.segment.payload)) for f, r in pairs if r.source in addresses]


@requirement(14)
@ENDS
@PAIRINGS
def test_replay_after_a_rollover(link, client, server, victim, ends):
    """Data, an ACK, the answer to a SYN or the end of the handshake: the old key stays away."""
    connection = link.connected(client, server, ends)
    victim, peer = both(connection, victim)
    connection.exchange()
    for end in connection.peers:
        end.add(SECOND)
    connection.exchange()
    old = frames_of(link, peer)
    assert {bool(length) for _, length in old} == {True, False}
    if peer is connection.client:
        old = old[1:]  # a SYN may be of any age
    ask(peer, SECOND)
    connection.exchange()
    assert asked_for(victim) == mine(victim, SECOND)
    connection.exchange()
    watch = Watch(link)
    gate = peer.host.gate()
    for frame, _ in old:
        gate.shut()  # it is not to set right what the replay has done
        accepted(victim, lambda frame=frame: peer.host.inject(frame), TIMES)
        gate.open()
        assert asked_for(victim) == mine(victim, SECOND)
        connection.send(victim)
    assert watch.keys()[victim.host.name] == ["second"]
    connection.exchange()
    connection.close()
    link.verify()


# ---- what is not old, though it may look so: B is deaf, and a program speaks for it ----


class Speaker:
    """B's part in an established connection, from where it is."""

    def __init__(self, link: Link, ends: Ends) -> None:
        self.link = link
        self.connection = link.connected("ours", "native", ends)
        self.victim, peer = self.connection.peers
        self.connection.exchange()
        for key in (SECOND, THIRD):
            self.victim.add(key)
        peer.host.gate().shut()
        self.forger = Forger.of(link, link.b, ends.wire)
        self.next = self.forger.next(link.b)

    def say(self, key: Mkt, offset: int, payload: bytes = b"") -> None:
        """A segment so far from where B was, signed with the key, and asking for it."""
        flags = PSH | ACK if payload else ACK
        segment = self.forger.tcp(seq=self.next + offset, flags=flags, payload=payload)
        accepted(self.victim, lambda: self.forger.send(segment, self.forger.ao(key)))

    @property
    def wants(self) -> tuple[int, int]:
        """The KeyID that A takes B to sign with, and the one that it takes it to want."""
        shown = abi.get_authopt(self.victim.sock)
        return shown.recv_keyid, shown.recv_rnextkeyid

    def ids(self, key: Mkt) -> tuple[int, int]:
        """The same for one key."""
        return self.link.b.ids(key)


@requirement(14)
@ENDS
def test_probes_count(link, ends):
    """Keepalives and window probes repeat the number before the next."""
    speaker = Speaker(link, ends)
    speaker.say(SECOND, 0)
    assert speaker.wants == speaker.ids(SECOND)
    speaker.say(FIRST, -1)
    assert speaker.wants == speaker.ids(FIRST)
    speaker.say(SECOND, -1)
    assert speaker.wants == speaker.ids(SECOND)
    speaker.say(FIRST, -2)
    assert speaker.wants == speaker.ids(SECOND), "an old one"
    link.verify()


@requirement(14)
@ENDS
def test_data_that_fills_a_hole_counts(link, ends):
    """The peer has given up two keys while a hole was open, and all that it sends is old."""
    speaker = Speaker(link, ends)
    speaker.say(SECOND, 100, b"beyond")
    assert speaker.wants == speaker.ids(SECOND)
    speaker.say(FIRST, -4, b"old")
    assert speaker.wants == speaker.ids(SECOND)
    speaker.say(THIRD, 0, bytes(50))
    assert speaker.wants == speaker.ids(THIRD)
    speaker.say(SECOND, 0, bytes(50))
    assert speaker.wants == speaker.ids(SECOND), "at that very place"
    speaker.say(THIRD, 50, bytes(50))
    assert speaker.wants == speaker.ids(THIRD)
    assert speaker.victim.sock.recv(1000) == bytes(100) + b"beyond"
    link.verify()


@requirement(14)
@ENDS
def test_replay_at_the_very_place(link, ends):
    """Of what brought the ids it cannot be told apart. The next segment sets it right."""
    speaker = Speaker(link, ends)
    speaker.say(FIRST, 0)
    speaker.say(SECOND, 0)
    speaker.say(FIRST, 0)
    assert speaker.wants == speaker.ids(FIRST)
    speaker.say(SECOND, 0, b"news")
    assert speaker.wants == speaker.ids(SECOND)
    speaker.say(SECOND, 4, b"more")
    link.verify()


@requirement(14)
@ENDS
@pytest.mark.parametrize("asked_before", [False, True], ids=["one-rollover", "two-rollovers"])
def test_what_is_sent_again_counts(link, ends, asked_before):
    """B gives up its key before A's ACKs come, refuses them, and sends all of it again.

    It begins with the first segment, which A has: were that too old to tell of the new key, A's
    ACKs would be refused for good.
    """
    # One that ended before all has been sent would leave room for one segment only.
    set_timers(link, round(10_000 * SLOWDOWN))
    connection = link.connected("ours", "ours", ends)
    client, server = connection.peers
    server.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for peer in connection.peers:
        peer.add(SECOND)
        if asked_before:
            peer.add(THIRD)
    if asked_before:
        ask(server, THIRD)
    connection.exchange()
    with deaf(server):
        for number in range(6):
            server.sock.send(bytes([number]))
        wait_for("all of it", lambda: len(client.sock.recv(10, socket.MSG_PEEK)) == 6)
        abi.set_authopt(server.sock)
        for key in (FIRST, THIRD)[: 1 + asked_before]:
            server.delete(key)
    wait_for("all to be acknowledged", lambda: not server.unacknowledged)
    assert asked_for(client) == mine(client, SECOND)
    assert client.sock.recv(10) == bytes(range(6))
    connection.exchange()
    connection.close()
    link.verify()
