"""Judges every frame of a capture: finds its connection and its key, and recomputes its MAC.

A connection is followed from its SYN, because the traffic keys hang on both initial sequence
numbers and the MAC on the sequence number extension. State moves only on a right MAC, so that a
forged segment cannot make the next good one look bad, nor the other way round.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address

from .capture import Frame
from .keys import Key, Policy
from .mac import OPTION_LENGTH, kdf_context, mac_input
from .wire import ACK, OPTION_AO, OPTION_MD5, RST, SYN, Malformed, Segment, parse_frame

End = tuple[bytes, int]

_HALF, _FULL = 1 << 31, 1 << 32


@lru_cache(maxsize=1024)
def address(packed: bytes) -> str:
    """The address as it is written; a capture has few of them, and many segments of each."""
    return str(ip_address(packed))


def unwrap(reference: int, seq: int) -> int:
    """The 64-bit sequence number that is nearest to reference and has seq as its low half."""
    return reference + (seq - reference + _HALF) % _FULL - _HALF


@dataclass
class Stream:
    """One direction of a connection: where it started and the furthest verified byte."""

    isn: int
    edge: int
    early: int = 0
    """Bytes of data in the SYN (RFC 7413), which the answer to it may acknowledge."""

    @classmethod
    def starting(cls, isn: int, early: int = 0) -> "Stream":
        """A direction whose SYN has just been seen; its SNE is 0."""
        return cls(isn, isn, early)

    def opened(self, ack: int) -> bool:
        """Whether an acknowledgment of this is one of the SYN, with its data or a part of it."""
        return (ack - self.isn - 1) % _FULL <= self.early

    def sne(self, seq: int) -> int:
        """The upper half of the sequence number that seq stands for."""
        return (unwrap(self.edge, seq) >> 32) % _FULL

    def advance(self, seq: int) -> None:
        """Notes that a segment at seq was verified."""
        self.edge = max(self.edge, unwrap(self.edge, seq))


@dataclass(eq=False)
class Connection:
    """One incarnation of a connection; a pair of ends may have several in one capture."""

    streams: dict[End, Stream] = field(default_factory=dict)
    traffic_keys: dict[tuple[Key, bytes], bytes] = field(default_factory=dict)

    def isn(self, end: End) -> int | None:
        """The initial sequence number of this end, if it has been seen."""
        stream = self.streams.get(end)
        return None if stream is None else stream.isn

    def mac_is_right(self, segment: Segment, key: Key, dst_isn: int) -> bool:
        """Recomputes the MAC of a segment that has one AO option of the right length."""
        stream = self.streams[segment.src, segment.sport]
        context = kdf_context(segment, stream.isn, dst_isn)
        traffic_key = self.traffic_keys.get((key, context))
        if traffic_key is None:
            traffic_key = key.suite.traffic_key(key.secret, context)
            self.traffic_keys[key, context] = traffic_key
        message = mac_input(segment, stream.sne(segment.seq), key.covers_options)
        (option,) = segment.named(OPTION_AO)
        return key.suite.mac(traffic_key, message) == option.value[2:]


class Status(Enum):
    """The verdict on one frame."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"
    BAD = "bad"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Record:
    """The verdict on one frame, with what led to it."""

    number: int
    time_ns: int
    status: Status
    reason: str = ""
    segment: Segment | None = None
    key: Key | None = None
    keyid: int | None = None
    rnextkeyid: int | None = None

    @property
    def source(self) -> str:
        """The sender's address, empty where the frame is no TCP segment."""
        return "" if self.segment is None else address(self.segment.src)

    def __str__(self) -> str:
        if self.segment is None:
            return f"frame {self.number}: {self.status.value} ({self.reason})"
        segment = self.segment
        ids = "" if self.keyid is None else f" ao {self.keyid}/{self.rnextkeyid}"
        why = f" ({self.reason})" if self.reason else ""
        return (
            f"frame {self.number}: {address(segment.src)}.{segment.sport} > "
            f"{address(segment.dst)}.{segment.dport} [{segment.flag_letters()}] "
            f"seq {segment.seq} ack {segment.ack} length {len(segment.payload)}{ids}: "
            f"{self.status.value}{why}"
        )


class Report:
    """All verdicts on one capture, or on its beginning."""

    def __init__(self, policy: Policy, records: Iterable[Record] = ()) -> None:
        self.policy = policy
        self.records = list(records)

    def having(self, status: Status) -> list[Record]:
        """The records with this verdict."""
        return [record for record in self.records if record.status is status]

    @property
    def segments(self) -> list[Record]:
        """The TCP segments, and what may have been meant as one."""
        return [record for record in self.records if record.status is not Status.OTHER]

    @property
    def signed(self) -> list[Record]:
        """The segments whose MAC is right."""
        return self.having(Status.SIGNED)

    @property
    def unsigned(self) -> list[Record]:
        """The segments without AO where the policy permits that."""
        return self.having(Status.UNSIGNED)

    @property
    def bad(self) -> list[Record]:
        """The segments that break the policy, each with its reason."""
        return self.having(Status.BAD)

    @property
    def ok(self) -> bool:
        """Something was checked, and nothing was bad."""
        return bool(self.segments) and not self.bad

    def summary(self) -> str:
        """What an operator wants to read, a line for each sender and pair of ids."""
        others = Counter(record.reason for record in self.having(Status.OTHER))
        lines = [
            f"{len(self.segments)} segments checked: {len(self.signed)} signed, "
            f"{len(self.unsigned)} unsigned, {len(self.bad)} bad"
        ]
        if others:
            lines[0] += "; not TCP: " + ", ".join(f"{n} {name}" for name, n in others.items())
        flows: dict[tuple[str, str, str], list[Record]] = {}
        for record in self.signed + self.unsigned:
            target = address(record.segment.dst)
            what = "unsigned"
            if record.key is not None:
                what = (
                    f"KeyID {record.keyid} RNextKeyID {record.rnextkeyid} "
                    f"key {record.key.name} ({record.key.algorithm})"
                )
            flows.setdefault((record.source, target, what), []).append(record)
        for (source, target, what), records in flows.items():
            payload = sum(len(record.segment.payload) for record in records)
            lines.append(
                f"  {source} > {target}: {what}: {len(records)} segments, {payload} bytes of data"
            )
        lines += [f"  BAD {record}" for record in self.bad]
        return "\n".join(lines)


class Audit:
    """Takes frames one after another in the order of the capture."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.report = Report(policy)
        self._connections: dict[frozenset[End], list[Connection]] = {}
        self._keys: dict[tuple[bytes, bytes], dict[int, list[Key]]] = {}

    def feed(self, frame: Frame) -> Record:
        """Judges one more frame."""
        number = len(self.report.records) + 1
        try:
            parsed = parse_frame(frame.data)
        except Malformed as why:
            record = Record(number, frame.time_ns, Status.BAD, f"malformed: {why}")
        else:
            if isinstance(parsed, str):
                record = Record(number, frame.time_ns, Status.OTHER, parsed)
            else:
                record = self._judge(number, frame.time_ns, parsed)
        self.report.records.append(record)
        return record

    def _judge(self, number: int, time_ns: int, segment: Segment) -> Record:
        def bad(reason: str, *ids: int) -> Record:
            return Record(number, time_ns, Status.BAD, reason, segment, None, *ids)

        if self.policy.check_checksums and not segment.checksum_ok:
            return bad("TCP checksum")
        options = segment.named(OPTION_AO)
        if not options:
            if self.policy.may_be_unsigned(segment.sport, segment.dport):
                return Record(number, time_ns, Status.UNSIGNED, "", segment)
            return bad("no AO option")
        if len(options) > 1:
            return bad("more than one AO option")
        if segment.named(OPTION_MD5):
            return bad("AO and MD5 in one segment")
        if len(options[0].value) + 2 != OPTION_LENGTH:
            return bad(f"AO option of length {len(options[0].value) + 2}")
        keyid, rnextkeyid = options[0].value[:2]

        keys = self._keys_between(segment.src, segment.dst).get(keyid)
        if keys is None:
            return bad("unknown KeyID", keyid, rnextkeyid)
        handshake_seen = False
        for connection, dst_isn in self._candidates(segment):
            handshake_seen = True
            for key in keys:
                if connection.mac_is_right(segment, key, dst_isn):
                    self._remember(connection, segment)
                    return Record(
                        number, time_ns, Status.SIGNED, "", segment, key, keyid, rnextkeyid
                    )
        return bad("wrong MAC" if handshake_seen else "no handshake seen", keyid, rnextkeyid)

    def _keys_between(self, src: bytes, dst: bytes) -> dict[int, list[Key]]:
        """The keys for segments from src to dst by their KeyID, looked up once."""
        found = self._keys.get((src, dst))
        if found is None:
            found = self._keys[src, dst] = {}
            source, target = ip_address(src), ip_address(dst)
            for key in self.policy.keys:
                for keyid in key.keyids(source, target):
                    found.setdefault(keyid, []).append(key)
        return found

    def _candidates(self, segment: Segment) -> Iterator[tuple[Connection, int]]:
        """The connections that the segment may belong to with the KDF's destination ISN.

        Newest first: ports are reused, and a late or forged SYN does not end the connection
        that it names. One that is new here is kept only by _remember.
        """
        source, target = (segment.src, segment.sport), (segment.dst, segment.dport)
        known = self._connections.get(frozenset((source, target)), [])[::-1]
        start = Stream.starting(segment.seq, len(segment.payload) if segment.is_syn else 0)

        if segment.is_syn:
            # A retransmission, or the other half of a simultaneous open, or a new connection.
            for connection in known:
                if connection.isn(source) == segment.seq:
                    yield connection, 0
            for connection in known[:1]:
                if connection.isn(source) is None:
                    yield Connection(connection.streams | {source: start}), 0
            yield Connection({source: start}), 0
            return

        if segment.flags & (SYN | ACK) == SYN | ACK:
            # The SYN that it answers is in its acknowledgment. An end that keeps no state (SYN
            # cookies) or has given up may answer the same SYN again from another ISN.
            answered = [
                one
                for one in known
                if (asked := one.streams.get(target)) is not None and asked.opened(segment.ack)
            ]
            for connection in answered:
                if connection.isn(source) == segment.seq:
                    yield connection, connection.streams[target].isn
            for connection in answered[:1]:
                asked = connection.streams[target]
                fresh = Stream.starting(asked.isn, asked.early)
                yield Connection({target: fresh, source: start}), asked.isn
            return

        for connection in known:
            dst_isn = connection.isn(target)
            if connection.isn(source) is not None and dst_isn is not None:
                yield connection, dst_isn

    def _remember(self, connection: Connection, segment: Segment) -> None:
        source, target = (segment.src, segment.sport), (segment.dst, segment.dport)
        known = self._connections.setdefault(frozenset((source, target)), [])
        if connection not in known:
            known.append(connection)
        # A reset need not stand at the edge of the stream (it may even have sequence number 0).
        if not segment.flags & (SYN | RST):
            connection.streams[source].advance(segment.seq)


def audit(frames: Iterable[Frame], policy: Policy) -> Report:
    """Judges a whole capture."""
    auditor = Audit(policy)
    for frame in frames:
        auditor.feed(frame)
    return auditor.report
