"""Handshake, data both ways and an orderly close, for every pairing, family and algorithm."""

import struct
import time

import pytest

from clock import wait_for
from conftest import PAIRS
from link import (
    ALGORITHMS,
    FIRST,
    MAPPED_BOTH,
    MAPPED_CLIENT,
    MAPPED_SERVER,
    V4,
    V6,
    Ends,
    Link,
    Mkt,
)
from requirement import requirement
from tcp_authopt_verify.wire import FIN, RST, SYN

TIMESTAMPS = 8
SMALL = b"a few hundred bytes: " * 20
BULK = bytes(range(256)) * 1200


def check(link: Link, key: Mkt, size: int) -> None:
    """All is signed with this key and these ids, and there is as much as there should be."""
    report = link.verify()
    a, b = link.a.addresses.values(), link.b.addresses.values()
    ids = {(r.source in a, r.key.name, r.keyid, r.rnextkeyid) for r in report.signed}
    assert ids == {(True, key.name, key.a_id, key.b_id), (False, key.name, key.b_id, key.a_id)}
    for side in (a, b):
        sent = [record.segment for record in report.signed if record.source in side]
        assert sum(len(segment.payload) for segment in sent) >= size
        assert any(segment.flags & SYN for segment in sent)
        assert any(segment.flags & FIN for segment in sent)
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(13, 16, 25, 33, 36)
@pytest.mark.parametrize("data", [SMALL, BULK], ids=["small", "bulk"])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.short)
@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_connection(link, client, server, ends, algorithm, data):
    key = Mkt(f"key-{algorithm.short}", algorithm=algorithm)
    connection = link.connected(client, server, ends, key)
    connection.exchange(data, data[::-1])
    connection.close()
    check(link, key, len(data))


@requirement(12)
@pytest.mark.parametrize(
    "ends", [MAPPED_CLIENT, MAPPED_SERVER, MAPPED_BOTH], ids=["active", "passive", "both"]
)
@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_ipv4_mapped(link, client, server, ends: Ends):
    key = Mkt("mapped")
    connection = link.connected(client, server, ends, key)
    connection.exchange(SMALL, SMALL[::-1])
    connection.close()
    check(link, key, len(SMALL))


@requirement(8)
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.short)
@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_options_not_covered(link, client, server, algorithm):
    link.without_sack()
    key = Mkt("bare", algorithm=algorithm, covers_options=False)
    connection = link.connected(client, server, V4, key)
    connection.exchange(SMALL, SMALL[::-1])
    connection.close()
    check(link, key, len(SMALL))
    assert all(record.segment.named(TIMESTAMPS) for record in link.report.signed)


@requirement(38)
@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_timestamps(link, client, server, ends):
    """What we send echoes the peer's last timestamp, as the kernel's own passive end does not."""
    link.without_sack()
    connection = link.connected(client, server, ends)
    for _ in range(3):
        for peer in connection.peers:
            time.sleep(0.003)  # timestamps count milliseconds
            connection.send(peer, SMALL)
    connection.close()
    check(link, FIRST, 3 * len(SMALL))
    ours = [
        host.addresses[ends.wire]
        for host, role in ((link.a, client), (link.b, server))
        if role == "ours"
    ]
    newest: dict[bytes, int] = {}
    for record in link.report.signed:
        segment = record.segment
        (option,) = segment.named(TIMESTAMPS)
        value, echo = struct.unpack("!II", option.value)
        if record.source in ours and segment.payload:
            assert echo == newest[segment.dst], record
        newest[segment.src] = value


@requirement(21)
@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_reset(link, client, server, ends, who):
    """Data is left unread by one end, which closes: its RST is signed, and works."""
    connection = link.connected(client, server, ends)
    closing, other = connection.client, connection.server
    if who == "server":
        closing, other = other, closing
    other.sock.send(b"never read")
    wait_for("the data to arrive", lambda: closing.asked)
    closing.sock.close()
    with pytest.raises(ConnectionResetError):
        other.sock.recv(1)
    report = link.verify()
    assert [r.source for r in report.signed if r.segment.flags & RST] == [
        closing.host.addresses[ends.wire]
    ]
