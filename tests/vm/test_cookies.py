"""SYN cookies: between SYN-ACK and ACK the listener remembers nothing, not even of the key."""

import socket

import pytest

import abi
from clock import wait_for
from conftest import OURS, PAIRS
from craft import ACK, SYN
from forge import Forger, md5_is_right, with_md5
from handshake import ANSWER, OPENING, Negotiated, assert_echoes, names, ours, sent, talk_in_turn
from link import FIRST, PORT, REQUIRED, V4, V6, Ends, Link, Peer
from requirement import requirement
from test_md5 import MD5_UNEXPECTED, SECRET, counters, second_address, set_md5

ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]
BULK = bytes(range(256)) * 1200
TO_OURS = [pair for pair in PAIRS if pair.values[1] == "ours"]
TO_NATIVE = [pair for pair in PAIRS if pair.values[1] == "native"]


def cookies(link: Link) -> tuple[int, int]:
    """How many SYN cookies B has sent and got back."""
    found = link.b.namespace.counters()
    return found["SyncookiesSent"], found["SyncookiesRecv"]


def with_cookie(link: Link, client: str, server: str, ends: Ends):
    """A connection that began with a SYN cookie."""
    link.b.namespace.write_sysctl("net/ipv4/tcp_syncookies", 2)
    connection = link.connected(client, server, ends)
    assert cookies(link) == (1, 1)
    return connection


@requirement(13)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(("client", "server"), TO_OURS)
def test_bulk(link: Link, client, server, ends):
    """The peer offers SACK, timestamps and window scaling: both ends agree on the last two."""
    connection = with_cookie(link, client, server, ends)
    (syn,), (answer,) = sent(link, link.a, OPENING), sent(link, link.b, ANSWER)
    assert names(syn) == {"ao", "mss", "wscale", "timestamps", "sack-permitted"}
    assert names(answer) == {"ao", "mss", "wscale", "timestamps"}
    connection.exchange()
    agreed = Negotiated.read(connection.client.sock)
    assert Negotiated.read(connection.server.sock) == agreed.mirrored
    assert (agreed.timestamps, agreed.sack, agreed.scaled) == (True, False, True)
    assert agreed.snd_wscale
    connection.exchange(BULK, BULK[::-1])
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(13)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(("client", "server"), TO_NATIVE)
def test_small_with_the_kernels_server(link: Link, client, server, ends):
    """It does not keep the window's scale: see Documentation/testing.rst."""
    connection = with_cookie(link, client, server, ends)
    connection.exchange()
    connection.close()
    link.verify()


@pytest.mark.parametrize(
    ("ends", "whose"),
    [pytest.param(V4, "client", id="v4-client"), pytest.param(V6, "server", id="v6-server")],
)
@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_without_timestamps(link: Link, client, server, ends, whose):
    """A cookie without a timestamp has no room for options: neither end uses any."""
    host = link.a if whose == "client" else link.b
    host.namespace.write_sysctl("net/ipv4/tcp_timestamps", 0)
    connection = with_cookie(link, client, server, ends)
    (answer,) = sent(link, link.b, ANSWER)
    assert names(answer) == {"ao", "mss"}
    agreed = Negotiated.read(connection.client.sock)
    assert agreed == Negotiated.read(connection.server.sock) == (False, False, False, 0, 0)
    # More than the window is at first, which is not scaled.
    connection.exchange(BULK[:100000], BULK[:100000])
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(("client", "server"), TO_OURS)
def test_timestamps(link: Link, client, server, ends):
    """Echoed rightly from the beginning, though the first one carried the cookie."""
    connection = with_cookie(link, client, server, ends)
    talk_in_turn(connection)
    link.verify()
    assert_echoes(link, ours(link, client, server))


@requirement(13)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("client", [pytest.param("ours", marks=OURS)])
def test_lost_ack(link: Link, client, ends):
    """What opens the connection is the first segment with data: its cookie is as good."""
    link.b.namespace.write_sysctl("net/ipv4/tcp_syncookies", 2)
    listener = link.listen("ours", ends, FIRST)
    forger = Forger(link, link.a, ends.wire, 1024, PORT)
    forger.send(forger.tcp(seq=1000, flags=SYN), forger.ao(FIRST, src_isn=1000))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))
    forger.send(forger.tcp(payload=b"with data"), forger.ao(FIRST))
    accepted = take(link, listener)
    assert accepted.recv(100) == b"with data"
    accepted.send(b"answer")
    wait_for("the answer", lambda: forger.segments(link.b)[-1].payload == b"answer")
    link.verify()


def take(link: Link, listener: Peer) -> socket.socket:
    """Accepts what has to be there soon."""
    wait_for("a connection", lambda: listener.asked)
    accepted, _ = listener.sock.accept()
    accepted.settimeout(10)
    link.b.sockets.append(accepted)
    return accepted


@requirement(21)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_ack_has_to_be_signed_and_to_bring_the_cookie(link: Link, ends):
    """A peer with an AO key, and on the same listener an MD5 key: unsigned, MD5, no cookie."""
    link.b.namespace.write_sysctl("net/ipv4/tcp_syncookies", 2)
    listener = link.listen("ours", ends, FIRST)
    set_md5(listener)
    forger = Forger(link, link.a, ends.wire, 1024, PORT)
    forger.send(forger.tcp(seq=1000, flags=SYN), forger.ao(FIRST, src_isn=1000))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))
    good, signature = forger.tcp(flags=ACK), forger.ao(FIRST)
    forger.send(good)
    wait_for("it to be refused", lambda: counters(link.b) == {REQUIRED: 1})
    forger.send(with_md5(good, SECRET))
    expected = {REQUIRED: 1, MD5_UNEXPECTED: 1}
    wait_for("it to be refused", lambda: counters(link.b) == expected)
    # The next few would be good cookies for another MSS.
    elsewhere = forger.tcp(flags=ACK, ack=good.ack + 1000)
    forger.send(elsewhere, forger.ao(FIRST, dst_isn=signature.dst_isn + 1000))
    failed = link.b.namespace.counters
    wait_for("it to be refused", lambda: failed()["SyncookiesFailed"] == 1)
    assert cookies(link) == (1, 0)
    assert not listener.asked

    forger.send(good, signature)
    accepted = take(link, listener)
    assert abi.get_authopt(accepted).flags == abi.FLAG_ACTIVE
    assert counters(link.b) == expected
    accepted.send(b"hello")
    wait_for("data", lambda: forger.segments(link.b)[-1].payload == b"hello")
    # Two that were refused, and the one whose ISN is made up.
    assert len(link.audit().bad) == 3


@requirement(32)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_listener_with_md5_peers_and_ao_peers(link: Link, ends):
    """Each is served as its own key wants it, also those that have none."""
    link.b.namespace.write_sysctl("net/ipv4/tcp_syncookies", 2)
    listener = link.listen("ours", ends, FIRST)
    address = second_address(link, ends)
    abi.set_md5(listener.sock, address, SECRET)
    client = link.client("native", ends, FIRST)
    client.sock.bind((link.a.address(ends.wire, ends.client), 0))
    first = link.connect(client, listener)
    signer = link.client("plain", ends)
    signer.sock.bind((address, 0))
    set_md5(signer)
    second = link.connect(signer, listener)
    assert cookies(link) == (2, 2)
    for connection in (first, second):
        connection.exchange()
    assert abi.get_authopt(first.server.sock).flags == abi.FLAG_ACTIVE
    assert abi.get_authopt(second.server.sock).flags == 0
    for connection in (first, second):
        connection.close()
    report = link.verify(unsigned=True)
    assert report.unsigned
    assert all(md5_is_right(record.segment, SECRET) for record in report.unsigned)
    assert not counters(link.b)
    assert link.a.addresses[ends.wire] in {record.source for record in report.signed}
    assert address not in {record.source for record in report.signed}


@requirement(9)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_peer_without_a_key(link: Link, ends):
    """Its cookie has SACK too: nothing of the module's is in its way."""
    link.b.namespace.write_sysctl("net/ipv4/tcp_syncookies", 2)
    listener = link.listen("ours", ends)
    connection = link.connect(link.client("plain", ends), listener)
    connection.exchange(BULK, BULK)
    assert cookies(link) == (1, 1)
    agreed = Negotiated.read(connection.client.sock)
    assert Negotiated.read(connection.server.sock) == agreed.mirrored
    assert agreed.sack
    assert abi.get_authopt(connection.server.sock).flags == 0
    link.verify(unsigned=True)


@requirement(19, 20)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_accepted_socket_has_flags_and_locks(link: Link, ends):
    """Those of the listener, and the ids of the ACK."""
    link.b.namespace.write_sysctl("net/ipv4/tcp_syncookies", 2)
    listener = link.listen("ours", ends, FIRST)
    flags = abi.FLAG_LOCK_KEYID | abi.FLAG_LOCK_RNEXTKEYID | abi.FLAG_REJECT_UNEXPECTED
    abi.set_authopt(listener.sock, flags, FIRST.b_id, FIRST.a_id)
    connection = link.connect(link.client("ours", ends, FIRST), listener)
    assert cookies(link) == (1, 1)
    got = abi.get_authopt(connection.server.sock)
    assert (got.flags, got.recv_keyid) == (flags | abi.FLAG_ACTIVE, FIRST.a_id)
    connection.exchange()
    link.verify()
