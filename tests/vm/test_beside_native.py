"""The kernel's own TCP-AO and plain TCP while the module is loaded and on: as without it."""

import errno
import socket
from dataclasses import replace

import pytest

import abi
from clock import wait_for
from craft import ACK, PSH
from forge import Forger
from link import BAD, CMAC, FIRST, PORT, V4, V6, Mkt, Peer, prefix_of
from test_contract_repair import OFF_WITHOUT_PROBE, TCP_REPAIR
from test_reuse import disconnect
from test_socket_options import refused
from userfault import Unwritten

pytestmark = pytest.mark.ours

TCP = socket.IPPROTO_TCP
ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]


@pytest.mark.parametrize("ends", ENDS)
def test_native_state_of_a_connection(link, ends):
    connection = link.connected("native", "native", ends)
    connection.exchange()
    for peer in connection.peers:
        send_id, recv_id = peer.host.ids(FIRST)
        info = abi.NativeInfo.read(peer.sock)
        assert (info.current_key, info.rnext) == (send_id, recv_id)
        assert info.good >= 2
        assert (info.bad, info.key_not_found, info.ao_required) == (0, 0, 0)
    connection.close()
    link.verify()


def test_native_keys_are_dumped(link):
    """TCP_AO_GET_KEYS reads its question from the buffer it answers into."""
    client = link.client("native", V4, FIRST)
    question = abi.AO_GET.pack(
        bytes(128), bytes(64), bytes(80), 1, abi.GET_ALL, 0, 0, 0, 0, 0, 0, 0, 0, 0
    )
    answer = abi.getsockopt_filled(client.sock, abi.TCP_AO_GET_KEYS, question)
    fields = abi.AO_GET.unpack(answer)
    assert fields[0][:8] == abi.pack_sockaddr("192.0.2.2")[:8]
    assert fields[1].rstrip(b"\0") == b"hmac(sha1)"
    assert fields[2][: len(FIRST.secret)] == FIRST.secret
    assert fields[3] == 1
    assert fields[5:8] == (FIRST.a_id, FIRST.b_id, 32)
    link.audit()


@pytest.mark.parametrize("ends", ENDS)
def test_native_option_meanings(link, ends):
    """A socket with native keys: every number is the kernel's, whatever the size."""
    connection = link.connected("native", "native", ends)
    peers = link.client("native", ends, FIRST), connection.listener, *connection.peers
    for sock in (peer.sock for peer in peers):
        with refused(errno.EINVAL):
            sock.setsockopt(TCP, abi.TCP_AUTHOPT, bytes(8))
        with refused(errno.ENOENT):
            abi.set_key(sock, abi.pack_key(1, 2))  # as TCP_AO_DEL_KEY with a longer struct
        for option in (abi.TCP_AUTHOPT, abi.TCP_AUTHOPT_KEY):
            with refused(errno.ENOPROTOOPT):
                sock.getsockopt(TCP, option, 8)
        assert not abi.NativeInfo.read(sock).flags & abi.INFO_AO_REQUIRED
        abi.native_require(sock)
        assert abi.NativeInfo.read(sock).flags & abi.INFO_AO_REQUIRED
    connection.exchange()
    connection.close()
    for host in (link.a, link.b):
        assert host.namespace.read("tcp_authopt").count("\n") == 1
    link.verify()


@pytest.mark.parametrize("ends", ENDS)
def test_our_option_meanings(link, ends):
    """A socket with our state: every number is ours, whatever the size.

    So it is for listeners and for both kinds of connections, protected or not.
    """
    protected = link.connected("ours", "ours", ends, FIRST)
    for peer in protected.peers:
        peer.delete(FIRST)
    unprotected = link.connect(link.client("ours", ends), link.listen("ours", ends, port=8080))
    socks = [link.client("ours", ends).sock]
    for connection in (protected, unprotected):
        socks += [peer.sock for peer in (*connection.peers, connection.listener)]
    key = abi.AO_ADD.pack(bytes(128), b"hmac(sha1)", 0, 0, 0, 0, 1, 2, 0, 0, 1, b"x")
    for sock in socks:
        for _ in range(2):
            with refused(errno.EINVAL):
                sock.setsockopt(TCP, abi.TCP_AO_ADD_KEY, key)
            with refused(errno.EFAULT):
                sock.setsockopt(TCP, abi.TCP_AO_INFO, bytes(48))
            with refused(errno.EPERM):
                sock.getsockopt(TCP, abi.TCP_AO_INFO, 48)
            for option in (abi.TCP_AO_GET_KEYS, abi.TCP_AO_REPAIR):
                with refused(errno.ENOPROTOOPT):
                    sock.setsockopt(TCP, option, bytes(304))
                with refused(errno.ENOPROTOOPT):
                    sock.getsockopt(TCP, option, 304)
            abi.set_authopt(sock, abi.FLAG_REJECT_UNEXPECTED)
            assert abi.get_authopt(sock).flags & ~abi.FLAG_ACTIVE == abi.FLAG_REJECT_UNEXPECTED
        # As a key of ours, without an algorithm.
        with refused(errno.EINVAL):
            sock.setsockopt(TCP, abi.TCP_AO_DEL_KEY, bytes(144))
    unprotected.exchange()
    unprotected.close()
    link.audit(unsigned=True)


def test_a_connection_with_neither(link):
    """The kernel refuses its own options there, as without us; ours are accepted, in vain."""
    connection = link.connected("plain", "plain")
    client, server = connection.peers
    with refused(errno.EISCONN):
        abi.native_add_key(client.sock, client.address, 32, 1, 2, "hmac(sha1)", b"x")
    with refused(errno.EISCONN):
        abi.native_require(client.sock)
    with refused(errno.EISCONN):
        abi.native_del_key(client.sock, client.address, 32, 1, 2)
    with refused(errno.ENOENT):
        abi.NativeInfo.read(client.sock)
    abi.set_authopt(server.sock)
    assert abi.get_authopt(server.sock) == (0, 0, 0, 0, 0)
    connection.exchange()
    connection.close()
    assert not link.verify(unsigned=True).signed


def test_sizes_tell_them_apart(link):
    """On a socket with neither, a native request is known by its size."""
    fresh = [link.client("plain", V4).sock for _ in range(4)]
    abi.native_add_key(fresh[0], "192.0.2.2", 32, 1, 2, "hmac(sha1)", b"x")
    with refused(errno.ENOENT):
        abi.native_del_key(fresh[1], "192.0.2.2", 32, 1, 2)
    abi.native_require(fresh[2])
    assert abi.NativeInfo.read(fresh[2]).flags == abi.INFO_AO_REQUIRED
    fresh[3].setsockopt(TCP, abi.TCP_AUTHOPT, bytes(288))
    assert abi.get_authopt(fresh[3]).flags == 0, "288 zeros are our probe, not a native key"
    link.audit()


@pytest.mark.parametrize("ends", ENDS)
def test_plain_connections(link, ends):
    connection = link.connected("plain", "plain", ends)
    connection.exchange(bytes(100_000), bytes(100_000))
    connection.close()
    report = link.verify(unsigned=True)
    assert report.unsigned
    assert not report.signed
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@pytest.mark.parametrize("ends", ENDS)
def test_plain_connection_to_a_peer_with_a_key(link, ends):
    """Keys do nothing to sockets that never asked."""
    link.client("ours", ends, FIRST)
    link.listen("ours", ends, FIRST)
    connection = link.connected("plain", "plain", ends, port=8080)
    connection.exchange()
    connection.close()
    assert not link.verify(unsigned=True).signed


@pytest.mark.parametrize("ends", ENDS)
def test_all_kinds_at_once(link, ends):
    """Ours, native, mixed and plain connections between the same two hosts."""
    native = Mkt("native", b"the kernel's", 5, 6, CMAC)
    connections = [
        link.connected("ours", "ours", ends, FIRST, 1001),
        link.connected("native", "native", ends, native, 1002),
        link.connected("ours", "native", ends, FIRST, 1003),
        link.connected("native", "ours", ends, FIRST, 1004),
        link.connected("plain", "plain", ends, FIRST, 1005),
    ]
    for connection in connections * 2:
        connection.exchange(bytes(5000), bytes(7000))
    for connection in connections:
        connection.close()
    report = link.audit(unsigned=True)
    assert report.ok, report.summary()
    ports = {port: set() for port in range(1001, 1006)}
    for record in report.segments:
        (port,) = {record.segment.sport, record.segment.dport} & ports.keys()
        ports[port].add(record.key.name if record.key else None)
    assert ports == {
        1001: {"first"},
        1002: {"native"},
        1003: {"first"},
        1004: {"first"},
        1005: {None},
    }
    assert (link.a.counters(), link.b.counters()) == ({}, {})


def test_native_key_and_ours_for_one_peer(link):
    """The same ids and another secret in the other interface: neither sees the other's keys."""
    other = replace(FIRST, name="other", secret=b"same ids, other secret")
    ours = link.connected("ours", "ours", V4, FIRST, 1001)
    native = link.connected("native", "native", V4, other, 1002)
    for connection in (ours, native):
        connection.exchange()
        connection.close()
    names = {(min(r.segment.sport, r.segment.dport), r.key.name) for r in link.verify().signed}
    assert names == {(1001, "first"), (1002, "other")}


def native_key(peer: Peer, key: Mkt) -> bytes:
    """The kernel's key for the other end, to be the one that is used."""
    return abi.AO_ADD.pack(
        abi.pack_sockaddr(peer.address),
        key.algorithm.native.encode(),
        0,
        abi.SET_CURRENT | abi.SET_RNEXT,
        0,
        prefix_of(peer.address),
        *peer.host.ids(key),
        0,
        0,
        len(key.secret),
        key.secret,
    )


@pytest.mark.parametrize("ends", ENDS)
def test_ours_is_asked_for_while_a_native_key_is_added(link, ends):
    """By another thread, while the value is read. The socket has both then, and is the kernel's.

    Of a connection that is not protected: in repair the kernel takes keys at any time.
    """
    connection = link.connected("plain", "plain", ends)
    server = connection.server
    server.sock.setsockopt(TCP, TCP_REPAIR, 1)
    with Unwritten() as value:
        size = abi.AO_ADD.size
        value.read_by(lambda: abi.setsockopt_at(server.sock, 38, value.address, size))
        abi.set_authopt(server.sock)
        assert value.write(native_key(server, FIRST)) == 0
    server.sock.setsockopt(TCP, TCP_REPAIR, OFF_WITHOUT_PROBE)
    assert abi.NativeInfo.read(server.sock).current_key == FIRST.b_id
    with refused(errno.ENOPROTOOPT):
        abi.get_authopt(server.sock)

    # Ours would accept what is signed: there was no key when the connection began.
    port = connection.client.sock.getsockname()[1]
    forger = Forger(link, link.a, ends.wire, port, PORT, unsigned=True)
    wrong = replace(FIRST, name="wrong", secret=b"not what the kernel was given")
    data = forger.tcp(flags=PSH | ACK, payload=b"not verified")
    forger.send(data, forger.ao(wrong))
    wait_for("it to be refused", lambda: link.b.counters() == {BAD: 1})
    assert not server.asked
    link.audit(unsigned=True)

    # Nor is it ours when it listens.
    disconnect(server.sock)
    server.sock.listen()
    assert abi.NativeInfo.read(server.sock).current_key == FIRST.b_id


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("when", ["open", "closed"])
def test_a_native_key_is_added_while_ours_is_asked_for(link, ends, when):
    """The other way round: who asks is told, and the socket is the kernel's alone."""
    if when == "open":
        peer = link.connected("plain", "plain", ends).server
        peer.sock.setsockopt(TCP, TCP_REPAIR, 1)
    else:
        peer = link.client("plain", ends)
    with Unwritten() as value:
        size = abi.AUTHOPT.size
        value.read_by(lambda: abi.setsockopt_at(peer.sock, 38, value.address, size))
        peer.sock.setsockopt(TCP, abi.TCP_AO_ADD_KEY, native_key(peer, FIRST))
        assert value.write(bytes(size)) == errno.EBUSY
    assert abi.NativeInfo.read(peer.sock).flags & abi.SET_CURRENT
    with refused(errno.ENOPROTOOPT):
        abi.get_authopt(peer.sock)
    if when == "open":
        peer.sock.setsockopt(TCP, TCP_REPAIR, OFF_WITHOUT_PROBE)
    link.audit(unsigned=True)
