"""TCP_REPAIR_AUTHOPT on connections: what it reads, what it sets, and its errors in their order."""

import errno
import socket
from contextlib import contextmanager

import pytest

import abi
from clock import wait_for
from link import BAD, V4, V6
from test_socket_options import refused, unprivileged

pytestmark = pytest.mark.ours

TCP = socket.IPPROTO_TCP
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
RECEIVE_QUEUE, SEND_QUEUE = 1, 2
ON, OFF_WITHOUT_PROBE = 1, -1

HALF = 1 << 31
ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]


@contextmanager
def in_repair(sock: socket.socket):
    sock.setsockopt(TCP, TCP_REPAIR, ON)
    yield
    sock.setsockopt(TCP, TCP_REPAIR, OFF_WITHOUT_PROBE)


def queue_seq(sock: socket.socket, queue: int) -> int:
    """The kernel's own word for the next sequence number of a queue."""
    sock.setsockopt(TCP, TCP_REPAIR_QUEUE, queue)
    return sock.getsockopt(TCP, TCP_QUEUE_SEQ) % 2**32


def get_and_set_refused(sock: socket.socket, number: int) -> None:
    with refused(number):
        abi.get_repair(sock)
    with refused(number):
        abi.set_repair(sock, abi.RepairAuthopt(1, 2, 3, 4, 5, 6))


@pytest.mark.parametrize("ends", ENDS)
def test_get(link, ends):
    """ISNs as on the wire, SND.NXT and RCV.NXT as the kernel says, and no wrap yet."""
    connection = link.connected("ours", "ours", ends)
    connection.exchange(bytes(1000), bytes(2000))
    syn, synack = link.verify().segments[:2]
    isns = {"A": syn.segment.seq, "B": synack.segment.seq}
    for peer, other in (connection.peers, connection.peers[::-1]):
        with in_repair(peer.sock):
            repair = abi.get_repair(peer.sock)
            assert repair == (
                isns[peer.host.name],
                isns[other.host.name],
                0,
                0,
                queue_seq(peer.sock, SEND_QUEUE),
                queue_seq(peer.sock, RECEIVE_QUEUE),
            )
            for length in range(25):
                value = abi.getsockopt_filled(peer.sock, abi.TCP_REPAIR_AUTHOPT, bytes(length))
                assert value == abi.REPAIR_AUTHOPT.pack(*repair)[:length]
            value = peer.sock.getsockopt(TCP, abi.TCP_REPAIR_AUTHOPT, 47)
            assert value == abi.REPAIR_AUTHOPT.pack(*repair), "from 48 on it is ours here, too"
            assert peer.sock.getsockopt(TCP, abi.TCP_REPAIR_AUTHOPT, 500) == value
    connection.exchange()
    connection.close()
    link.verify()


def test_set_from_any_number_within_half_of_the_space(link):
    """An SNE goes with the number beside it: it is that of the numbers now, once they are read."""
    connection = link.connected("ours", "ours")
    connection.exchange()
    sock = connection.client.sock
    distances = (0, 1, -1, 1000, -1000, HALF - 1, 1 - HALF)
    with in_repair(sock):
        now = abi.get_repair(sock)
        for sne in (0, 1, 77, 2**32 - 1):
            for distance in distances:
                snd = (sne << 32 | now.snd_seq) + distance
                rcv = (sne << 32 | now.rcv_seq) - distance
                abi.set_repair(
                    sock,
                    now._replace(
                        snd_sne=(snd >> 32) % 2**32,
                        snd_seq=snd % 2**32,
                        rcv_sne=(rcv >> 32) % 2**32,
                        rcv_seq=rcv % 2**32,
                    ),
                )
                assert abi.get_repair(sock) == now._replace(snd_sne=sne, rcv_sne=sne), distance
        abi.set_repair(sock, now)
    connection.exchange()
    connection.close()
    link.verify()


@pytest.mark.parametrize("changed", ["snd_sne", "src_isn"])
def test_set_counts_from_the_next_segment_on(link, changed):
    """What one end signs with, the other has to expect; what it received with is as it was."""
    connection = link.connected("ours", "ours")
    connection.exchange()
    client, server = connection.peers
    with in_repair(client.sock):
        right = abi.get_repair(client.sock)
        wrong = right._replace(**{changed: getattr(right, changed) ^ 1})
        abi.set_repair(client.sock, wrong)
        assert abi.get_repair(client.sock) == wrong
    client.sock.send(b"refused until both agree")
    wait_for("it to be refused", lambda: server.host.counters().get(BAD))
    assert not server.asked
    with in_repair(client.sock):
        now = abi.get_repair(client.sock)
        abi.set_repair(client.sock, now._replace(**{changed: getattr(right, changed)}))
    assert server.sock.recv(100) == b"refused until both agree"
    connection.exchange()
    connection.close()
    assert link.audit().bad, "the refused segments"


def test_error_order_without_state(link):
    """ENOENT comes after the state of the socket, and before a set minds repair."""
    connection = link.connected("plain", "plain")
    sock = connection.client.sock
    with refused(errno.EPERM):
        abi.get_repair(sock)
    with refused(errno.ENOENT):
        abi.set_repair(sock, abi.RepairAuthopt(1, 2, 3, 4, 5, 6))
    with in_repair(sock):
        get_and_set_refused(sock, errno.ENOENT)
        with refused(errno.ENOENT):
            abi.getsockopt_at(sock, abi.TCP_REPAIR_AUTHOPT, abi.NOWHERE, 24)
        with refused(errno.EFAULT):
            abi.setsockopt_at(sock, abi.TCP_REPAIR_AUTHOPT, abi.NOWHERE, 24)
    connection.close()
    link.verify(unsigned=True)


def test_set_on_a_connection_that_is_not_protected(link):
    """It has TCP_AUTHOPT, but no ISNs that mean anything, and would go on unsigned."""
    connection = link.connected("plain", "plain")
    sock = connection.client.sock
    abi.set_authopt(sock)
    get_and_set = (errno.EPERM, errno.ENOENT)
    for call, number in zip((abi.get_repair, set_something), get_and_set, strict=True):
        with refused(number):
            call(sock)
    with in_repair(sock):
        with refused(errno.ENOENT):
            set_something(sock)
        now = queue_seq(sock, SEND_QUEUE), queue_seq(sock, RECEIVE_QUEUE)
        assert abi.get_repair(sock) == (0, 0, 0, 0, *now)
    connection.close()
    link.verify(unsigned=True)


def set_something(sock: socket.socket) -> None:
    abi.set_repair(sock, abi.RepairAuthopt(1, 2, 3, 4, 5, 6))


def test_ids_received_can_be_set_in_repair(link):
    """And only there, and of a protected connection."""
    connection = link.connected("ours", "ours")
    connection.exchange()
    sock = connection.client.sock
    before = abi.get_authopt(sock)
    other = abi.AUTHOPT.pack(abi.FLAG_ACTIVE, 0, 0, 33, 44)
    sock.setsockopt(TCP, abi.TCP_AUTHOPT, other)
    assert abi.get_authopt(sock) == before
    with in_repair(sock):
        sock.setsockopt(TCP, abi.TCP_AUTHOPT, abi.AUTHOPT.pack(0, 0, 0, 33, 44))
        assert abi.get_authopt(sock) == before, "ACTIVE is not set"
        sock.setsockopt(TCP, abi.TCP_AUTHOPT, other)
        assert abi.get_authopt(sock) == (*before[:3], 33, 44)
    connection.exchange()
    assert abi.get_authopt(sock) == before, "the peer has spoken"
    connection.close()
    link.verify()
    closed = link.client("ours", V4).sock
    with in_repair(closed):
        closed.setsockopt(TCP, abi.TCP_AUTHOPT, other)
        assert abi.get_authopt(closed) == (0, 0, 0, 0, 0)


def test_error_order_with_state(link):
    connection = link.connected("ours", "ours")
    sock = connection.client.sock
    get_and_set_refused(sock, errno.EPERM)
    with refused(errno.EPERM):
        abi.getsockopt_at(sock, abi.TCP_REPAIR_AUTHOPT, abi.NOWHERE, 24)
    for length in (0, 23, 25, 48, 600):
        with refused(errno.EFAULT):
            sock.setsockopt(TCP, abi.TCP_REPAIR_AUTHOPT, bytes(length))
    with in_repair(sock):
        before = abi.get_repair(sock)
        with refused(errno.EFAULT):
            abi.getsockopt_at(sock, abi.TCP_REPAIR_AUTHOPT, abi.NOWHERE, 24)
        cliff = abi.Cliff()
        with refused(errno.EFAULT):
            abi.setsockopt_at(sock, abi.TCP_REPAIR_AUTHOPT, cliff.hold(bytes(20)), 24)
        assert abi.get_repair(sock) == before
    with unprivileged(), pytest.raises(PermissionError):
        sock.setsockopt(TCP, TCP_REPAIR, ON)
    connection.close()
    link.verify()


def test_a_closed_socket_in_repair(link):
    """A get has nothing to tell but what is there; a set needs a connection."""
    sock = link.client("ours", V4).sock
    with in_repair(sock):
        assert abi.get_repair(sock) == (0, 0, 0, 0, 0, 0)
        with refused(errno.EPERM):
            abi.set_repair(sock, abi.RepairAuthopt(1, 2, 3, 4, 5, 6))
        with refused(errno.EFAULT):
            sock.setsockopt(TCP, abi.TCP_REPAIR_AUTHOPT, bytes(8))
    link.audit()
