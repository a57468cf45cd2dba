"""A request whose listener was closed, and that SO_REUSEPORT hands to another one.

A protected handshake does not become an unsigned connection by that, nor the other way round.
"""

import socket
from dataclasses import replace

import pytest

import abi
from clock import wait_for
from craft import RST, SYN
from forge import Forger
from handshake import ANSWER, accept, sent
from link import BAD, FIRST, PORT, ROLES, TIMEOUT, V4, V6, Connection, Ends, Link, Mkt, Peer
from requirement import requirement
from test_md5 import second_address
from test_reuse import disconnect

pytestmark = [pytest.mark.ours, pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])]

DATA = b"what opens the connection"
SUCCESS, FAILURE = "TCPMigrateReqSuccess", "TCPMigrateReqFailure"


def join(link: Link, role: str, ends: Ends, *keys: Mkt) -> Peer:
    """One more listener on B's PORT."""
    host = link.b
    host.namespace.write_sysctl("net/ipv4/tcp_migrate_req", 1)
    far = link.a.address(ends.wire, ends.server)
    listener = Peer(link, host, ROLES[role], host.tcp_socket(ends.server), far)
    for key in keys:
        listener.add(key)
    listener.role.protect(listener.sock)
    listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.sock.bind((host.address(ends.wire, ends.server), PORT))
    listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    listener.sock.listen()
    return listener


def pending(link: Link, client: Peer) -> None:
    """The client is through, while its request stays one: its ACK is put aside."""
    link.start(client)
    wait_for("the client to be through", lambda: not client.pending)
    counters = link.b.namespace.counters
    wait_for("its ACK to be put aside", lambda: counters()["TCPDeferAcceptDrop"] == 1)


def migrated(link: Link) -> int:
    """How many requests have found another listener."""
    return link.b.namespace.counters()[SUCCESS]


def carry_over(link: Link, client: Peer, old: Peer, new: Peer) -> Connection:
    """Closes the one listener; the client's data then opens its connection at the other."""
    old.sock.close()
    client.sock.send(DATA)
    connection = accept(new, client)
    assert migrated(link) == 1
    assert connection.server.sock.recv(100) == DATA
    connection.exchange()
    return connection


@requirement(21)
@pytest.mark.parametrize("client", ["ours", "native"])
def test_signed_request_to_one_of_ours(link: Link, ends, client):
    """With the flags of the listener that hands it out."""
    old = join(link, "ours", ends, FIRST)
    client = link.client(client, ends, FIRST)
    pending(link, client)
    new = join(link, "ours", ends)
    abi.set_authopt(new.sock, abi.FLAG_REJECT_UNEXPECTED)
    connection = carry_over(link, client, old, new)
    got = abi.get_authopt(connection.server.sock)
    assert got.flags == abi.FLAG_ACTIVE | abi.FLAG_REJECT_UNEXPECTED
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(21)
def test_first_segment_opens_it(link: Link, ends):
    """Of a client that we play, which sends nothing twice: it is taken when it comes, or never."""
    old = join(link, "ours", ends, FIRST)
    forger = Forger(link, link.a, ends.wire, 1024, PORT)
    forger.send(forger.tcp(seq=1000, flags=SYN), forger.ao(FIRST, src_isn=1000))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))
    forger.send(forger.tcp(), forger.ao(FIRST))
    counters = link.b.namespace.counters
    wait_for("its ACK to be put aside", lambda: counters()["TCPDeferAcceptDrop"] == 1)
    new = join(link, "ours", ends, FIRST)
    # A moment later the timer of the SYN-ACK would hand the request over by itself.
    frame = forger.frame(forger.tcp(payload=DATA), forger.ao(FIRST))
    old.sock.close()
    link.a.inject(frame)
    wait_for("a connection", lambda: new.asked)
    accepted, _ = new.sock.accept()
    link.b.sockets.append(accepted)
    accepted.settimeout(TIMEOUT)
    assert accepted.recv(100) == DATA
    assert migrated(link) == 1
    link.verify()


@requirement(21)
def test_signed_request_to_the_kernels(link: Link, ends):
    """It has the same key: still signed, by both."""
    old = join(link, "ours", ends, FIRST)
    client = link.client("ours", ends, FIRST)
    pending(link, client)
    carry_over(link, client, old, join(link, "native", ends, FIRST)).close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(21)
def test_signed_request_of_the_kernels(link: Link, ends):
    """The kernel drops what comes for a closed listener of its own, and asks the next one later."""
    old = join(link, "native", ends, FIRST)
    old.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
    to_a = link.a.gate()
    to_a.shut()
    client = link.client("native", ends, FIRST)
    link.start(client)
    wait_for("the SYN-ACK", lambda: sent(link, link.b, ANSWER))
    new = join(link, "ours", ends, FIRST)
    new.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
    old.sock.close()
    to_a.open()
    connection = accept(new, client)
    connection.exchange()
    assert migrated(link) == 1
    assert abi.get_authopt(connection.server.sock).flags == abi.FLAG_ACTIVE
    connection.close()
    link.verify()


@requirement(21)
@pytest.mark.parametrize("due", ["connection", "syn-ack"])
def test_signed_request_to_a_plain_one(link: Link, ends, due):
    """Neither when data comes nor when the SYN-ACK is due again: not a byte that is unsigned."""
    old = join(link, "ours", ends, FIRST)
    client = link.client("ours", ends, FIRST)
    to_a = link.a.gate()
    if due == "connection":
        pending(link, client)
    else:
        to_a.shut()
        link.start(client)
        wait_for("the SYN-ACK, which is lost", lambda: sent(link, link.b, ANSWER))
    new = join(link, "plain", ends)
    old.sock.close()
    if due == "connection":
        client.sock.send(DATA)
    else:
        to_a.open()
    failures = link.b.namespace.counters
    wait_for("it to be refused", lambda: failures()[FAILURE])
    assert not new.asked
    assert migrated(link) == 0
    assert link.verify().signed


@requirement(9)
@pytest.mark.parametrize("keys", ["none", "other-peer"])
@pytest.mark.parametrize("role", ["ours", "plain"])
def test_unsigned_request_goes_on(link: Link, ends, role, keys):
    """No key matches the peer: unsigned it stays, and nothing is counted as refused."""
    old = join(link, "ours", ends)
    client = link.client("plain", ends)
    pending(link, client)
    new = join(link, role, ends)
    if keys == "other-peer":
        key = link.b.control(ends.server)
        elsewhere = {"v4": "192.0.2.99", "v6": "2001:db8::99"}[ends.wire]
        abi.set_key(key, ROLES["ours"].pack(link.b, elsewhere, FIRST))
    connection = carry_over(link, client, old, new)
    if role == "ours":
        assert abi.get_authopt(connection.server.sock).flags == 0
    else:
        with pytest.raises(FileNotFoundError):
            abi.get_authopt(connection.server.sock)
    connection.close()
    report = link.verify(unsigned=True)
    assert not report.signed
    assert link.b.counters() == {}


@requirement(26)
def test_unsigned_request_of_a_plain_listener(link: Link, ends):
    """The one that takes it over has a key for the peer: it takes no unsigned one."""
    old = join(link, "plain", ends)
    client = link.client("plain", ends)
    pending(link, client)
    new = join(link, "ours", ends, FIRST)
    old.sock.close()
    client.sock.send(DATA)
    failures = link.b.namespace.counters
    wait_for("it to be refused", lambda: failures()[FAILURE] == 1)
    assert migrated(link) == 0
    # The other one gets the request when its SYN-ACK is due again, and refuses the same data.
    assert not new.asked
    report = link.verify(unsigned=True)
    assert not report.signed


@requirement(21)
@pytest.mark.parametrize("began", ["unsigned", "signed"])
def test_refused_request_is_reset_where_that_is_wanted(link: Link, ends, began):
    """As one for which the accept queue is too short; not if that would have to be signed."""
    link.b.namespace.write_sysctl("net/ipv4/tcp_abort_on_overflow", 1)
    signed = began == "signed"
    old = join(link, "ours", ends, FIRST) if signed else join(link, "plain", ends)
    client = link.client("ours", ends, FIRST) if signed else link.client("plain", ends)
    pending(link, client)
    new = join(link, "plain", ends) if signed else join(link, "ours", ends, FIRST)
    old.sock.close()
    client.sock.send(DATA)
    failures = link.b.namespace.counters
    wait_for("it to be refused", lambda: failures()[FAILURE] == 1)
    resets = [r for r in link.audit(unsigned=True).segments if r.segment.flags & RST]
    if signed:
        assert not resets
    else:
        client.sock.settimeout(TIMEOUT)
        with pytest.raises(ConnectionResetError):
            client.sock.recv(1)
    assert not new.asked


@requirement(21)
@pytest.mark.parametrize("fate", ["protected", "unprotected"])
def test_listener_connects_while_a_request_of_it_is_pending(link: Link, ends, fate):
    """What comes for the request is judged by the request, not by what its listener became."""
    old = join(link, "ours", ends, FIRST)
    client = link.client("ours", ends, FIRST)
    pending(link, client)
    forger = Forger.of(link, link.a, ends.wire)
    new = join(link, "ours", ends, FIRST)
    disconnect(old.sock)
    if fate == "protected":
        far = link.client("native", ends, FIRST)
        address = link.a.address(ends.wire, ends.client)
    else:
        far = link.client("plain", ends)
        address = second_address(link, ends)
    far.sock.bind((address, 1001))
    far.sock.listen()
    old.sock.connect((address, 1001))
    expected = abi.FLAG_ACTIVE if fate == "protected" else 0
    assert abi.get_authopt(old.sock).flags == expected

    other = replace(FIRST, name="other", secret=b"not what they share")
    forger.send(forger.tcp(payload=b"liar"), forger.ao(other))
    link.known.remove(other)
    wait_for("it to be refused", lambda: link.b.counters() == {BAD: 1})
    client.sock.send(DATA)
    connection = accept(new, client)
    assert connection.server.sock.recv(100) == DATA
    connection.exchange()
    assert abi.get_authopt(connection.server.sock).flags == abi.FLAG_ACTIVE
    assert link.b.counters() == {BAD: 1}
    assert len(link.audit(unsigned=fate == "unprotected").bad) == 1
