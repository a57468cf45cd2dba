"""Sequence numbers that pass 2^32 (RFC 5925 6.2): the extension is part of every MAC."""

import socket

import pytest

from clock import wait_for
from conftest import OURS, ROLES
from craft import ACK, PSH, SYN
from forge import Forger
from link import BAD, FIRST, PORT, V4, V6, Link, Peer
from requirement import requirement

ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
TCP_SEND_QUEUE = 2
NEAR = (1 << 32) - 300


def begin_at(peer: Peer, isn: int) -> None:
    """The initial sequence number that connect() will use, which repair can choose."""
    for option, value in (
        (TCP_REPAIR, 1),
        (TCP_REPAIR_QUEUE, TCP_SEND_QUEUE),
        (TCP_QUEUE_SEQ, isn - (1 << 32)),
        (TCP_REPAIR, 0),
    ):
        peer.sock.setsockopt(socket.IPPROTO_TCP, option, value)


@requirement(15)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(
    ("client", "server"),
    [
        pytest.param("ours", "ours", marks=OURS),
        pytest.param("ours", "native", marks=OURS),
        pytest.param("native", "ours", marks=OURS),
        ("native", "native"),
    ],
)
def test_client_wraps(link: Link, client, server, ends):
    listener = link.listen(server, ends, FIRST)
    client = link.client(client, ends, FIRST)
    begin_at(client, NEAR)
    connection = link.connect(client, listener)
    for _ in range(10):
        connection.exchange(bytes(100), bytes(100))
    connection.close()
    sent = [r.segment.seq for r in link.verify().signed if r.source == link.a.addresses[ends.wire]]
    assert min(sent) < 1000 < NEAR < max(sent), "they passed it"
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(15)
@pytest.mark.parametrize("isn", [NEAR, (1 << 32) - 2], ids=["near", "fffffffe"])
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("server", ROLES)
def test_peer_of_a_server_wraps(link: Link, server, ends, isn):
    """A peer that signs with the verifier's MAC: right before, at and after the wrap."""
    accepts(link, server, ends, isn)


@requirement(15)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_isn_ffffffff(link: Link, ends):
    """The SYN itself is the last number before the wrap; the kernel's own TCP-AO loses count."""
    accepts(link, "ours", ends, (1 << 32) - 1)


def accepts(link: Link, server: str, ends, isn: int) -> None:
    """The server takes 600 bytes from a peer with this ISN, and none with another SNE."""
    listener = link.listen(server, ends, FIRST)
    forger = Forger(link, link.a, ends.wire, 1024, PORT)
    forger.send(forger.tcp(seq=isn, flags=SYN), forger.ao(FIRST, src_isn=isn))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))
    position = isn + 1

    def send(payload: bytes, *, off: int = 0) -> None:
        sne = (position >> 32) + off
        flags = PSH | ACK if payload else ACK
        segment = forger.tcp(seq=position, flags=flags, payload=payload)
        forger.send(segment, forger.ao(FIRST, src_isn=isn, sne=sne % (1 << 32)))

    send(b"")
    wait_for("the handshake to end", lambda: listener.asked)
    accepted, _ = listener.sock.accept()
    link.b.sockets.append(accepted)
    accepted.settimeout(10)
    for number in range(6):
        payload = bytes([number]) * 100
        for count, off in enumerate((1, -1), 2 * number + 1):
            send(payload, off=off)
            refused = {BAD: count}
            wait_for("another SNE to be refused", lambda r=refused: link.b.counters() == r)
        send(payload)
        assert accepted.recv(200) == payload
        position += len(payload)
        end = position % (1 << 32)
        wait_for("the ACK", lambda end=end: forger.segments(link.b)[-1].ack == end)
    assert len(link.audit().bad) == link.b.counters()[BAD] == 12
