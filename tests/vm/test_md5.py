"""TCP_MD5SIG beside us: peers with AO keys, peers with MD5 keys, and peers with both."""

import errno
import socket
from collections import Counter

import pytest

import abi
from abi import TCP_MD5SIG
from clock import wait_for
from craft import ACK, PSH, RST, SYN
from forge import Forger, md5_is_right, with_md5
from link import (
    FIRST,
    MAPPED_CLIENT,
    MAPPED_SERVER,
    PORT,
    REQUIRED,
    V4,
    V6,
    Connection,
    Ends,
    Host,
    Link,
    Peer,
)
from requirement import requirement
from rtnetlink import Rtnetlink
from test_reuse import disconnect
from userfault import Unwritten

pytestmark = pytest.mark.ours

ENDS = [
    pytest.param(V4, id="v4"),
    pytest.param(V6, id="v6"),
    pytest.param(MAPPED_CLIENT, id="mapped-client"),
    pytest.param(MAPPED_SERVER, id="mapped-server"),
]

SECRET = b"an MD5 key"
MD5_NOT_FOUND, MD5_UNEXPECTED = "TCPMD5NotFound", "TCPMD5Unexpected"
MD5_FAILURE, GOOD = "TCPMD5Failure", "TCPAOGood"


def counters(host: Host) -> dict[str, int]:
    """The host's counters of segments refused for their signature, those that are not zero."""
    counters = host.namespace.counters()
    names = (MD5_NOT_FOUND, MD5_UNEXPECTED, MD5_FAILURE)
    return host.counters() | {name: counters[name] for name in names if counters[name]}


def set_md5(peer: Peer) -> None:
    """Gives the socket an MD5 key for the other end."""
    abi.set_md5(peer.sock, peer.address, SECRET)


def has_md5(peer: Peer) -> bool:
    """Whether the socket has an MD5 key for the other end, which it has no more after this."""
    try:
        abi.set_md5(peer.sock, peer.address, b"")
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def md5_is_refused(peer: Peer) -> bool:
    """Whether the socket gets no MD5 key for the other end, since that has to use AO."""
    try:
        set_md5(peer)
    except OSError as error:
        return error.errno == errno.EKEYREJECTED
    return False


def talk_md5(link: Link, ends: Ends, listener_role: str, client_role: str = "plain") -> Connection:
    """A connection with MD5, between sockets of these roles that have no AO key."""
    listener = link.listen(listener_role, ends)
    client = link.client(client_role, ends)
    set_md5(listener)
    set_md5(client)
    connection = link.connect(client, listener)
    connection.exchange()
    return connection


def assert_all_md5(link: Link) -> None:
    """Every segment is signed with MD5, and rightly."""
    report = link.verify(unsigned=True)
    assert not report.signed
    assert all(md5_is_right(record.segment, SECRET) for record in report.segments)


@pytest.mark.parametrize("ends", ENDS)
def test_digest_is_the_kernels(link, ends):
    """What the forgeries below are signed with, between sockets that have nothing of ours."""
    talk_md5(link, ends, "plain").close()
    assert_all_md5(link)


@requirement(32)
@pytest.mark.parametrize("order", ["md5-first", "ao-first"])
@pytest.mark.parametrize("ends", ENDS)
def test_key_for_a_peer_with_ao_keys(link, ends, order):
    """Accepted on both ends, and gone, with MD5, once the connection is protected."""
    listener = link.listen("ours", ends)
    client = link.client("ours", ends)
    for peer in (listener, client):
        steps = [lambda peer=peer: set_md5(peer), lambda peer=peer: peer.add(FIRST)]
        for step in steps if order == "md5-first" else steps[::-1]:
            step()
    connection = link.connect(client, listener)
    connection.exchange()
    assert abi.get_authopt(client.sock).flags == abi.FLAG_ACTIVE
    assert not has_md5(connection.client)
    assert not has_md5(connection.server)
    assert has_md5(listener)
    # Later there is none to be had, as on the kernel's own protected connections.
    for peer in connection.peers:
        assert md5_is_refused(peer)
        assert not has_md5(peer)
    connection.exchange()
    connection.close()
    link.verify()


@requirement(32)
@pytest.mark.parametrize("ends", ENDS)
def test_key_for_a_connection_of_the_kernels_own(link, ends):
    """What it answers for a protected connection, we do."""
    connection = link.connected("native", "native", ends)
    assert all(md5_is_refused(peer) for peer in connection.peers)
    link.verify()


@requirement(32)
@pytest.mark.parametrize("ends", ENDS)
def test_unsigned_segment_while_a_key_is_set(link, ends):
    """While the listener's owner is in TCP_MD5SIG, and waits for memory, peers have to sign."""
    listener = link.listen("ours", ends, FIRST)
    value = abi.pack_md5(listener.address, SECRET)
    # The stack takes the first four bytes for a number, before it looks which option it is.
    with Unwritten(value[:4]) as memory:
        where = memory.address, len(value)
        memory.read_by(lambda: abi.setsockopt_at(listener.sock, TCP_MD5SIG, *where))
        client = link.client("plain", ends)
        link.start(client)
        wait_for("the SYN to be refused", lambda: link.b.counters().get(REQUIRED))
        assert client.pending
        assert memory.waits
        assert memory.write(value[4:]) == 0
    assert not listener.asked
    assert has_md5(listener)
    assert {record.segment.flags for record in link.audit(unsigned=True).segments} == {SYN}


@requirement(9)
@pytest.mark.parametrize("ends", ENDS)
def test_socket_without_an_ao_key_for_the_peer(link, ends):
    """It talks MD5, its TCP_AUTHOPT can be read, and a key that comes later changes nothing."""
    listener = link.listen("ours", ends)
    client = link.client("ours", ends)
    abi.set_authopt(client.sock, abi.FLAG_REJECT_UNEXPECTED)
    set_md5(listener)
    set_md5(client)
    connection = link.connect(client, listener)
    connection.exchange()
    assert abi.get_authopt(client.sock) == (abi.FLAG_REJECT_UNEXPECTED, 0, 0, 0, 0)
    assert abi.get_authopt(connection.server.sock) == (0, 0, 0, 0, 0)
    client.add(FIRST)
    listener.add(FIRST)
    connection.exchange()
    abi.set_authopt(client.sock)
    assert abi.get_authopt(client.sock) == (0, 0, 0, 0, 0)
    connection.close()
    assert_all_md5(link)


def second_address(link: Link, ends: Ends) -> str:
    """Gives A another address, and returns it as a client writes it."""
    address = {"v4": "192.0.2.11", "v6": "2001:db8::11"}[ends.wire]
    length = {"v4": 24, "v6": 64}[ends.wire]
    with link.a.namespace.entered(), Rtnetlink() as rtnetlink:
        rtnetlink.add_addresses(link.a.interface, [f"{address}/{length}"])
    with link.b.namespace.entered(), Rtnetlink() as rtnetlink:
        rtnetlink.add_neighbours(link.b.interface, [address], link.a.mac)
    return address


PREFIXES = [
    pytest.param(V4, ("192.0.2.0", 24), id="v4-prefix"),
    pytest.param(V6, ("2001:db8::", 64), id="v6-prefix"),
]


@requirement(32)
@pytest.mark.parametrize(
    ("ends", "prefix"), [*(pytest.param(*p.values, None, id=p.id) for p in ENDS), *PREFIXES]
)
def test_listener_for_peers_of_both_kinds(link, ends, prefix):
    """One with an AO key, one with an MD5 key, one with neither; in turn and at once.

    The MD5 key may be for a prefix, which both peers are in: AO goes first.
    """
    listener = link.listen("ours", ends, FIRST)
    address = second_address(link, ends)
    mapped = ends.wire == "v4" and ends.client == socket.AF_INET6
    far = f"::ffff:{address}" if ends is MAPPED_SERVER else address
    if prefix:
        abi.set_md5(listener.sock, prefix[0], SECRET, prefix[1])
    else:
        abi.set_md5(listener.sock, far, SECRET)

    client = link.client("native", ends, FIRST)
    client.sock.bind((link.a.address(ends.wire, ends.client), 0))
    protected = link.connect(client, listener)
    signer = link.client("plain", ends)
    signer.sock.bind((f"::ffff:{address}" if mapped else address, 0))
    set_md5(signer)
    with_md5_key = link.connect(signer, listener)
    for connection in (protected, with_md5_key) * 2:
        connection.exchange()
    assert abi.get_authopt(protected.server.sock).flags == abi.FLAG_ACTIVE
    assert abi.get_authopt(with_md5_key.server.sock).flags == 0
    for connection in (protected, with_md5_key):
        connection.close()
    report = link.verify(unsigned=True)
    of_md5 = [record.segment for record in report.unsigned]
    assert of_md5
    assert all(md5_is_right(segment, SECRET) for segment in of_md5)
    first, other = link.a.addresses[ends.wire], address
    near = link.b.addresses[ends.wire]
    assert {record.source for record in report.signed} == {first, near}
    assert {record.source for record in report.unsigned} == {other, near}
    assert not counters(link.b)

    # Without its key the second address gets nowhere, and neither does the first without its own.
    for source, counter in ((other, MD5_NOT_FOUND), (first, REQUIRED)):
        stranger = link.client("plain", ends)
        stranger.sock.bind((f"::ffff:{source}" if mapped else source, 0))
        link.start(stranger)
        wait_for("the SYN to be refused", lambda counter=counter: counters(link.b).get(counter))
        assert stranger.pending
    assert not listener.asked


@requirement(32)
@pytest.mark.parametrize("victim", ["client", "server"])
@pytest.mark.parametrize("ends", ENDS)
def test_md5_in_a_protected_connection(link, ends, victim):
    """Rightly signed with an MD5 key that this very listener has for the peer: dropped."""
    listener = link.listen("ours", ends, FIRST)
    client = link.client("ours", ends, FIRST)
    set_md5(listener)
    connection = link.connect(client, listener)
    connection.exchange()
    target, liar = (link.a, link.b) if victim == "client" else (link.b, link.a)
    forger = Forger.of(link, liar, ends.wire)
    for count, (flags, payload) in enumerate(
        ((PSH | ACK, b"forged"), (RST | ACK, b""), (RST, b""), (SYN, b""), (ACK, b"")), 1
    ):
        forger.send(with_md5(forger.tcp(flags=flags, payload=payload), SECRET))
        expected = {MD5_UNEXPECTED: count}
        wait_for("it to be refused", lambda expected=expected: counters(target) == expected)
    assert len(link.audit().bad) == count
    connection.exchange(b"undisturbed", b"as well")
    connection.close()
    assert len(link.audit().bad) == count


@requirement(32)
@pytest.mark.parametrize("ends", ENDS)
def test_md5_key_after_a_protected_connection(link, ends):
    """The connection is over, and the socket as it was before: it takes one."""
    connection = link.connected("ours", "ours", ends)
    connection.exchange()
    disconnect(connection.client.sock)
    set_md5(connection.client)
    link.verify()


@requirement(32)
@pytest.mark.parametrize("ends", ENDS)
def test_md5_of_a_peer_that_must_use_ao(link, ends):
    """The listener has both keys for it: its SYN has to have AO."""
    listener = link.listen("ours", ends, FIRST)
    set_md5(listener)
    client = link.client("plain", ends)
    set_md5(client)
    link.start(client)
    wait_for("the SYN to be refused", lambda: counters(link.b).get(MD5_UNEXPECTED))
    assert client.pending
    assert not listener.asked
    assert_all_md5(link)
    assert {record.segment.flags for record in link.report.segments} == {SYN}
    link.connect(link.client("ours", ends, FIRST), listener).exchange()


@requirement(32)
@pytest.mark.parametrize("ends", ENDS)
def test_ao_of_a_peer_that_must_use_md5(link, ends):
    """No AO key matches its signed SYN, so that the MD5 check decides: dropped."""
    listener = link.listen("ours", ends)
    set_md5(listener)
    client = link.client("native", ends, FIRST)
    link.start(client)
    wait_for("the SYN to be refused", lambda: counters(link.b).get(MD5_NOT_FOUND))
    assert set(counters(link.b)) == {MD5_NOT_FOUND}
    assert client.pending
    assert not listener.asked
    assert {record.segment.flags for record in link.verify().segments} == {SYN}


@requirement(32)
@pytest.mark.parametrize("victim", ["client", "server"])
@pytest.mark.parametrize("ends", ENDS)
def test_ao_in_an_md5_connection(link, ends, victim):
    """And unsigned segments, and wrong digests: each is dropped and counted, none disturbs."""
    connection = talk_md5(link, ends, "ours", "ours")
    port = connection.client.sock.getsockname()[1]
    target, liar = (link.a, link.b) if victim == "client" else (link.b, link.a)
    ports = (PORT, port) if victim == "client" else (port, PORT)
    forger = Forger(link, liar, ends.wire, *ports, unsigned=True)
    data = forger.tcp(flags=PSH | ACK, payload=b"forged")
    reset = forger.tcp(flags=RST | ACK)
    signature = forger.ao(FIRST)
    expected: Counter[str] = Counter()
    for segment, ao, counter in (
        (data, signature, MD5_NOT_FOUND),
        (reset, signature, MD5_NOT_FOUND),
        (data, None, MD5_NOT_FOUND),
        (with_md5(data, b"guessed"), None, MD5_FAILURE),
        (with_md5(reset, b"guessed"), None, MD5_FAILURE),
    ):
        forger.send(segment, ao)
        expected[counter] += 1
        wait_for("it to be refused", lambda: counters(target) == expected)
    connection.exchange(b"undisturbed", b"as well")
    # One that is good ends it: what was refused was refused for its signature alone.
    forger.send(with_md5(forger.tcp(flags=RST | ACK), SECRET))
    end = connection.client if victim == "client" else connection.server
    with pytest.raises(ConnectionResetError):
        end.sock.recv(1)
