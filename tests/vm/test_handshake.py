"""Handshakes that do not go straight through: losses, crossed SYNs, a socket with itself."""

import errno
import socket
from collections import Counter
from dataclasses import dataclass, replace

import pytest

import abi
from clock import wait_for
from conftest import ROLES
from craft import ACK, PSH, SYN
from forge import Forger
from handshake import ANSWER, CASES, OPENING, accept, assert_echoes, far_host, sent, talk_in_turn
from link import FIRST, PORT, SECOND, V4, V6, Ends, Link, Mkt, Peer
from link import ROLES as KINDS
from netns import Tap
from requirement import requirement
from tcp_authopt_verify import Audit, Key, Policy

ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]
EVERY_PAIR = [(client, server) for client in ("ours", "native") for server in ("ours", "native")]


@dataclass
class Attempt:
    """A client that connects to a listener."""

    client: Peer
    listener: Peer
    ends: Ends
    port: int

    def __post_init__(self) -> None:
        self.client.sock.setblocking(False)
        answer = self.client.sock.connect_ex((self.client.address, self.port))
        assert answer == errno.EINPROGRESS


def in_all(link: Link, attempts: list[Attempt], flags: int, at_least: int) -> bool:
    """Whether the side that sends such segments has sent so many in each attempt."""
    host = link.a if flags == OPENING else link.b
    count = Counter(
        (segment.dport if flags == OPENING else segment.sport)
        for segment in sent(link, host, flags)
    )
    return all(count[attempt.port] >= at_least for attempt in attempts)


@requirement(13)
@pytest.mark.ours
def test_syn_syn_ack_and_ack_are_lost(link: Link):
    """In every pairing, IPv4 and IPv6, at once, since the timers take seconds.

    What ends the handshake at the server is the client's first data, or, where the client has
    nothing to say, its answer to a SYN-ACK that is sent once more.
    """
    to_a, to_b = link.a.gate(), link.b.gate()
    to_b.shut()
    attempts = []
    for ends in (V4, V6):
        for client, server in EVERY_PAIR:
            port = 1000 + len(attempts)
            listener = link.listen(server, ends, FIRST, port=port)
            attempts.append(Attempt(link.client(client, ends, FIRST), listener, ends, port))
    assert in_all(link, attempts, OPENING, 1)
    to_a.shut()
    to_b.open()
    wait_for("the SYNs to come again", lambda: in_all(link, attempts, OPENING, 2))
    wait_for("SYN-ACKs, which are lost", lambda: in_all(link, attempts, ANSWER, 1))
    assert all(attempt.client.pending for attempt in attempts)
    to_b.shut()
    to_a.open()
    wait_for("the SYN-ACKs to come again", lambda: in_all(link, attempts, ANSWER, 2))
    for attempt in attempts:
        wait_for("the client to be through", lambda a=attempt: not a.client.pending)
        assert not attempt.listener.asked, "its ACK was lost"
    to_b.open()
    talkers = [attempt for attempt in attempts if attempt.ends is V4]
    silent = [attempt for attempt in attempts if attempt.ends is V6]
    for attempt in talkers:
        attempt.client.sock.send(b"first")
        connection = accept(attempt.listener, attempt.client)
        assert connection.server.sock.recv(5) == b"first"
        connection.exchange()
        connection.close()
    for attempt in silent:
        wait_for("a SYN-ACK to be answered", lambda a=attempt: a.listener.asked, 10)
        connection = accept(attempt.listener, attempt.client)
        connection.exchange()
        connection.close()
    assert in_all(link, silent, ANSWER, 3)
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


def crossed(link: Link, near: str, far: str, ends: Ends) -> tuple[Peer, Peer]:
    """Two sockets whose SYNs cross: each answers with a SYN-ACK of its own.

    Both SYNs are kept from arriving, and are put on the cable again one after the other. The first
    answer is lost, however often it comes, so that the other end is in SYN-SENT still.
    """
    a = link.client(near, ends, FIRST)
    b = far_host(link, far, ends, FIRST)
    for peer, host, family, port in (
        (a, link.a, ends.client, 1001),
        (b, link.b, ends.server, 1002),
    ):
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        peer.sock.bind((host.address(ends.wire, family), port))
        peer.sock.setblocking(False)
    to_a, to_b = link.a.gate(), link.b.gate()
    to_a.shut()
    to_b.shut()
    assert a.sock.connect_ex((a.address, 1002)) == errno.EINPROGRESS
    assert b.sock.connect_ex((b.address, 1001)) == errno.EINPROGRESS
    records = link.verify().records
    syns = {
        record.source: frame.data
        for frame, record in zip(link.tap.frames, records, strict=False)
        if record.segment is not None
    }

    to_b.open()
    link.a.inject(syns[link.a.addresses[ends.wire]])
    wait_for("B's SYN-ACK, which is lost", lambda: sent(link, link.b, ANSWER))
    assert a.pending
    to_a.lose_syn_acks()
    link.b.inject(syns[link.b.addresses[ends.wire]])
    wait_for("A's SYN-ACK", lambda: sent(link, link.a, ANSWER))
    for peer in (a, b):
        wait_for("the connection", lambda peer=peer: not peer.pending)
        assert peer.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    to_a.open()
    return a, b


@requirement(13)
@pytest.mark.parametrize(("near", "far", "ends"), CASES)
def test_simultaneous_open(link: Link, near, far, ends):
    a, b = crossed(link, near, far, ends)
    connection = link.join(a, b)
    for _ in range(3):
        connection.exchange()
    for role, peer in ((near, a), (far, b)):
        if role == "ours":
            assert abi.get_authopt(peer.sock) == (
                abi.FLAG_ACTIVE,
                *(peer.host.ids(FIRST)),
                *(peer.host.ids(FIRST)[::-1]),
            )
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


LOOPED = Mkt("looped", b"to whom it was from", 77, 77)


@requirement(13)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("role", ROLES)
def test_self_connect(link: Link, role, ends):
    """One socket is both ends: its SYN crosses itself. What it sends it has to accept."""
    address = link.a.address(ends.wire, ends.client)
    tap = Tap(link.a.namespace, "lo")
    peer = Peer(link, link.a, KINDS[role], link.a.tcp_socket(ends.client), address)
    peer.add(LOOPED)
    peer.role.protect(peer.sock)
    peer.sock.bind((address, 1001))
    peer.sock.connect((address, 1001))
    for _ in range(3):
        peer.sock.send(b"to myself")
        assert peer.sock.recv(100) == b"to myself"
    peer.sock.shutdown(socket.SHUT_WR)
    assert peer.sock.recv(1) == b""

    own = link.a.addresses[ends.wire]
    key = Key("looped", own, own, 77, 77, LOOPED.algorithm.verifier, LOOPED.secret)
    # Nobody computes checksums for loopback.
    audit = Audit(Policy((key,), check_checksums=False))
    for frame in tap.settle():
        audit.feed(frame)
    tap.close()
    link.report = audit.report
    assert audit.report.ok, audit.report.summary()
    assert tap.drops == 0
    flags = {record.segment.flags & ANSWER for record in audit.report.signed}
    assert flags == {OPENING, ANSWER, ACK}
    assert link.a.counters() == {}


@requirement(21)
@pytest.mark.parametrize(("client", "server", "ends"), CASES)
def test_deferred_accept(link: Link, client, server, ends):
    """The ACK alone opens nothing: the request stays, and answers what is out of its window."""
    listener = link.listen(server, ends, FIRST)
    listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    client = link.client(client, ends, FIRST)
    link.start(client)
    wait_for("the client to be through", lambda: not client.pending)
    counters = link.b.namespace.counters
    wait_for("its ACK to be put aside", lambda: counters()["TCPDeferAcceptDrop"] == 1)
    assert not listener.asked

    forger = Forger.of(link, link.a, ends.wire)
    replies = len(forger.segments(link.b))
    last = forger.segments(link.a)[-1]
    forger.send(forger.tcp(seq=last.seq - 1), forger.ao(FIRST))
    wait_for("the request's ACK", lambda: len(forger.segments(link.b)) == replies + 1)
    reply = forger.segments(link.b)[-1]
    assert (reply.flags, reply.seq, reply.ack) == (ACK, last.ack, last.seq)
    assert not listener.asked

    client.sock.send(b"at last")
    connection = accept(listener, client)
    assert connection.server.sock.recv(7) == b"at last"
    connection.exchange()
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(14)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("server", ROLES)
def test_syn_comes_again_with_another_rnextkeyid(link: Link, server, ends):
    """Each SYN-ACK is what the first SYN asked for; the connection follows its last segment."""
    listener = link.listen(server, ends, FIRST, SECOND)
    forger = Forger(link, link.a, ends.wire, 1024, PORT)
    syn = forger.tcp(seq=9000, flags=SYN)
    first = forger.ao(FIRST, src_isn=9000)
    second = replace(first, rnextkeyid=link.b.ids(SECOND)[0])
    for count, signature in enumerate((first, second), 1):
        forger.send(syn, signature)
        wait_for("a SYN-ACK", lambda n=count: len(sent(link, link.b, ANSWER)) >= n)

    signature = replace(second, dst_isn=forger.isn(link.b))
    forger.send(forger.tcp(), signature)
    wait_for("the handshake to end", lambda: listener.asked)
    forger.send(forger.tcp(flags=PSH | ACK, payload=b"with the second, please"), signature)
    accepted = listener.accept()
    assert accepted.sock.recv(100) == b"with the second, please"
    accepted.sock.send(b"as you wish")
    wait_for("data", lambda: forger.segments(link.b)[-1].payload)

    from_b = [r for r in link.verify().signed if r.source == link.b.addresses[ends.wire]]
    assert {r.key.name for r in from_b if r.segment.flags & SYN} == {"first"}
    assert from_b[-1].key.name == "second"
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_timestamps_after_crossed_syns(link: Link, ends):
    """Both ends echo what came last, though neither was a server."""
    link.without_sack()
    a, b = crossed(link, "ours", "ours", ends)
    opened = len(link.verify().signed)
    connection = link.join(a, b)
    talk_in_turn(connection)
    connection.close()
    link.verify()
    assert_echoes(link, (link.a, link.b), since=opened)
