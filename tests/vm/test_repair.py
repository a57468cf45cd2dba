"""A protected session is taken out of the kernel, put back, and goes on: its peer sees nothing."""

import errno
import socket
import struct
from dataclasses import replace

import pytest

import abi
from checkpoint import (
    OFF,
    ON,
    SEND_QUEUE,
    Frozen,
    freeze,
    in_another_process,
    put,
    repair,
)
from clock import ticks, wait_for
from link import (
    BAD,
    CMAC,
    FIRST,
    MAPPED_CLIENT,
    MAPPED_SERVER,
    SECOND,
    SHA1,
    SHA256,
    V4,
    V6,
    Connection,
    Link,
    Mkt,
    Peer,
)
from requirement import requirement
from test_sne import begin_at
from test_socket_options import refused

pytestmark = pytest.mark.ours

ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]
SIDES = ["active", "passive"]
NEAR = (1 << 32) - 300
TIMESTAMP = 8
TCP_RTO_MAX_MS = 44


def session(
    link: Link, side: str, peer: str, ends=V4, key: Mkt = FIRST
) -> tuple[Connection, Peer, Peer]:
    """A session of which this side is ours; that end, and the other."""
    for host in (link.a, link.b):
        host.namespace.write_sysctl("net/ipv4/tcp_rto_min_us", 10_000)
    roles = ("ours", peer) if side == "active" else (peer, "ours")
    connection = link.connected(*roles, ends, key)
    connection.exchange()
    near, far = connection.peers if side == "active" else connection.peers[::-1]
    return connection, near, far


def sent(link: Link, peer: Peer) -> list:
    """All good segments that an end has sent, in the order of the capture."""
    own = set(peer.host.addresses.values())
    return [record for record in link.verify().signed if record.source in own]


def move(peer: Peer, frozen: Frozen) -> None:
    """The session goes on in a socket that another process has made."""
    peer.sock = in_another_process(peer.host, frozen.rebuild)


@requirement(15)
@pytest.mark.parametrize(
    ("side", "peer", "ends", "algorithm"),
    [
        pytest.param("active", "ours", V4, SHA1, id="active-ours-v4-sha1"),
        pytest.param("active", "native", V4, SHA256, id="active-native-v4-sha256"),
        pytest.param("active", "ours", V6, CMAC, id="active-ours-v6-cmac"),
        pytest.param("active", "native", V6, CMAC, id="active-native-v6-cmac"),
        pytest.param("active", "native", MAPPED_CLIENT, SHA1, id="active-native-mapped-sha1"),
        pytest.param("passive", "ours", V4, CMAC, id="passive-ours-v4-cmac"),
        pytest.param("passive", "native", V4, SHA1, id="passive-native-v4-sha1"),
        pytest.param("passive", "ours", V6, SHA256, id="passive-ours-v6-sha256"),
        pytest.param("passive", "native", V6, SHA1, id="passive-native-v6-sha1"),
        pytest.param("passive", "ours", MAPPED_SERVER, SHA1, id="passive-ours-mapped-sha1"),
    ],
)
def test_session_goes_on_in_another_process(link, side, peer, ends, algorithm):
    """With data that this end has not read yet, and data that comes while there is no socket.

    Nothing leaves between the last segment of the old socket and the first of the new one.
    """
    key = replace(FIRST, algorithm=algorithm)
    connection, near, far = session(link, side, peer, ends, key)
    connection.send(near, bytes(3000))
    far.sock.send(b"unread, ")
    wait_for("the data to come", lambda: near.asked and not far.unacknowledged)
    frozen = freeze(near)
    assert (frozen.received, frozen.sent, frozen.unsent) == (b"unread, ", b"", b"")
    before = len(sent(link, near))

    far.sock.send(b"sent to nobody")
    wait_for("it to be sent", lambda: b"nobody" in sent(link, far)[-1].segment.payload)
    assert len(sent(link, near)) == before

    gate = near.host.gate()
    gate.shut()  # what comes between connect() and TCP_REPAIR_AUTHOPT is refused, and counted
    move(near, frozen)
    gate.open()
    receive(near, b"unread, sent to nobody")
    connection.exchange(bytes(5000), bytes(5000))
    assert abi.get_authopt(near.sock).flags == abi.FLAG_ACTIVE
    connection.close()
    link.verify()
    assert link.a.counters() == {}
    assert set(link.b.counters()) <= ({BAD} if side == "passive" else set()), "the listener"


def receive(peer: Peer, expected: bytes) -> None:
    """Reads exactly this."""
    got = b""
    while len(got) < len(expected):
        got += peer.sock.recv(100)
    assert got == expected


@pytest.mark.parametrize(("side", "ends"), [("active", V6), ("passive", V4)], ids=SIDES)
def test_with_data_that_did_not_arrive(link, side, ends):
    """Sent but lost, and not sent yet: both arrive, in their order."""
    connection, near, far = session(link, side, "native", ends)
    repair(near.sock, ON)
    put(near.sock, SEND_QUEUE, b"lost on the way, ")
    repair(near.sock, OFF)
    frozen = freeze(near)
    assert frozen.sent == b"lost on the way, "
    unsent = b"not sent yet, "
    move(near, replace(frozen, unsent=unsent, send_end=frozen.send_end + len(unsent)))
    near.sock.send(b"sent later")
    receive(far, b"lost on the way, not sent yet, sent later")
    connection.exchange()
    connection.close()
    link.verify()


@requirement(15)
@pytest.mark.parametrize(
    ("side", "peer", "ends"),
    [
        pytest.param("active", "native", V4, id="active-native-v4"),
        pytest.param("active", "ours", V6, id="active-ours-v6"),
        pytest.param("passive", "ours", V4, id="passive-ours-v4"),
        pytest.param("passive", "native", V6, id="passive-native-v6"),
    ],
)
def test_restored_after_a_wrap(link, side, peer, ends):
    """The client's numbers have passed 2^32; told is a number from either side of that."""
    roles = ("ours", peer) if side == "active" else (peer, "ours")
    listener = link.listen(roles[1], ends, FIRST)
    client = link.client(roles[0], ends, FIRST)
    begin_at(client, NEAR)
    connection = link.connect(client, listener)
    near = connection.peers[SIDES.index(side)]
    connection.exchange(bytes(1000), bytes(1000))
    sne, seq = ("snd_sne", "snd_seq") if side == "active" else ("rcv_sne", "rcv_seq")
    for told in (None, {sne: 0, seq: (1 << 32) - 1}, {sne: 0, seq: 1 << 31 | 1 << 12}):
        frozen = freeze(near)
        assert (frozen.ao.snd_sne, frozen.ao.rcv_sne) == ((1, 0) if side == "active" else (0, 1))
        if told:
            frozen = replace(frozen, ao=frozen.ao._replace(**told))
        move(near, frozen)
        connection.exchange()
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(15)
@pytest.mark.parametrize("ends", ENDS)
def test_restored_with_isn_ffffffff(link, ends):
    """Which wraps with the SYN: at its sender, and at its receiver."""
    listener = link.listen("ours", ends, FIRST)
    client = link.client("ours", ends, FIRST)
    begin_at(client, (1 << 32) - 1)
    connection = link.connect(client, listener)
    for near, snes in zip(connection.peers, ((1, 0), (0, 1)), strict=True):
        frozen = freeze(near)
        assert (frozen.ao.snd_sne, frozen.ao.rcv_sne) == snes
        move(near, frozen)
        connection.exchange()
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


def rebuild_at(connection: Connection, to_server: int, to_client: int) -> None:
    """Both ends go on as if so many more bytes had passed either way, less than 2^31.

    They are told their SNEs with the old sequence numbers.
    """
    client, server = map(freeze, connection.peers)
    connection.client.sock = client.moved(to_server, to_client).rebuild(connection.client.host)
    connection.server.sock = server.moved(to_client, to_server).rebuild(connection.server.host)


def places(connection: Connection) -> tuple[int, int]:
    """Where the client is in either direction, by what both ends say of it."""
    told = []
    for peer in connection.peers:
        repair(peer.sock, ON)
        told.append(abi.get_repair(peer.sock))
        repair(peer.sock, OFF)
    client, server = told
    assert (client.snd_sne, client.snd_seq) == (server.rcv_sne, server.rcv_seq)
    assert (client.rcv_sne, client.rcv_seq) == (server.snd_sne, server.snd_seq)
    return client.snd_sne << 32 | client.snd_seq, client.rcv_sne << 32 | client.rcv_seq


@requirement(15)
@pytest.mark.parametrize("ends", ENDS)
def test_several_wraps_of_both_directions(link, ends):
    """The verifier counts them by the segments that it sees."""
    connection = link.connected("ours", "ours", ends)
    connection.exchange()
    begin = places(connection)
    steps = 0x7FFF_0000, 0x5000_0001
    for _ in range(8):
        before = places(connection)
        rebuild_at(connection, *steps)
        assert places(connection) == tuple(map(sum, zip(before, steps, strict=True)))
        connection.exchange(b"", b"")
        connection.exchange()
    end = places(connection)
    wraps = [(now >> 32) - (then >> 32) for then, now in zip(begin, end, strict=True)]
    assert wraps[0] >= 3
    assert wraps[1] >= 2
    connection.close()
    link.verify()
    assert link.a.counters() == {}
    assert set(link.b.counters()) <= {BAD}, "the listener, of what the client sent alone"


@requirement(15)
def test_wrap_within_the_queues(link):
    """What is in them begins before it, and ends behind it."""
    connection, near, far = session(link, "active", "ours")
    quarter = 1 << 30
    for _ in range(3):
        left = [-place % (1 << 32) for place in places(connection)]
        rebuild_at(connection, *(quarter if rest > quarter else 0 for rest in left))
        connection.exchange()
    far.sock.send(b"unread by the client")
    wait_for("the data to come", lambda: near.asked and not far.unacknowledged)
    repair(near.sock, ON)
    put(near.sock, SEND_QUEUE, b"unknown to the server")
    client, server = freeze(near), freeze(far)
    steps = [(10 - end) % (1 << 32) for end in (client.send_end, client.receive_end)]
    assert all(step < 1 << 31 for step in steps)
    near.sock = client.moved(*steps).rebuild(near.host)
    far.sock = server.moved(*steps[::-1]).rebuild(far.host)
    assert near.sock.recv(100) == b"unread by the client"
    assert far.sock.recv(100) == b"unknown to the server"
    connection.exchange()
    connection.close()
    link.verify()


@requirement(14)
@pytest.mark.parametrize(("peer", "ends"), [("ours", V4), ("native", V6)], ids=["ours", "native"])
def test_after_a_rollover(link, peer, ends):
    """The peer has only the second key left. What it asks for is part of the state.

    By itself this end would begin with the first key, which it still has.
    """
    connection, near, far = session(link, "active", peer, ends)
    near.add(SECOND)
    far.add(SECOND)
    far.retire(FIRST, SECOND)
    wait_for("the second key to be used", lambda: both_use(connection, near, SECOND))
    frozen = freeze(near)
    before = len(sent(link, near))
    refused_before = far.host.counters()
    move(near, frozen)
    wait_for("its first segment", lambda: len(sent(link, near)) > before)
    connection.exchange()
    assert {record.key.name for record in sent(link, near)[before:]} == {"second"}
    assert far.host.counters() == refused_before
    connection.close()
    link.verify()


def both_use(connection: Connection, near: Peer, key: Mkt) -> bool:
    """Whether this end signs with the key now; asks by sending."""
    connection.exchange()
    authopt = abi.get_authopt(near.sock)
    return (authopt.send_keyid, authopt.recv_keyid) == (key.a_id, key.b_id)


@pytest.mark.parametrize(("side", "ends"), [("active", V6), ("passive", V4)], ids=SIDES)
def test_segments_that_come_before_the_isns(link, side, ends):
    """Between connect() and TCP_REPAIR_AUTHOPT: refused without an answer, and not for good."""
    connection, near, far = session(link, side, "native", ends)
    frozen = freeze(near)
    before = len(sent(link, near))
    sock = frozen.connect(near.host)
    far.sock.send(b"too early")
    wait_for("it to be refused", lambda: near.host.counters().get(BAD))
    assert len(sent(link, near)) == before
    frozen.set_ao(sock)
    frozen.set_rest(sock)
    repair(sock, OFF)
    near.sock = sock
    assert sock.recv(100) == b"too early"
    connection.exchange()
    connection.close()
    link.verify()


def test_nothing_leaves_before_the_isns(link):
    """Not what was put into the queue first, nor the probe at the end of repair."""
    connection, near, far = session(link, "active", "native")
    frozen = replace(freeze(near), sent=b"retransmitted too early")
    frozen = replace(frozen, send_end=frozen.send_end + len(frozen.sent))
    before = len(sent(link, near))
    timeouts = near.host.namespace.counters()["TCPTimeouts"]
    sock = near.sock = frozen.connect(near.host)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, 1000)
    frozen.set_rest(sock)
    wait_for("its retransmission", lambda: near.host.namespace.counters()["TCPTimeouts"] > timeouts)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    repair(sock, OFF)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENOKEY
    assert len(sent(link, near)) == before
    repair(sock, ON)
    frozen.set_ao(sock)
    repair(sock, OFF)
    assert far.sock.recv(100) == b"retransmitted too early"
    connection.exchange()
    connection.close()
    link.verify()


@requirement(9)
def test_without_the_keys(link):
    """The connection is not protected then, which is noticed in time: before a segment leaves."""
    connection, near, _ = session(link, "active", "native")
    frozen = freeze(near)
    near.sock = near.host.control(socket.AF_INET)
    near.delete(FIRST)
    before = len(sent(link, near))
    sock = frozen.connect(near.host)
    assert abi.get_authopt(sock).flags == 0
    with refused(errno.ENOENT):
        frozen.set_ao(sock)
    sock.close()
    near.add(FIRST, abi.KEY_NOSEND)
    with refused(errno.ENOKEY):
        frozen.connect(near.host)
    near.add(FIRST)
    assert len(sent(link, near)) == before
    move(near, frozen)
    connection.exchange()
    connection.close()
    link.verify()


def timestamps(record) -> tuple[int, int]:
    """TSval and TSecr."""
    (option,) = record.segment.named(TIMESTAMP)
    return struct.unpack("!II", option.value)


@pytest.mark.parametrize("side", SIDES)
def test_timestamps_are_echoed(link, side):
    """Each segment answers the last one, as before; the clock goes on where it was.

    With a window that stays as it is, all that comes is what header prediction waits for.
    """
    link.without_sack()
    connection, near, far = session(link, side, "native")
    last, _ = timestamps(sent(link, near)[-1])
    move(near, freeze(near))
    connection.exchange(bytes(3000), bytes(3000))
    restored = len(link.verify().signed)
    first, _ = timestamps(sent(link, far)[-1])
    for _ in ticks("the peer's clock to go on"):
        for _ in range(3):
            connection.send(far, bytes(100))
        if timestamps(sent(link, far)[-1])[0] > first + 20:
            break
    came = []
    for record in link.verify().signed[restored:]:
        value, echoed = timestamps(record)
        if record.source in far.host.addresses.values():
            came.append(value)
        else:
            assert 0 <= value - last < 60_000
            assert echoed in came[-2:], "it may have been sent before the last one came"
    connection.close()
    link.verify()
