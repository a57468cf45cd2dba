"""An attacker on the cable: segments that claim to come from one end of a connection.

It signs with the verifier's own MAC, which native connections have shown to be right, so that a
forgery differs from a good segment in exactly one point.
"""

import hashlib
from collections.abc import Container
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Self

from craft import ACK, SYN, Ao, Tcp
from link import Host, Link, Mkt
from tcp_authopt_verify import Audit, Key, Report
from tcp_authopt_verify.audit import Status
from tcp_authopt_verify.wire import FIN, OPTION_MD5, Segment, parse_tcp, pseudo_header


@dataclass
class Forger:
    """Speaks as `host` to the other one, in one connection."""

    link: Link
    host: Host
    wire: str
    port: int
    other_port: int
    unsigned: bool = False
    """Whether the connection is an unsigned one."""

    @classmethod
    def of(cls, link: Link, host: Host, wire: str) -> Self:
        """Joins the connection that the capture shows last."""
        last = link.audit().signed[-1].segment
        ports = last.sport, last.dport
        if ip_address(last.src) != ip_address(host.addresses[wire]):
            ports = ports[::-1]
        return cls(link, host, wire, *ports)

    @property
    def other(self) -> Host:
        """The victim."""
        return self.link.b if self.host is self.link.a else self.link.a

    def segments(self, host: Host) -> list[Segment]:
        """What this host has sent in this connection, oldest first, good forgeries included."""
        ends = self._end(host)
        right = Status.UNSIGNED if self.unsigned else Status.SIGNED
        return [
            record.segment
            for record in self.link.audit(unsigned=self.unsigned).having(right)
            if (record.source, record.segment.sport) == ends
        ]

    def _end(self, host: Host) -> tuple[str, int]:
        return host.addresses[self.wire], self.port if host is self.host else self.other_port

    def isn(self, host: Host) -> int:
        """The host's last initial sequence number; 0 before there is one."""
        syns = [segment.seq for segment in self.segments(host) if segment.flags & SYN]
        return syns[-1] if syns else 0

    def next(self, host: Host) -> int:
        """The sequence number that the host would send next; 0 before there is one."""
        ends = [
            segment.seq + len(segment.payload) + bool(segment.flags & (SYN | FIN))
            for segment in self.segments(host)
        ]
        return max(ends, default=0)

    def tcp(self, **changes: object) -> Tcp:
        """An ACK that fits the connection as it stands, without AO."""
        segment = Tcp(
            src=self.host.addresses[self.wire],
            dst=self.other.addresses[self.wire],
            sport=self.port,
            dport=self.other_port,
            seq=self.next(self.host),
            ack=self.next(self.other),
            flags=ACK,
        )
        return replace(segment, **changes)

    def ao(self, key: Mkt, **changes: object) -> Ao:
        """How the host would sign it."""
        keyid, rnextkeyid = self.host.ids(key)
        signature = Ao(
            self._verifier_key(key), keyid, rnextkeyid, self.isn(self.host), self.isn(self.other)
        )
        return replace(signature, **changes)

    def frame(self, segment: Tcp, ao: Ao | None = None) -> bytes:
        """The segment as it is to be on the cable."""
        return segment.frame(ao, ethernet=self.other.mac + self.host.mac)

    def send(self, segment: Tcp, ao: Ao | None = None) -> None:
        """Puts the segment on the cable."""
        self.host.inject(self.frame(segment, ao))

    def _verifier_key(self, key: Mkt) -> Key:
        self.link.know(key)
        address = self.host.addresses[self.wire]
        for candidate in self.link.policy().keys:
            if candidate.name == key.name and address in (candidate.a, candidate.b):
                return candidate
        raise LookupError(key.name)


def md5_digest(segment: Segment, secret: bytes) -> bytes:
    """RFC 2385 2.0: pseudo-header, header without options and checksum, data, key."""
    header = segment.header[:16] + b"\0\0" + segment.header[18:]
    pseudo = pseudo_header(segment.src, segment.dst, segment.length)
    return hashlib.md5(pseudo + header + segment.payload + secret).digest()


def with_md5(segment: Tcp, secret: bytes) -> Tcp:
    """The segment signed with MD5, which has to be its only option."""
    blank = replace(segment, options=bytes([1, 1, OPTION_MD5, 18]) + bytes(16))
    addresses = ip_address(segment.src).packed, ip_address(segment.dst).packed
    digest = md5_digest(parse_tcp(*addresses, blank.data()), secret)
    return replace(blank, options=blank.options[:4] + digest)


def md5_is_right(segment: Segment, secret: bytes) -> bool:
    """Whether it has one MD5 option, with the right digest."""
    return [option.value for option in segment.named(OPTION_MD5)] == [md5_digest(segment, secret)]


def judge_without(link: Link, forged: Container[bytes], *, unsigned: bool = False) -> Report:
    """Audits all that was on the wire so far but for these frames."""
    auditor = Audit(link.policy(unsigned=unsigned))
    for frame in link.tap.settle():
        if frame.data not in forged:
            auditor.feed(frame)
    assert link.tap.drops == 0, f"the tap lost {link.tap.drops} frames"
    link.report = auditor.report
    return auditor.report
