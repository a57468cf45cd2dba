"""What the tests of handshakes share."""

import socket
import struct
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple, Self

from link import ROLES, TIMEOUT, Connection, Ends, Host, Link, Mkt, Peer
from tcp_authopt_verify.wire import ACK, OPTION_AO, SYN, Segment

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


def assert_echoes(link: Link, hosts: Iterable[Host]) -> None:
    """What these hosts have sent with a timestamp has the last one of the other end in it.

    So it is as long as there is never more than one segment on its way.
    """
    mine = {address for host in hosts for address in host.addresses.values()}
    newest: dict[tuple[bytes, int], int] = {}
    count = 0
    for record in link.report.signed:
        segment = record.segment
        if (pair := stamps(segment)) is None:
            continue
        value, echo = pair
        if record.source in mine and not (segment.flags & SYN and not segment.flags & ACK):
            assert echo == newest[segment.dst, segment.dport], record
            count += 1
        newest[segment.src, segment.sport] = value
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
    accepted, _ = listener.sock.accept()
    accepted.settimeout(TIMEOUT)
    client.sock.settimeout(TIMEOUT)
    listener.host.sockets.append(accepted)
    return Connection(client, replace(listener, sock=accepted), listener)


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
