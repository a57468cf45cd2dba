"""An attacker on the cable: segments that claim to come from one end of a connection.

It signs with the verifier's own MAC, which native connections have shown to be right, so that a
forgery differs from a good segment in exactly one point.
"""

from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Self

from craft import ACK, SYN, Ao, Tcp
from link import Host, Link, Mkt
from tcp_authopt_verify import Key
from tcp_authopt_verify.wire import FIN, Segment


@dataclass
class Forger:
    """Speaks as `host` to the other one, in one connection."""

    link: Link
    host: Host
    wire: str
    port: int
    other_port: int

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
        return [
            record.segment
            for record in self.link.audit().signed
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

    def send(self, segment: Tcp, ao: Ao | None = None) -> None:
        """Puts the segment on the cable."""
        self.host.inject(segment.frame(ao, ethernet=self.other.mac + self.host.mac))

    def _verifier_key(self, key: Mkt) -> Key:
        self.link.know(key)
        address = self.host.addresses[self.wire]
        for candidate in self.link.policy().keys:
            if candidate.name == key.name and address in (candidate.a, candidate.b):
                return candidate
        raise LookupError(key.name)
