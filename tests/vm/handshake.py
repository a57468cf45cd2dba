"""What the tests of handshakes share."""

import socket
import struct
import time
from collections.abc import Iterable
from typing import NamedTuple, Self

import pytest

from conftest import PAIRS
from link import ROLES, TIMEOUT, V4, V6, Connection, Ends, Host, Link, Mkt, Peer
from tcp_authopt_verify.wire import ACK, FIN, OPTION_AO, SYN, Segment

MSS, WSCALE, SACK_PERMITTED, SACK, TIMESTAMPS, FASTOPEN = 2, 3, 4, 5, 8, 34

NAMES = {
    MSS: "mss",
    WSCALE: "wscale",
    SACK_PERMITTED: "sack-permitted",
    SACK: "sack",
    TIMESTAMPS: "timestamps",
    OPTION_AO: "ao",
    FASTOPEN: "fast-open",
}

OPENING, ANSWER = SYN, SYN | ACK

CASES = [
    pytest.param(*pair.values, ends, marks=pair.marks, id=f"{pair.id}-{name}")
    for pair in PAIRS
    for name, ends in (("v4", V4), ("v6", V6))
    if (pair.id, name) != ("native-native", "v6")
]
"""Client, server and ends. The kernel's own with itself is the control, for which one will do."""


def names(segment: Segment) -> set[str]:
    """The options of a segment."""
    return {NAMES[option.kind] for option in segment.options}


def stamps(segment: Segment) -> tuple[int, int] | None:
    """TSval and TSecr."""
    for option in segment.named(TIMESTAMPS):
        return struct.unpack("!II", option.value)
    return None


def sent(link: Link, host: Host, flags: int, *, unsigned: bool = False) -> list[Segment]:
    """What a host has sent so far with just these of SYN and ACK, oldest first."""
    addresses = host.addresses.values()
    report = link.audit(unsigned=unsigned)
    return [
        record.segment
        for record in report.segments
        if record.source in addresses and record.segment.flags & (SYN | ACK) == flags
    ]


def ours(link: Link, a: str, b: str) -> list[Host]:
    """The hosts with our role."""
    return [host for host, role in ((link.a, a), (link.b, b)) if role == "ours"]


def talk_in_turn(connection: Connection) -> None:
    """Never more than one segment on its way, and each with another timestamp."""
    for number in range(6):
        time.sleep(0.003)  # timestamps count milliseconds
        connection.send(connection.peers[number % 2])


def assert_echoes(link: Link, hosts: Iterable[Host], since: int = 0) -> None:
    """What these hosts have sent echoes the timestamp of what it acknowledges, or a newer one.

    From the signed segment with the number `since` on. What a busy machine has sent twice may be
    echoed with either timestamp.
    """
    mine = {address for host in hosts for address in host.addresses.values()}
    first: dict[tuple[bytes, int, int], int] = {}
    last: dict[tuple[bytes, int], int] = {}
    count = 0
    for number, record in enumerate(link.report.signed):
        segment = record.segment
        if (pair := stamps(segment)) is None:
            continue
        value, echo = pair
        if record.source in mine and number >= since and not segment.is_syn:
            other = segment.dst, segment.dport
            assert first[*other, segment.ack] <= echo <= last[other], record
            count += 1
        end = segment.seq + len(segment.payload) + bool(segment.flags & (SYN | FIN))
        first.setdefault((segment.src, segment.sport, end % (1 << 32)), value)
        last[segment.src, segment.sport] = value
    assert count or not mine


def far_host(link: Link, role: str, ends: Ends, *keys: Mkt) -> Peer:
    """A socket on B that is to connect to A, not bound."""
    sock = link.b.tcp_socket(ends.server)
    peer = Peer(link, link.b, ROLES[role], sock, link.a.address(ends.wire, ends.server))
    for key in keys:
        peer.add(key)
    peer.role.protect(sock)
    return peer


def accept(listener: Peer, client: Peer) -> Connection:
    """Takes the connection out of the listener's queue."""
    client.sock.settimeout(TIMEOUT)
    return Connection(client, listener.accept(), listener)


class Negotiated(NamedTuple):
    """What an end believes to have been agreed upon: from the start of struct tcp_info."""

    timestamps: bool
    sack: bool
    scaled: bool
    snd_wscale: int
    rcv_wscale: int

    @classmethod
    def read(cls, sock: socket.socket) -> Self:
        """Asks the kernel."""
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
        options, scales = info[5], info[6]
        return cls(
            bool(options & 1),
            bool(options & 2),
            bool(options & 4),
            scales & 0xF,
            scales >> 4,
        )

    @property
    def mirrored(self) -> Self:
        """What the other end has to believe."""
        return self._replace(snd_wscale=self.rcv_wscale, rcv_wscale=self.snd_wscale)
