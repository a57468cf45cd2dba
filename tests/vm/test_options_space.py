"""The 40 bytes for options: what is left beside AO, on SYN, SYN-ACK, data, and under loss."""

import pytest

from conftest import OURS
from handshake import (
    ANSWER,
    CASES,
    OPENING,
    SACK,
    Negotiated,
    assert_echoes,
    names,
    ours,
    sent,
    talk_in_turn,
)
from link import V4, V6, Connection, Link
from test_handshake import crossed
from test_matrix import BULK

ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]
ALWAYS = {"ao", "mss", "wscale"}
LOST = 20
"""One segment in so many is."""


@pytest.mark.parametrize(
    ("off", "syn", "answer", "data", "lengths"),
    [
        pytest.param(
            [],
            {"timestamps", "sack-permitted"},
            {"sack-permitted"},
            set(),
            (36, 28, 16),
            id="all",
        ),
        pytest.param(
            ["tcp_sack"],
            {"timestamps"},
            {"timestamps"},
            {"timestamps"},
            (36, 36, 28),
            id="no-sack",
        ),
        pytest.param(
            ["tcp_timestamps"],
            {"sack-permitted"},
            {"sack-permitted"},
            set(),
            (28, 28, 16),
            id="no-timestamps",
        ),
    ],
)
@pytest.mark.parametrize(("client", "server", "ends"), CASES)
def test_what_is_where(link: Link, client, server, ends, off, syn, answer, data, lengths):
    """As many bytes as there are; a server has to choose between SACK and timestamps."""
    for host in (link.a, link.b):
        for name in off:
            host.namespace.write_sysctl(f"net/ipv4/{name}", 0)
    connection = link.connected(client, server, ends)
    agreed = Negotiated.read(connection.client.sock)
    assert Negotiated.read(connection.server.sock) == agreed.mirrored
    assert agreed.scaled
    assert agreed.sack == ("sack-permitted" in answer)
    assert agreed.timestamps == ("timestamps" in answer)
    if agreed.timestamps:
        talk_in_turn(connection)
    else:
        connection.exchange()
    connection.close()
    link.verify()
    (first,), (second,) = sent(link, link.a, OPENING), sent(link, link.b, ANSWER)
    assert (names(first), names(second)) == (ALWAYS | syn, ALWAYS | answer)
    rest = [record.segment for record in link.report.signed[2:]]
    assert all(names(segment) == {"ao"} | data for segment in rest)
    found = [len(segment.option_bytes) for segment in (first, second, *rest)]
    assert found == [*lengths[:2], *[lengths[2]] * len(rest)]
    if agreed.timestamps:
        assert_echoes(link, ours(link, client, server))


def transfer_with_losses(link: Link, connection: Connection) -> list[int]:
    """Moves much from A to B over a lossy path; how many SACK blocks B's segments had."""
    for host in (link.a, link.b):
        host.namespace.write_sysctl("net/ipv4/tcp_rto_min_us", 20000)
    lossy = link.b.gate()
    lossy.lose_one_in(LOST)
    connection.exchange(BULK[:150000], b"")
    lossy.open()
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})
    report = link.report
    from_b = [
        record.segment for record in report.signed if record.source in link.b.addresses.values()
    ]
    return [
        (len(option.value) // 8, len(segment.option_bytes))
        for segment in from_b
        for option in segment.named(SACK)
    ]


@pytest.mark.parametrize(("client", "server", "ends"), CASES)
def test_sack_under_loss(link: Link, client, server, ends):
    """Two blocks have room beside AO."""
    blocks = transfer_with_losses(link, link.connected(client, server, ends))
    assert set(blocks) <= {(1, 28), (2, 36)}
    assert len(blocks) > 5


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("role", [pytest.param("ours", marks=OURS), "native"])
def test_sack_and_timestamps_under_loss(link: Link, role, ends):
    """Both, as only crossed SYNs bring about: one block, and all 40 bytes are used."""
    connection = link.join(*crossed(link, role, role, ends))
    agreed = Negotiated.read(connection.client.sock)
    assert (agreed.timestamps, agreed.sack) == (True, True)
    blocks = transfer_with_losses(link, connection)
    assert set(blocks) == {(1, 40)}
    assert len(blocks) > 5
