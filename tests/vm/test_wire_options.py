"""Every malformed, truncated, doubled and oversized option, in every state of a connection.

What has to become of a segment is worked out here from Documentation/abi.rst (Receiving), and
from what the stack itself refuses before it asks the module. Wherever 16 bytes are left for a
TCP-AO option the segment is signed, and rightly: what is refused then is refused for its form.
"""

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import batched
from typing import NamedTuple

import pytest

import abi
from clock import wait_for
from craft import ACK, FIN, PSH, RST, SYN, Ao, Tcp
from forge import Forger, judge_without
from link import BAD, FIRST, KEY_NOT_FOUND, PORT, REQUIRED, V4, V6, Ends, Link, Mkt, Ours, Peer
from requirement import requirement
from rtnetlink import Rtnetlink

pytestmark = [pytest.mark.ours, pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])]

GOOD = "TCPAOGood"
MD5_UNEXPECTED = "TCPMD5Unexpected"
COUNTERS = (GOOD, REQUIRED, BAD, KEY_NOT_FOUND, MD5_UNEXPECTED, "TCPMD5NotFound", "TCPMD5Failure")

AO, MD5, OTHER, EOL, NOP = 29, 19, 254, b"\0", b"\1"
ROOM = 40
BATCH = 200

# --- forms --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """Options of a segment, of whole words."""

    name: str
    options: bytes
    ao_at: int | None = None
    """Where the AO option is that gets a right MAC."""
    data_offset: int | None = None

    @property
    def seen(self) -> bytes | None:
        """The options as the header bounds them; None if its length cannot be."""
        if self.data_offset is None:
            return self.options
        end = 4 * (self.data_offset - 5)
        return self.options[:end] if 0 <= end <= len(self.options) else None


def option(kind: int, length: int) -> bytes:
    """An option of this length, which may be none; AO has the ids of FIRST, as A signs."""
    value = bytes([FIRST.a_id, FIRST.b_id]) if kind == AO else b""
    return (bytes([kind, length]) + value.ljust(ROOM, b"\0"))[: max(length, 2)]


def form(name: str, *parts: bytes, data_offset: int | None = None) -> Form:
    """The options one after another and NOPs up to a whole word; the first AO of 16 is signed."""
    options = b"".join(parts)
    places = [sum(map(len, parts[:number])) for number, part in enumerate(parts) if part == SIGNED]
    padded = options + NOP * (-len(options) % 4)
    assert len(padded) <= ROOM, name
    return Form(name, padded, places[0] if places else None, data_offset)


SIGNED = option(AO, 16)


def single(every: bool) -> Iterator[Form]:
    """One option of each length, at each place that it fits, or at some of them."""
    for kind in (AO, MD5):
        for length in range(ROOM + 1):
            last = ROOM - max(length, 2)
            places = range(last + 1) if every else sorted({*range(min(3, last + 1)), last})
            for at in places:
                yield form(f"{kind}, length {length} at {at}", NOP * at, option(kind, length))


def cut_short(every: bool) -> Iterator[Form]:
    """The header ends before the option does; of one byte there is not even a length."""
    for kind in (AO, MD5, OTHER):
        for left in range(1, 20):
            for claimed in (left + 1, 16, 18, 40, 255) if every else (left + 1, 255):
                if claimed > left:
                    before = NOP * (-left % 4)
                    cut = bytes([kind, claimed, FIRST.a_id, FIRST.b_id]).ljust(20, b"\0")[:left]
                    yield form(f"{kind}, {left} bytes left of {claimed}", before, cut)


def composed() -> Iterator[Form]:
    """More than one option, and what is behind the end of them."""
    md5, other = option(MD5, 18), option(OTHER, 4)
    yield form("nothing")
    yield form("NOPs only", NOP * ROOM)
    yield form("MD5", md5)
    yield form("AO before another", SIGNED, other)
    yield form("AO behind another", other, SIGNED)
    yield form("AO between others", other, SIGNED, option(OTHER, 20))
    yield form("AO at an odd place between others", NOP, other, SIGNED, NOP, other)
    yield form("40 bytes full, AO first", SIGNED, option(OTHER, 24))
    yield form("40 bytes full, AO last", option(OTHER, 24), SIGNED)
    yield form("40 bytes of words", SIGNED, *[other] * 6)
    yield form("AO twice", SIGNED, SIGNED)
    yield form("AO twice, apart", SIGNED, NOP * 8, SIGNED)
    yield form("AO twice, another between", SIGNED, other, SIGNED)
    for length in (0, 1, 2, 3, 4, 5, 8, 12, 15, 17, 20, 24):
        yield form(f"AO of {length} behind AO", SIGNED, option(AO, length))
        yield form(f"AO of {length} before AO", option(AO, length), SIGNED)
    yield form("three AO of 12", *[option(AO, 12)] * 3)
    for nops in range(7):
        yield form(f"AO, {nops} NOPs, MD5", SIGNED, NOP * nops, md5)
        yield form(f"MD5, {nops} NOPs, AO", md5, NOP * nops, SIGNED)
    yield form("short AO and MD5", option(AO, 12), md5)
    yield form("MD5 and short AO", md5, option(AO, 12))
    yield form("MD5 twice", md5, md5)
    yield form("MD5 of 17 behind AO", SIGNED, option(MD5, 17))
    yield form("AO behind the end", EOL, SIGNED)
    yield form("AO behind NOPs and the end", NOP * 3, EOL, SIGNED)
    yield form("MD5 behind the end", EOL, md5)
    yield form("end behind AO", SIGNED, EOL * 4)
    yield form("AO, end, another AO", SIGNED, EOL, option(AO, 16)[:15])
    yield form("AO, end, MD5", SIGNED, EOL, md5)
    yield form("AO, end, garbage", SIGNED, EOL, bytes([OTHER, 0, AO, 255]))
    for nops in range(5):
        name = f"AO, {nops} NOPs"
        yield form(f"{name}, lone kind", SIGNED, NOP * (nops + (-nops - 1) % 4), bytes([OTHER]))
        for length in (0, 1, 3, 9, 255):
            tail = bytes([OTHER, length])
            yield form(f"{name}, cut to {length}", SIGNED, NOP * (nops + (-nops - 2) % 4), tail)
    for length in (0, 1, 30, 255):
        yield form(f"another of {length} before AO", bytes([OTHER, length]), NOP * 2, SIGNED)


def wrong_offsets() -> Iterator[Form]:
    """The header says that it is shorter than it can be, or longer than the segment."""
    for words in range(5):
        yield form(f"data offset {words}", SIGNED, data_offset=words)
        yield form(f"data offset {words}, no options", data_offset=words)
    for words in range(10, 16):
        yield form(f"data offset {words} of 9", SIGNED, data_offset=words)


def as_data() -> Iterator[Form]:
    """The header says that it ends before or in the AO option, the rest of which is data."""
    for words in range(5, 9):
        yield form(f"data offset {words} of 9", SIGNED, data_offset=words)


def forms(*, every: bool = False) -> list[Form]:
    """All of them; `every` has the single ones at every place, and cut to every length."""
    return [*single(every), *cut_short(every), *composed(), *wrong_offsets()]


# --- rules --------------------------------------------------------------------------------------

MALFORMED, NOTHING, AO_OF_OTHER_LENGTH = "malformed", "nothing", "AO of another length"


def walk(options: bytes, least: int) -> Iterator[tuple[int, int]]:
    """Kinds and lengths, up to the end of options or where fewer than `least` bytes are left."""
    at = 0
    while len(options) - at >= least:
        kind = options[at]
        if kind == EOL[0]:
            return
        if kind == NOP[0]:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            yield kind, 0
            return
        yield kind, length
        at += length


def carries(options: bytes, least_ao: int, least: int) -> int | str:
    """AO, MD5, NOTHING or MALFORMED; with AO only one of them."""
    found = list(walk(options, least))
    ours = [(kind, length) for kind, length in found if kind in (AO, MD5)]
    lengths_can_be = all(
        length >= 2 and (kind != MD5 or length == 18) and (kind != AO or length >= least_ao)
        for kind, length in found
    )
    if len(ours) > 1 or not lengths_can_be:
        return MALFORMED
    return ours[0][0] if ours else NOTHING


def rule(options: bytes) -> int | str:
    """The rows of the table in abi.rst, by the RFCs: every byte counts."""
    found = carries(options, least_ao=4, least=1)
    if found == AO and (AO, 16) not in walk(options, 1):
        return AO_OF_OTHER_LENGTH
    return found


def stack_finds(options: bytes) -> int | str:
    """What tcp_do_parse_auth_options() takes it for: not the last 4 bytes, and no AO of 4."""
    return carries(options, least_ao=5, least=5)


class Fate(NamedTuple):
    """What has to become of a segment; without a counter it is told by what comes after it."""

    accepted: bool
    counter: str | None = None


DROPPED = Fate(accepted=False)


def after_the_stack(judge: Callable[[bytes], Fate]) -> Callable[[Form], Fate]:
    """The stack drops some itself, and counts none of these."""

    def fate(form: Form) -> Fate:
        if form.seen is None or stack_finds(form.seen) == MALFORMED:
            return DROPPED
        return judge(form.seen)

    return fate


@after_the_stack
def keyed(options: bytes) -> Fate:
    """To a listener that has a key for the sender, or on a protected connection."""
    without_ao = {NOTHING: REQUIRED, MD5: MD5_UNEXPECTED}
    found = stack_finds(options)
    accepted = rule(options) == AO
    if found in without_ao:
        assert not accepted
        return Fate(accepted, without_ao[found])
    return Fate(accepted, GOOD if accepted else BAD)


@after_the_stack
def in_signed_handshake(options: bytes) -> Fate:
    """The end of a handshake that a signed SYN began."""
    accepted = rule(options) == AO
    return Fate(accepted, GOOD if accepted else BAD)


@after_the_stack
def in_unsigned_handshake(options: bytes) -> Fate:
    """The end of one that an unsigned SYN began, whose sender no key matches."""
    without_ao = {NOTHING: Fate(accepted=True), MD5: Fate(accepted=False, counter=MD5_UNEXPECTED)}
    return without_ao.get(stack_finds(options), Fate(accepted=False, counter=BAD))


@after_the_stack
def not_keyed(options: bytes) -> Fate:
    """The socket asked for TCP-AO, and no key matches the peer."""
    found = stack_finds(options)
    if found == MD5:
        return Fate(accepted=False, counter=MD5_UNEXPECTED)
    if found == AO and rule(options) == MALFORMED:
        return Fate(accepted=False, counter=BAD)
    return Fate(accepted=True)


@after_the_stack
def not_keyed_and_rejecting(options: bytes) -> Fate:
    """The same with REJECT_UNEXPECTED."""
    fate = not_keyed(Form("", options))
    if fate.accepted and stack_finds(options) == AO:
        return Fate(accepted=False, counter=KEY_NOT_FOUND)
    return fate


def in_time_wait(form: Form) -> Fate:
    """The stack looks at nothing there, so that the module sees all."""
    if form.seen is None:
        return DROPPED
    found = rule(form.seen)
    if found in (NOTHING, MD5):
        return Fate(accepted=False, counter=REQUIRED)
    return Fate(found == AO, GOOD if found == AO else BAD)


# --- a volley -----------------------------------------------------------------------------------

FENCE = form("fence", SIGNED, NOP * 3, bytes([OTHER]))
"""Malformed in its last byte, which only the module sees: BAD in every state."""


class Volley:
    """Sends forms in the forger's place, and checks what is counted for each."""

    def __init__(self, forger: Forger, make: Callable[[Form], bytes]) -> None:
        self.forger, self.make = forger, make
        self.victim = forger.other
        self.fates: dict[bytes, Fate] = {}
        self.accepted = 0
        """How many of them had to be."""
        self.counted = Counter(self.counters())
        self.before = len(forger.link.tap.settle())

    def counters(self) -> dict[str, int]:
        """The victim's, zeros included."""
        counters = self.victim.namespace.counters()
        return {name: counters[name] for name in COUNTERS}

    def fire(self, forms: list[Form], fate: Callable[[Form], Fate]) -> None:
        """Those of one counter go together: each adds one to it, and nothing to another."""
        by_counter: dict[str | None, list[Form]] = {}
        for form in forms:
            by_counter.setdefault(fate(form).counter, []).append(form)
        for counter, group in by_counter.items():
            for batch in batched(group, BATCH, strict=False):
                self._fire_batch(counter, batch, fate)

    def _fire_batch(
        self, counter: str | None, forms: tuple[Form, ...], fate: Callable[[Form], Fate]
    ) -> None:
        frames = [self.make(form) for form in forms]
        self.fates |= zip(frames, map(fate, forms), strict=True)
        self.accepted += sum(fate(form).accepted for form in forms)
        if counter is None:
            frames.append(self.make(FENCE))
            self.fates[frames[-1]] = fate(FENCE)
            self.counted[BAD] += 1
        else:
            self.counted[counter] += len(forms)
        for frame in frames:
            self.forger.host.inject(frame)
        names = f"{forms[0].name} ... {forms[-1].name}"
        try:
            wait_for("the counters", lambda: self.counters() == self.counted)
        except AssertionError:
            more = Counter(self.counters())
            more.subtract(self.counted)
            wrong = {name: count for name, count in more.items() if count}
            pytest.fail(f"{len(forms)} forms ({names}) to be counted as {counter}: {wrong}")

    @property
    def refused(self) -> set[bytes]:
        """The frames that had to be dropped."""
        return {frame for frame, fate in self.fates.items() if not fate.accepted}

    def answers(self) -> list[bytes]:
        """The TCP segments that the victim has sent since the beginning."""
        at, data = {"v4": (26, 34), "v6": (22, 54)}[self.forger.wire]
        address = ip_address(self.victim.addresses[self.forger.wire]).packed
        return [
            frame.data[data:]
            for frame in self.forger.link.tap.settle()[self.before :]
            if frame.data[at : at + len(address)] == address
        ]

    def ports(self, flags: int) -> set[int]:
        """The forger's ports that the answers with these flags went to."""
        answers = self.answers()
        return {int.from_bytes(data[2:4]) for data in answers if data[13] & ~PSH == flags}


def shaped(segment: Tcp, form: Form) -> Tcp:
    """The segment with these options."""
    changes = {"options": form.options, "ao_at": form.ao_at, "data_offset": form.data_offset}
    return replace(segment, **changes)


def maker(forger: Forger, segment: Tcp, ao: Ao) -> Callable[[Form], bytes]:
    """Makes frames of one segment, signed where the form has room for that."""
    return lambda form: forger.frame(shaped(segment, form), None if form.ao_at is None else ao)


def key_of(ends: Ends) -> Mkt:
    """Over IPv4 one whose MACs cover the other options, over IPv6 one whose do not."""
    return replace(FIRST, covers_options=ends is V4)


def is_clean(form: Form) -> bool:
    """Nothing is behind the end of its options, which the verifier would not take."""
    return ", end, " not in form.name


# --- states -------------------------------------------------------------------------------------


def syns(link: Link, ends: Ends, key: Mkt, fate: Callable[[Form], Fate]) -> tuple[Volley, set[int]]:
    """Sends each form in a SYN from a port of its own: those accepted are answered, no others.

    Returns also the ports whose SYN the verifier cannot read.
    """
    forger = Forger(link, link.a, ends.wire, 0, PORT)
    signature = forger.ao(key, src_isn=0, dst_isn=0)
    syn = forger.tcp(flags=SYN, seq=0, ack=0)
    ports: dict[int, Form] = {}

    def make(form: Form) -> bytes:
        port = 2000 + len(ports)
        ports[port] = form
        segment = replace(syn, sport=port, seq=7000 + port)
        return maker(forger, segment, replace(signature, src_isn=segment.seq))(form)

    volley = Volley(forger, make)
    volley.fire(forms(), fate)
    accepted = {port for port, form in ports.items() if fate(form).accepted}
    assert len(accepted) == volley.accepted > 0
    wait_for("those accepted to be answered", lambda: volley.ports(SYN | ACK) >= accepted)
    assert volley.ports(SYN | ACK) == accepted
    assert {data[13] for data in volley.answers()} == {SYN | ACK}
    return volley, {port for port in accepted if not is_clean(ports[port])}


@requirement(1, 2, 3, 27)
def test_listener_with_a_key(link, ends):
    key = key_of(ends)
    listener = link.listen("ours", ends, key)
    volley, unreadable = syns(link, ends, key, keyed)
    assert not listener.asked
    link.connect(link.client("native", ends, key), listener).exchange()
    report = judge_without(link, volley.refused)
    assert len(report.signed) > volley.accepted
    bad = [record for record in report.bad if record.segment]
    assert {record.segment.dport for record in bad} <= unreadable, report.summary()


@requirement(1, 2, 3)
@pytest.mark.parametrize("reject", [False, True], ids=["accept", "reject"])
def test_listener_without_a_key(link, ends, reject):
    """Asked for TCP-AO, but not from this sender, who gets unsigned answers."""
    listener = link.listen("ours", ends)
    abi.set_authopt(listener.sock, abi.FLAG_REJECT_UNEXPECTED if reject else 0)
    volley, _ = syns(link, ends, key_of(ends), not_keyed_and_rejecting if reject else not_keyed)
    assert not listener.asked
    link.connect(link.client("plain", ends), listener).exchange()
    report = judge_without(link, volley.fates, unsigned=True)
    assert report.ok, report.summary()


def accepted_port(listener: Peer) -> int:
    """The other end's port of a connection that is accepted, and kept until the host goes."""
    sock, address = listener.sock.accept()
    listener.host.sockets.append(sock)
    return address[1]


def nobody(link: Link, ends: Ends) -> str:
    """An address behind A's end of the cable, from which nothing comes that is not forged."""
    address = {"v4": "192.0.2.77", "v6": "2001:db8::77"}[ends.wire]
    with link.b.namespace.entered(), Rtnetlink() as rtnetlink:
        rtnetlink.add_neighbours(link.b.interface, [address], link.a.mac)
    return address


@requirement(1, 2, 3, 27)
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_end_of_a_handshake(link, ends, signed):
    """Each form that is accepted ends a handshake of its own; the others leave theirs open."""
    key = key_of(ends)
    listener = link.listen("ours", ends, *[key] * signed)
    # With more requests than half of it the stack gives them up early.
    listener.sock.listen(1024)
    fate = in_signed_handshake if signed else in_unsigned_handshake
    forger = Forger(link, link.a, ends.wire, 0, PORT)
    signature = forger.ao(key, src_isn=7000, dst_isn=0)
    syn = forger.tcp(flags=SYN, seq=7000, ack=0)
    if not signed:
        # Host A would reset what it knows nothing of.
        syn = replace(syn, src=nobody(link, ends))
    accepted = [form for form in forms() if fate(form).accepted]
    *ports, last = range(2000, 2001 + len(accepted))
    for port in (*ports, last):
        forger.send(replace(syn, sport=port), signature if signed else None)

    def isns() -> dict[int, int]:
        segments = [record.segment for record in link.audit(unsigned=True).segments]
        return {s.dport: s.seq for s in segments if s.flags == SYN | ACK}

    answered = wait_for("the SYN-ACKs", lambda: len(found := isns()) == len(ports) + 1 and found)

    def make(form: Form, port: int) -> bytes:
        isn = answered[port]
        ack = replace(syn, sport=port, seq=7001, ack=isn + 1, flags=ACK)
        return maker(forger, ack, replace(signature, dst_isn=isn))(form)

    places = dict(zip(accepted, ports, strict=True))
    volley = Volley(forger, lambda form: make(form, places.get(form, last)))
    volley.fire([form for form in forms() if form not in places], fate)
    assert not listener.asked
    volley.fire(accepted, fate)
    assert {accepted_port(listener) for _ in accepted} == set(ports)
    assert not listener.asked
    link.a.inject(make(form("good", *[SIGNED] * signed), last))
    assert accepted_port(listener) == last
    assert volley.ports(SYN | ACK) <= {*ports, last}
    friend = link.client("native" if signed else "plain", ends, *[key] * signed)
    link.connect(friend, listener).exchange()
    report = judge_without(link, volley.fates, unsigned=not signed)
    assert report.ok, report.summary()


@requirement(1, 2, 3, 27)
def test_answer_to_a_syn(link, ends):
    """Each form that is accepted answers a SYN of its own; the others leave theirs unanswered."""
    key = key_of(ends)
    accepted = [form for form in forms() if keyed(form).accepted]
    clients = [link.client("ours", ends, key) for _ in (*accepted, None)]
    for client in clients:
        link.start(client)
    wait_for("the SYNs", lambda: len(link.audit().signed) >= len(clients))
    forger = Forger(link, link.b, ends.wire, PORT, 0)
    isns = {r.segment.sport: r.segment.seq for r in link.report.signed}
    signature = forger.ao(key, src_isn=5000, dst_isn=0)
    answer = forger.tcp(seq=5000, flags=SYN | ACK)
    *ports, last = (client.sock.getsockname()[1] for client in clients)
    places = dict(zip(accepted, ports, strict=True))

    def make(form: Form) -> bytes:
        port = places.get(form, last)
        segment = replace(answer, dport=port, ack=isns[port] + 1)
        return maker(forger, segment, replace(signature, dst_isn=isns[port]))(form)

    volley = Volley(forger, make)
    volley.fire([form for form in forms() if form not in places], keyed)
    assert all(client.pending for client in clients)
    volley.fire(accepted, keyed)
    *answered, unanswered = clients
    wait_for("those accepted to connect", lambda: not any(c.pending for c in answered))
    assert unanswered.pending
    assert {data[13] for data in volley.answers()} <= {SYN, ACK}
    link.b.inject(make(form("AO", SIGNED)))
    wait_for("a good answer to be taken", lambda: not unanswered.pending)
    for client in clients:
        assert client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    report = judge_without(link, volley.refused)
    assert {record.source for record in report.bad} <= {"", link.a.addresses[ends.wire]}


def duplicates(forger: Forger, key: Mkt, fate: Callable[[Form], Fate], *, every: bool) -> Volley:
    """Sends each form in a copy of the last byte: those accepted are acknowledged, no others."""
    segment = forger.tcp(flags=PSH | ACK, payload=b"x")
    segment = replace(segment, seq=segment.seq - 1)
    volley = Volley(forger, maker(forger, segment, forger.ao(key)))
    volley.fire([*forms(every=every), *(as_data() if every else ())], fate)
    assert volley.accepted > 0
    wait_for("all answers", lambda: len(volley.answers()) >= volley.accepted)
    assert [data[13] for data in volley.answers()] == [ACK] * volley.accepted
    return volley


@requirement(1, 2, 3, 27)
def test_protected_connection(link, ends):
    """One option of each length at each place, too."""
    key = key_of(ends)
    connection = link.connected("native", "ours", ends, key)
    connection.exchange()
    volley = duplicates(Forger.of(link, link.a, ends.wire), key, keyed, every=True)
    connection.exchange(b"undisturbed", b"as well")
    report = judge_without(link, volley.fates)
    assert report.ok, report.summary()


@requirement(1, 2, 3)
@pytest.mark.parametrize("reject", [False, True], ids=["accept", "reject"])
def test_unprotected_connection(link, ends, reject):
    listener = link.listen("ours", ends)
    abi.set_authopt(listener.sock, abi.FLAG_REJECT_UNEXPECTED if reject else 0)
    connection = link.connect(link.client("plain", ends), listener)
    connection.exchange()
    port = connection.client.sock.getsockname()[1]
    forger = Forger(link, link.a, ends.wire, port, PORT, unsigned=True)
    fate = not_keyed_and_rejecting if reject else not_keyed
    volley = duplicates(forger, key_of(ends), fate, every=False)
    connection.exchange(b"undisturbed", b"as well")
    report = judge_without(link, volley.fates, unsigned=True)
    assert report.ok, report.summary()


TIME_WAIT = "06"


def in_time_wait_now(link: Link) -> bool:
    """Whether host A has a connection in TIME-WAIT."""
    lines = [line for name in ("tcp", "tcp6") for line in link.a.namespace.read(name).splitlines()]
    return TIME_WAIT in [line.split()[3] for line in lines]


def closed(link: Link, ends: Ends, key: Mkt) -> Forger:
    """A connection that A has closed first; the forger speaks as B, who has closed as well."""
    # An answer to each segment, not one in half a second.
    link.a.namespace.write_sysctl("net/ipv4/tcp_invalid_ratelimit", 0)
    connection = link.connected("ours", "native", ends, key)
    connection.exchange()
    connection.close()
    wait_for("TIME-WAIT", lambda: in_time_wait_now(link))
    return Forger.of(link, link.b, ends.wire)


@requirement(1, 2, 3, 27)
def test_forms_in_time_wait(link, ends):
    """In copies of the last FIN: those accepted are acknowledged, and signed, no others."""
    key = key_of(ends)
    forger = closed(link, ends, key)
    fin = forger.tcp(flags=FIN | ACK)
    fin = replace(fin, seq=fin.seq - 1)
    volley = Volley(forger, maker(forger, fin, forger.ao(key)))
    volley.fire(forms(), in_time_wait)
    wait_for("all answers", lambda: len(volley.answers()) >= volley.accepted)
    assert [data[13] for data in volley.answers()] == [ACK] * volley.accepted
    assert in_time_wait_now(link)
    report = judge_without(link, volley.fates)
    assert report.ok, report.summary()
    assert len([r for r in report.signed if r.segment.flags == ACK]) >= volley.accepted


@requirement(22)
def test_segments_in_time_wait(link, ends):
    """Nothing that is not signed, or wrongly, is answered or ends it; a good last FIN is."""
    wrong = replace(FIRST, name="wrong", secret=b"guessed")
    forger = closed(link, ends, FIRST)
    ack = forger.tcp()
    fin = replace(ack, seq=ack.seq - 1, flags=FIN | ACK)
    good = forger.ao(FIRST)
    unknown = replace(good, keyid=good.keyid ^ 1)
    segments = {
        "FIN": fin,
        "ACK": ack,
        "RST": replace(ack, flags=RST),
        "RST with ACK": replace(ack, flags=RST | ACK),
        "SYN": replace(ack, seq=ack.seq + 100_000, flags=SYN),
        "old SYN": replace(ack, seq=ack.seq - 1000, flags=SYN),
        "data": replace(ack, flags=PSH | ACK, payload=b"forged"),
        "old data": replace(ack, seq=ack.seq - 6, flags=PSH | ACK, payload=b"forged"),
    }
    counted: Counter[str] = Counter()
    before = len(link.audit().segments)
    for what, segment in segments.items():
        for ao, counter in ((None, REQUIRED), (forger.ao(wrong), BAD), (unknown, KEY_NOT_FOUND)):
            forger.send(segment, ao)
            counted[counter] += 1
            wait_for(f"{what} to be counted", lambda: link.a.counters() == counted)
            assert in_time_wait_now(link), what
    assert len(link.audit().segments) == before + counted.total(), link.report.summary()

    forger.send(fin, good)
    wait_for("an answer", lambda: len(link.audit().segments) == before + counted.total() + 2)
    last = link.report.segments[-1]
    assert last in link.report.signed
    assert (last.source, last.segment.flags) == (link.a.addresses[ends.wire], ACK)
    assert (last.segment.seq, last.segment.ack) == (ack.ack, ack.seq)
    assert in_time_wait_now(link)


@requirement(22)
def test_time_wait_without_a_key_to_send_with(link, ends):
    """A good last FIN is not answered, since that could not be signed, nor counted as accepted."""
    forger = closed(link, ends, FIRST)
    fin = forger.tcp(flags=FIN | ACK)
    fin = replace(fin, seq=fin.seq - 1)
    before = len(link.audit().segments)
    no_send = Ours.pack(link.a, link.b.addresses[ends.wire], FIRST, abi.KEY_NOSEND)
    abi.set_key(link.a.control(ends.client), no_send)
    good = link.a.counters()
    forger.send(fin, forger.ao(FIRST))
    wait_for("it to be counted", lambda: link.a.counters() == good | {KEY_NOT_FOUND: 1})
    assert len(link.audit().segments) == before + 1
    assert in_time_wait_now(link)
