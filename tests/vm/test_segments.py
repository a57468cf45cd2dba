"""Established and closing connections: probes, resets, FINs in every order, also across a wrap.

Where a scenario wraps, the next byte of either direction has the number ffffffff when it begins:
that byte, or that FIN, has SNE n, and all that follows n + 1.
"""

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import pytest

import abi
from checkpoint import ON, Frozen, repair
from clock import wait_for
from conftest import OURS
from link import FIRST, PORT, ROLES, TIMEOUT, V4, V6, Connection, Ends, Host, Link, Peer
from requirement import requirement
from tcp_authopt_verify.wire import ACK, FIN, RST, SYN, Segment

pytestmark = OURS

LAST = (1 << 32) - 1
TCP_LINGER2, TCP_USER_TIMEOUT = 8, 18
ESTABLISHED, FIN_WAIT2, TIME_WAIT, CLOSE = 1, 5, 6, 7
"""States, as in TCP_INFO and in /proc/net/tcp."""

PAIRINGS = (("ours", "ours"), ("ours", "native"), ("native", "ours"))
EVERY_PAIR = [(*roles, ends) for roles in PAIRINGS for ends in (V4, V6)]


def each_pairing(*each_ends: Ends) -> pytest.MarkDecorator:
    """A test of every pairing, each with one of these ends."""
    rows = [
        pytest.param(*roles, ends, id=f"{'-'.join(roles)}-{ends.wire}")
        for roles, ends in zip(PAIRINGS, each_ends, strict=True)
    ]
    return pytest.mark.parametrize(("client", "server", "ends"), rows)


CROSSWISE = pytest.mark.parametrize(
    ("client", "server", "ends", "who", "wraps"),
    [
        pytest.param("ours", "ours", V4, "client", False, id="ours-ours-v4-client"),
        pytest.param("ours", "ours", V6, "server", True, id="ours-ours-v6-server-wraps"),
        pytest.param("ours", "native", V6, "client", False, id="ours-native-v6-client"),
        pytest.param("ours", "native", V4, "client", True, id="ours-native-v4-client-wraps"),
        pytest.param("native", "ours", V6, "server", True, id="native-ours-v6-server-wraps"),
    ],
)
"""Who begins to close is ours."""


def set_timers(link: Link, rto_min_us: int) -> None:
    """How soon sockets that are made from now on send again what was not acknowledged."""
    sysctls = {
        "tcp_rto_min_us": rto_min_us,
        "tcp_early_retrans": 0,  # no loss probes
        "tcp_autocorking": 0,  # what is sent at once stays apart
        "tcp_invalid_ratelimit": 0,  # an answer to each segment
    }
    for host in (link.a, link.b):
        for name, value in sysctls.items():
            host.namespace.write_sysctl(f"net/ipv4/{name}", value)


@pytest.fixture
def patient(link: Link) -> Link:
    """A link on which nothing is sent twice.

    FIN-WAIT-2 lasts 3.5 times as long at least, and is left to a TIME-WAIT socket if that is not
    more than a minute.
    """
    set_timers(link, 10_000_000)
    return link


@pytest.fixture
def hasty(link: Link) -> Link:
    """A link on which what was lost is soon sent again."""
    set_timers(link, 10_000)
    return link


def port_of(peer: Peer) -> int:
    """The end's own port."""
    return peer.sock.getsockname()[1]


def sent(link: Link, peer: Peer, port: int | None = None) -> list[Segment]:
    """What the end has sent, all with the right MAC, oldest first; its port where it has closed."""
    own, port = set(peer.host.addresses.values()), port or port_of(peer)
    return [
        record.segment
        for record in link.verify().signed
        if record.source in own and record.segment.sport == port
    ]


def state(peer: Peer) -> int:
    """The state of its socket."""
    return peer.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def error_of(peer: Peer) -> int:
    """What its socket has to report."""
    return peer.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def has_left(host: Host, port: int) -> int | None:
    """The state of what the host has left at a port of its own, listening sockets aside."""
    for name in ("tcp", "tcp6"):
        for line in host.namespace.read(name).splitlines()[1:]:
            fields = line.split()
            if int(fields[1].split(":")[1], 16) == port and fields[3] != "0A":
                return int(fields[3], 16)
    return None


def time_waits(host: Host) -> int:
    """How many of the host's connections are left to TIME-WAIT sockets, whatever their state."""
    (line,) = (text for text in host.namespace.read("sockstat").splitlines() if text[:4] == "TCP:")
    fields = line.split()
    return int(fields[fields.index("tw") + 1])


def nothing_refused(link: Link) -> bool:
    """All that came was good, on both hosts."""
    return (link.a.counters(), link.b.counters()) == ({}, {})


@contextmanager
def deaf(*peers: Peer) -> Iterator[None]:
    """These ends get no segment meanwhile, though a capture has it."""
    gates = [peer.host.gate() for peer in peers]
    for gate in gates:
        gate.shut()
    yield
    for gate in gates:
        gate.open()


# ---- sequence numbers ----


@dataclass(frozen=True)
class FrozenNative(Frozen):
    """A connection of the kernel's own TCP-AO, which is told the SNEs of its new place."""

    peer: Peer | None = None

    @staticmethod
    def read_ao(sock: socket.socket) -> tuple[None, abi.RepairAuthopt]:
        """TCP_AO_REPAIR, which takes the sequence numbers for known."""
        value = sock.getsockopt(socket.IPPROTO_TCP, abi.TCP_AO_REPAIR, 16)
        isns, snes = struct.unpack("!II", value[:8]), struct.unpack("=II", value[8:])
        return None, abi.RepairAuthopt(*isns, *snes, 0, 0)

    def moved(self, sent: int, received: int) -> Self:
        """Nothing is on its way."""
        snd_sne = ((self.ao.snd_sne << 32 | self.send_end) + sent) >> 32
        rcv_sne = ((self.ao.rcv_sne << 32 | self.receive_end) + received) >> 32
        ao = self.ao._replace(snd_sne=snd_sne, rcv_sne=rcv_sne)
        return replace(super().moved(sent, received), ao=ao)

    def set_authopt(self, sock: socket.socket) -> None:
        """The key is the socket's own."""
        replace(self.peer, sock=sock).add(FIRST)

    def set_ao(self, sock: socket.socket) -> None:
        """The same option."""
        isns, snes = struct.pack("!II", *self.ao[:2]), struct.pack("=II", *self.ao[2:4])
        sock.setsockopt(socket.IPPROTO_TCP, abi.TCP_AO_REPAIR, isns + snes)


def freeze(peer: Peer) -> Frozen:
    """Takes an idle connection out of the kernel, whosever TCP-AO it is."""
    repair(peer.sock, ON)
    if peer.role is ROLES["native"]:
        frozen: Frozen = replace(FrozenNative.of(peer.sock), peer=peer)
    else:
        frozen = Frozen.of(peer.sock)
    peer.sock.close()
    return frozen


def to_the_wrap(connection: Connection) -> None:
    """Both ends go on where the next byte of either direction is the last one before a wrap.

    No step is one of 2^31 or more, and each is seen on the wire. In the end both know anew how
    long an answer takes.
    """
    rest = 100
    for steps in (3, 2, 1):
        client, server = map(freeze, connection.peers)
        there, back = (
            (LAST - rest - end.send_end) % (1 << 32) // steps for end in (client, server)
        )
        connection.client.sock = client.moved(there, back).rebuild(connection.client.host)
        connection.server.sock = server.moved(back, there).rebuild(connection.server.host)
        count = 1 if steps > 1 else rest
        connection.exchange(bytes(count), bytes(count))


def connected(
    link: Link, client: str, server: str, ends: Ends, *, wraps: bool, port: int = PORT
) -> Connection:
    """A connection at its beginning, or before its first wrap."""
    connection = link.connected(client, server, ends, port=port)
    connection.exchange()
    if wraps:
        # It would be asked about what comes while there is no socket.
        connection.listener.sock.close()
        to_the_wrap(connection)
    return connection


def times_sent(link: Link, peer: Peer, number: int) -> int:
    """How often the end has sent data that begins there."""
    return sum(bool(s.payload) and s.seq == number for s in sent(link, peer))


def passed_the_wrap(segments: list[Segment]) -> bool:
    """The last one has its number from behind it, and there was one before it."""
    return segments[-1].seq < 1 << 16 and any(s.seq >> 31 for s in segments)


@requirement(15)
@each_pairing(V6, V6, V4)
def test_rounds(link, client, server, ends):
    """Bytes pass the wrap in both directions, three times."""
    connection = connected(link, client, server, ends, wraps=True)
    for _ in range(3):
        connection.exchange(bytes(3000), bytes(3000))
        to_the_wrap(connection)
    connection.exchange(bytes(3000), bytes(3000))
    for peer in connection.peers:
        numbers = [segment.seq for segment in sent(link, peer)]
        assert sum(before - after > 1 << 31 for before, after in pairwise(numbers)) >= 4
    connection.close()
    link.verify()
    assert nothing_refused(link)


@requirement(15)
@each_pairing(V4, V4, V6)
def test_reordered_at_the_wrap(patient, client, server, ends):
    """Six segments either way come in the opposite order: those behind the wrap are first."""
    link = patient
    connection = connected(link, client, server, ends, wraps=True)
    for sender, receiver in (connection.peers, connection.peers[::-1]):
        sender.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with deaf(receiver):
            for number in range(6):
                sender.sock.send(bytes([number]))
            lost = [segment for segment in sent(link, sender) if segment.payload][-6:]
        assert [segment.payload for segment in lost] == [bytes([number]) for number in range(6)]
        pairs = zip(link.tap.frames, link.report.records, strict=True)
        frames = {id(record.segment): frame.data for frame, record in pairs}
        with deaf(sender):  # which would fill the gap at once
            for segment in lost[::-1]:
                sender.host.inject(frames[id(segment)])
            wait_for("the first", lambda sock=receiver.sock: len(sock.recv(9, socket.MSG_PEEK)) > 5)
            assert receiver.sock.recv(9) == bytes(range(6))
        connection.send(receiver)
    connection.exchange()
    for host in (link.a, link.b):
        assert host.namespace.counters()["TCPOFOQueue"] == 5
    connection.close()
    link.verify()
    assert nothing_refused(link)


@requirement(15)
@each_pairing(V6, V6, V4)
def test_sent_again_at_the_wrap(hasty, client, server, ends):
    """What is lost begins before it; what has come again is acknowledged from behind it."""
    link = hasty
    connection = connected(link, client, server, ends, wraps=True)
    for peer in connection.peers:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with deaf(*connection.peers):
        for peer in connection.peers:
            for number in range(6):
                peer.sock.send(bytes([number]))
        for peer in connection.peers:
            wait_for("it to be sent again", lambda peer=peer: times_sent(link, peer, LAST) > 1)
    for peer in connection.peers:
        wait_for("all to be acknowledged", lambda peer=peer: not peer.unacknowledged)
        assert peer.sock.recv(10) == bytes(range(6))
    connection.exchange()
    assert all(passed_the_wrap(sent(link, peer)) for peer in connection.peers)
    connection.close()
    link.verify()
    assert nothing_refused(link)


# ---- probes ----


def end_of(segments: list[Segment]) -> int:
    """The highest number behind what was sent, where nothing wraps."""
    return max(s.seq + len(s.payload) + bool(s.flags & (SYN | FIN)) for s in segments)


def probes(segments: list[Segment]) -> list[Segment]:
    """Segments without data that repeat the last number."""
    last = end_of(segments) - 1
    return [s for s in segments if s.flags == ACK and not s.payload and s.seq == last]


@requirement(21)
def test_keepalives(link):
    """Both ends of every pairing ask, and are answered."""
    connections = []
    for number, (client, server, ends) in enumerate(EVERY_PAIR):
        connection = connected(link, client, server, ends, wraps=False, port=1000 + number)
        for peer in connection.peers:
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
                peer.sock.setsockopt(socket.IPPROTO_TCP, option, 1)
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connections.append(connection)

    def answered(asking: Peer, other: Peer) -> bool:
        if not (asked := probes(sent(link, asking))):
            return False
        segments = [record.segment for record in link.report.signed]
        ports, end = (port_of(other), port_of(asking)), end_of(sent(link, asking))
        return any(
            (s.sport, s.dport) == ports and s.flags == ACK and s.ack == end
            for s in segments[segments.index(asked[0]) :]
        )

    for connection in connections:
        for asking, other in (connection.peers, connection.peers[::-1]):
            wait_for("an answer", lambda asking=asking, other=other: answered(asking, other))
    for connection in connections:
        assert [state(peer) for peer in connection.peers] == [ESTABLISHED] * 2
        connection.exchange()
        connection.close()
    link.verify()
    assert nothing_refused(link)


@requirement(21)
def test_zero_window_probes(hasty):
    """In every pairing one end does not read: it is asked until it does, and gets everything."""
    link = hasty
    transfers = []
    for number, (role, server, ends) in enumerate(EVERY_PAIR):
        listener = link.listen(server, ends, FIRST, port=1000 + number)
        client = link.client(role, ends, FIRST)
        for sock in (listener.sock, client.sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
        connection = link.connect(client, listener)
        sender, receiver = connection.peers if ends is V4 else connection.peers[::-1]
        sender.sock.setblocking(False)
        count = sender.sock.send(bytes(i % 251 for i in range(1 << 16)))
        transfers.append((connection, sender, receiver, count))

    def answered(sender: Peer, receiver: Peer) -> bool:
        """A probe repeats the last number that was acknowledged."""
        shut = [s for s in sent(link, receiver) if s.header[14:16] == b"\0\0"]
        asked = [s for s in sent(link, sender) if not s.payload and shut]
        return len(shut) > 1 and any(s.seq == shut[-1].ack - 1 for s in asked)

    for _, sender, receiver, _ in transfers:
        wait_for("a probe", lambda s=sender, r=receiver: answered(s, r))
        assert sender.unacknowledged
    for connection, sender, receiver, count in transfers:
        got = b""
        while len(got) < count:
            got += receiver.sock.recv(1 << 16)
        assert got == bytes(i % 251 for i in range(count))
        sender.sock.settimeout(TIMEOUT)
        connection.exchange()
        connection.close()
    link.verify()
    assert nothing_refused(link)


# ---- resets ----


def say(sender: Peer, receiver: Peer) -> None:
    """One byte, which is acknowledged."""
    sender.sock.send(b"!")
    assert receiver.sock.recv(2) == b"!"
    wait_for("it to be acknowledged", lambda: not sender.unacknowledged)


def closed_with_linger_0(closing: Peer, other: Peer) -> None:
    """Without a FIN."""
    say(closing, other)
    closing.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    closing.sock.close()


def data_after_shutdown(closing: Peer, other: Peer) -> None:
    """It wants no data, and the socket is there still."""
    closing.sock.shutdown(socket.SHUT_RDWR)
    assert other.sock.recv(1) == b""
    other.sock.send(b"too late")


def data_in_fin_wait_1(closing: Peer, other: Peer) -> None:
    """Its socket is gone, and its FIN was lost."""
    say(closing, other)
    with deaf(other):
        closing.sock.close()
    other.sock.send(b"too late")


def data_in_fin_wait_2(closing: Peer, other: Peer) -> None:
    """Its socket is gone, and is to wait longer for a FIN than TIME-WAIT lasts."""
    closing.sock.setsockopt(socket.IPPROTO_TCP, TCP_LINGER2, 100)
    port = port_of(closing)
    closing.sock.close()
    assert other.sock.recv(1) == b""
    wait_for("FIN-WAIT-2", lambda: has_left(closing.host, port) == FIN_WAIT2)
    assert not time_waits(closing.host)
    other.sock.send(b"too late")


def data_in_time_wait(closing: Peer, other: Peer) -> None:
    """Of what waits for a FIN only so much is left as of TIME-WAIT."""
    closing.sock.close()
    assert other.sock.recv(1) == b""
    wait_for("FIN-WAIT-2", lambda: time_waits(closing.host) == 1)
    other.sock.send(b"too late")


def closed_in_fin_wait_2(closing: Peer, other: Peer) -> None:
    """It is told not to wait for the FIN."""
    closing.sock.setsockopt(socket.IPPROTO_TCP, TCP_LINGER2, -1)
    closing.sock.shutdown(socket.SHUT_WR)
    assert other.sock.recv(1) == b""
    wait_for("FIN-WAIT-2", lambda: state(closing) == FIN_WAIT2)
    closing.sock.close()


def closed_before_fin_wait_2(closing: Peer, other: Peer) -> None:
    """The same, and the ACK of its FIN is what it answers."""
    closing.sock.setsockopt(socket.IPPROTO_TCP, TCP_LINGER2, -1)
    closing.sock.close()


RESETS: dict[Callable[[Peer, Peer], None], int] = {
    closed_with_linger_0: errno.ECONNRESET,
    data_after_shutdown: errno.EPIPE,
    data_in_fin_wait_1: errno.ECONNRESET,
    data_in_fin_wait_2: errno.EPIPE,
    data_in_time_wait: errno.EPIPE,
    closed_in_fin_wait_2: errno.EPIPE,
    closed_before_fin_wait_2: errno.EPIPE,
}
"""And what the other end learns of it, which has seen a FIN or has not."""


@requirement(15, 21)
@CROSSWISE
@pytest.mark.parametrize("how", RESETS, ids=lambda how: how.__name__.replace("_", "-"))
def test_reset(patient, how, client, server, ends, who, wraps):
    link = patient
    connection = connected(link, client, server, ends, wraps=wraps)
    closing, other = connection.peers if who == "client" else connection.peers[::-1]
    port = port_of(closing)
    how(closing, other)
    wait_for("the reset", lambda: state(other) == CLOSE)
    assert error_of(other) == RESETS[how]
    segments = sent(link, closing, port)
    assert [bool(s.flags & RST) for s in segments][-2:] == [False, True]
    assert (segments[-1].seq == 0) == wraps
    assert not any(s.flags & RST for s in sent(link, other))
    assert nothing_refused(link)


@requirement(21)
@pytest.mark.parametrize(
    ("client", "ends"),
    [pytest.param("ours", V6, id="ours-v6"), pytest.param("native", V4, id="native-v4")],
)
def test_reset_of_what_was_not_accepted(link, client, ends):
    """A connection whose listener closes is; a request for which there is no room is just dropped.

    Though the host is to reset it: the stack asks in the name of the listener, which has no ISNs.
    """
    link.b.namespace.write_sysctl("net/ipv4/tcp_abort_on_overflow", 1)
    listener = link.listen("ours", ends, FIRST)
    listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    waiting, late = link.client(client, ends, FIRST), link.client(client, ends, FIRST)
    for one in (waiting, late):
        link.start(one)
        wait_for("the client to be through", lambda one=one: not one.pending)
    counters = link.b.namespace.counters
    wait_for("their ACKs to be put aside", lambda: counters()["TCPDeferAcceptDrop"] == 2)
    listener.sock.listen(0)
    waiting.sock.send(b"first")
    wait_for("the first to be taken", lambda: listener.asked)
    late.sock.send(b"second")
    wait_for("the second to be dropped", lambda: counters()["EmbryonicRsts"] == 1)
    listener.sock.close()
    wait_for("the reset", lambda: state(waiting) == CLOSE)
    assert error_of(waiting) == errno.ECONNRESET
    assert state(late) == ESTABLISHED
    resets = [r.segment.dport for r in link.verify().signed if r.segment.flags & RST]
    assert resets == [port_of(waiting)]
    assert nothing_refused(link)


@requirement(21)
def test_reset_after_the_last_keepalive(link):
    """Whoever gets no answers gives up, and says so."""
    connections = []
    for number, (client, server, ends) in enumerate(EVERY_PAIR):
        connection = connected(link, client, server, ends, wraps=False, port=1000 + number)
        if client == "ours":
            connections.append(connection)
    with deaf(connections[0].client):
        for connection in connections:
            sock = connection.client.sock
            sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 10)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
                sock.setsockopt(socket.IPPROTO_TCP, option, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for connection in connections:
            wait_for("the reset", lambda peer=connection.server: state(peer) == CLOSE)
            assert error_of(connection.client) == errno.ETIMEDOUT
            assert error_of(connection.server) == errno.ECONNRESET
            flags = [segment.flags & RST for segment in sent(link, connection.client)]
            assert flags[-2:] == [0, RST]
    assert nothing_refused(link)


@requirement(21)
@pytest.mark.parametrize(
    ("client", "ends"),
    [pytest.param("ours", V6, id="ours-v6"), pytest.param("native", V4, id="native-v4")],
)
def test_no_reset_of_what_cannot_be_signed(link, client, ends):
    """A listener that knows nothing of a connection is silent, as is a client that gave up."""
    listener = link.listen("ours", ends, FIRST)
    listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    client = link.client(client, ends, FIRST)
    link.start(client)
    wait_for("the client to be through", lambda: not client.pending)
    listener.sock.close()
    listener = link.listen("ours", ends, FIRST)
    client.sock.send(b"to a stranger")
    wait_for("it to be sent again", lambda: [s for s in sent(link, client) if s.payload][1:])

    client = link.client("ours", ends, FIRST)
    with deaf(listener):
        link.start(client)
        port = port_of(client)
        (syn,) = [
            frame.data
            for frame, record in zip(link.tap.settle(), link.verify().records, strict=False)
            if record.segment and record.segment.sport == port
        ]
        client.sock.close()
    link.a.inject(syn)
    wait_for("the SYN-ACK", lambda: has_left(link.b, PORT))
    assert [segment.flags for segment in sent(link, client, port)] == [SYN, SYN]
    assert not any(record.segment.flags & RST for record in link.verify().segments)
    assert nothing_refused(link)


# ---- FINs ----


def fins(link: Link, peer: Peer) -> list[Segment]:
    """Those that the end has sent so far."""
    return [segment for segment in sent(link, peer) if segment.flags & FIN]


def finish(peer: Peer, receiver: Peer) -> None:
    """It has nothing more to say, and the other one hears it."""
    peer.sock.shutdown(socket.SHUT_WR)
    assert receiver.sock.recv(1) == b""


def alone(link: Link, first: Peer, other: Peer) -> None:
    """One after the other."""
    finish(first, other)
    finish(other, first)


def with_data(link: Link, first: Peer, other: Peer) -> None:
    """In the segment with the last bytes."""
    for peer, receiver in ((first, other), (other, first)):
        peer.sock.send(b"the last bytes", socket.MSG_MORE)
        peer.sock.shutdown(socket.SHUT_WR)
        assert receiver.sock.recv(20) == b"the last bytes"
        assert receiver.sock.recv(1) == b""
        assert fins(link, peer)[0].payload == b"the last bytes"


def while_the_other_end_sends(link: Link, first: Peer, other: Peer) -> None:
    """One end has closed, reads on and acknowledges."""
    finish(first, other)
    for size in (1, 3000):
        other.sock.sendall(bytes(size))
        received = 0
        while received < size:
            received += len(first.sock.recv(size))
        wait_for("all to be acknowledged", lambda: not other.unacknowledged)
    finish(other, first)


def both_at_once(link: Link, first: Peer, other: Peer) -> None:
    """They cross each other; both ends go through TIME-WAIT."""
    with deaf(first, other):
        for peer in (first, other):
            peer.sock.shutdown(socket.SHUT_WR)
        wait_for("both FINs", lambda: fins(link, first) and fins(link, other))
    assert (first.sock.recv(1), other.sock.recv(1)) == (b"", b"")
    for peer in (first, other):
        port = port_of(peer)
        wait_for("TIME-WAIT", lambda p=peer, port=port: has_left(p.host, port) == TIME_WAIT)


def lost_at_first(link: Link, first: Peer, other: Peer) -> None:
    """Each of them, and it is sent again."""
    for peer, receiver in ((first, other), (other, first)):
        with deaf(receiver):
            peer.sock.shutdown(socket.SHUT_WR)
            wait_for("it again", lambda peer=peer: len(fins(link, peer)) > 1)
        assert receiver.sock.recv(1) == b""


def last_ack_is_lost(link: Link, first: Peer, other: Peer) -> None:
    """TIME-WAIT acknowledges the other FIN once more."""
    port = port_of(first)
    finish(first, other)
    wait_for("FIN-WAIT-2", lambda: state(first) == FIN_WAIT2)
    with deaf(other):
        finish(other, first)
        wait_for("TIME-WAIT", lambda: has_left(first.host, port) == TIME_WAIT)
        before = len(sent(link, first))
        wait_for("another ACK", lambda: len(sent(link, first)) > before)
    wait_for("it to be taken", lambda: state(other) == CLOSE)


def after_the_socket_has_gone(link: Link, first: Peer, other: Peer) -> None:
    """The other FIN ends FIN-WAIT-2, of which the kernel keeps no more than of TIME-WAIT.

    It and what acknowledges it are lost, and come again: both have to count on.
    """
    port = port_of(first)
    first.sock.close()
    assert other.sock.recv(1) == b""
    wait_for("FIN-WAIT-2", lambda: time_waits(first.host) == 1)
    assert has_left(first.host, port) == FIN_WAIT2
    with deaf(other):
        other.sock.shutdown(socket.SHUT_WR)
        wait_for("TIME-WAIT", lambda: has_left(first.host, port) == TIME_WAIT)
        before = len(sent(link, first, port))
        wait_for("another ACK", lambda: len(sent(link, first, port)) > before)
    wait_for("it to be taken", lambda: state(other) == CLOSE)


FINS = [
    alone,
    with_data,
    while_the_other_end_sends,
    both_at_once,
    lost_at_first,
    last_ack_is_lost,
    after_the_socket_has_gone,
]


@requirement(15)
@CROSSWISE
@pytest.mark.parametrize("how", FINS, ids=lambda how: how.__name__.replace("_", "-"))
def test_fin(hasty, how, client, server, ends, who, wraps):
    link = hasty
    connection = connected(link, client, server, ends, wraps=wraps)
    first, other = connection.peers if who == "client" else connection.peers[::-1]
    ports = port_of(first), port_of(other)
    how(link, first, other)
    wait_for("the end", lambda: state(other) == CLOSE)
    for peer, port in zip((first, other), ports, strict=True):
        segments = sent(link, peer, port)
        assert any(segment.flags & FIN for segment in segments)
        assert not any(segment.flags & RST for segment in segments)
        assert not wraps or segments[-1].ack < 1 << 16
    assert nothing_refused(link)
