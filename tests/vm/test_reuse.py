"""Sockets that are used a second time: what counts is the connection, not the one before."""

import ctypes
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import abi
from clock import wait_for
from craft import SYN
from forge import Forger
from link import BAD, FIRST, PORT, REQUIRED, ROLES, V4, V6, Connection, Ends, Link, Peer
from requirement import requirement
from rtnetlink import Rtnetlink
from tcp_authopt_verify import Key
from test_load import helper
from test_unload import TIME_WAIT

pytestmark = [pytest.mark.ours, pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])]


def disconnect(sock: socket.socket) -> None:
    """connect(AF_UNSPEC), which Python's own does not know."""
    libc = ctypes.CDLL(None, use_errno=True)
    nowhere = struct.pack("=H14x", socket.AF_UNSPEC)
    if libc.connect(sock.fileno(), nowhere, len(nowhere)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def is_protected(peer: Peer) -> bool:
    """Whether the connection is."""
    return bool(abi.get_authopt(peer.sock).flags & abi.FLAG_ACTIVE)


def connect_again(link: Link, client: Peer, listener: Peer):
    """The connection of the client's socket, whose last one has ended."""
    connection = link.connect(client, listener)
    connection.exchange()
    return connection


def listen_on(link: Link, ends: Ends, sock: socket.socket) -> Peer:
    """Makes A's socket a listener."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((link.a.address(ends.wire, ends.client), PORT))
    sock.listen()
    return Peer(link, link.a, ROLES["ours"], sock, link.b.address(ends.wire, ends.client))


def caller(link: Link, role: str, ends: Ends) -> Peer:
    """A socket on B, which calls A for once."""
    sock = link.b.tcp_socket(ends.server)
    return Peer(link, link.b, ROLES[role], sock, link.a.address(ends.wire, ends.server))


def assert_refuses_unsigned(link: Link, ends: Ends, listener: Peer) -> None:
    """B, for which A has a key, has to sign; and can."""
    stranger = caller(link, "plain", ends)
    link.start(stranger)
    wait_for("the SYN to be refused", lambda: link.a.counters().get(REQUIRED))
    assert set(link.a.counters()) == {REQUIRED}
    assert stranger.pending
    assert not listener.asked
    stranger.sock.close()

    friend = caller(link, "native", ends)
    friend.add(FIRST)
    connection = link.connect(friend, listener)
    connection.exchange()
    assert is_protected(connection.server)
    report = link.audit(unsigned=True)
    friends = friend.sock.getsockname()[1]
    assert friends in {record.segment.dport for record in report.signed}
    assert all(
        friends not in (record.segment.sport, record.segment.dport)
        for record in report.unsigned + report.bad
    )


@requirement(9)
@pytest.mark.parametrize("key", ["before-listen", "after-listen"])
def test_unprotected_then_listener(link, ends, key):
    """Parked while it was connected: it has to be watching again before the first SYN."""
    client = link.client("ours", ends)
    connection = link.connect(client, link.listen("plain", ends))
    connection.exchange()
    assert not is_protected(client)
    disconnect(client.sock)
    if key == "before-listen":
        client.add(FIRST)
    listener = listen_on(link, ends, client.sock)
    if key == "after-listen":
        listener.add(FIRST)
    assert_refuses_unsigned(link, ends, listener)


def test_unprotected_while_the_module_goes_and_comes(link, module, ends):
    """The socket does not hold it, and has not asked when it is there again."""
    connection = link.connect(link.client("ours", ends), link.listen("plain", ends))
    client = connection.client
    assert not is_protected(client)
    module.unload(wait=True)
    connection.exchange()
    module.enable()
    link.client("ours", ends, FIRST)
    disconnect(client.sock)
    connect_again(link, client, connection.listener)
    with pytest.raises(FileNotFoundError):
        abi.get_authopt(client.sock)
    assert not link.verify(unsigned=True).signed


@requirement(9)
def test_protected_then_listener(link, ends):
    client = link.client("ours", ends, FIRST)
    connect_again(link, client, link.listen("native", ends, FIRST))
    assert is_protected(client)
    disconnect(client.sock)
    assert_refuses_unsigned(link, ends, listen_on(link, ends, client.sock))


@requirement(9)
def test_listener_without_a_key_then_with_one(link, ends):
    """Listens, serves an unsigned peer, is disconnected, and listens for a peer with a key."""
    listener = listen_on(link, ends, link.client("ours", ends).sock)
    stranger = caller(link, "plain", ends)
    link.connect(stranger, listener).exchange()
    disconnect(listener.sock)
    listener.add(FIRST)
    listener.sock.listen()
    assert_refuses_unsigned(link, ends, listener)


@requirement(9)
def test_connections_of_all_kinds_in_turn(link, ends):
    """Unprotected, protected, unprotected, protected: each as the keys were when it began."""
    listeners = {
        False: link.listen("plain", ends, port=1001),
        True: link.listen("native", ends, FIRST, port=1002),
    }
    client = link.client("ours", ends)
    for round_ in range(2):
        connect_again(link, client, listeners[False])
        assert not is_protected(client), round_
        disconnect(client.sock)
        client.add(FIRST)
        connection = connect_again(link, client, listeners[True])
        assert abi.get_authopt(client.sock) == (
            abi.FLAG_ACTIVE,
            *(FIRST.a_id, FIRST.b_id),
            *(FIRST.b_id, FIRST.a_id),
        )
        disconnect(client.sock)
        with pytest.raises(ConnectionResetError):
            connection.server.sock.recv(1)
        client.delete(FIRST)
    report = link.verify(unsigned=True)
    ports = [
        {min(record.segment.sport, record.segment.dport) for record in records}
        for records in (report.unsigned, report.signed)
    ]
    assert ports == [{1001}, {1002}]


@requirement(13)
def test_other_key_the_second_time(link, ends):
    """Nothing of the first connection is left: not its ISNs, not its key, not its ids."""
    other = replace(FIRST, name="other", secret=b"another secret")
    client = link.client("ours", ends, FIRST)
    first = connect_again(link, client, link.listen("native", ends, FIRST, port=1001))
    disconnect(client.sock)
    with pytest.raises(ConnectionResetError):
        first.server.sock.recv(1)
    client.add(other)
    connect_again(link, client, link.listen("native", ends, other, port=1002)).close()
    report = link.verify()
    assert {record.key.name for record in report.signed} == {"first", "other"}


@requirement(13)
def test_connects_again_beside_its_own_time_wait(link, ends):
    """The old connection keeps its state: both answer, each with its own."""
    connection = link.connected("ours", "native", ends)
    connection.exchange()
    connection.client.sock.shutdown(socket.SHUT_WR)
    assert connection.server.sock.recv(1) == b""
    connection.server.sock.close()
    assert connection.client.sock.recv(1) == b""
    old = Forger.of(link, link.b, ends.wire)
    last, signature = old.segments(link.b)[-1], old.ao(FIRST)
    wait_for("TIME-WAIT", lambda: TIME_WAIT in link.a.states())

    disconnect(connection.client.sock)
    again = link.connect(connection.client, connection.listener)
    again.exchange()
    count = len(old.segments(link.a))
    old.send(old.tcp(seq=last.seq, ack=last.ack, flags=last.flags), signature)
    wait_for("the ACK of TIME-WAIT", lambda: len(old.segments(link.a)) > count)
    again.exchange()
    link.verify()


def add_addresses(link: Link, ends: Ends, *ends_of_it: int) -> list[str]:
    """Gives B more addresses, and returns them."""
    start, length = {"v4": ("192.0.2.", 24), "v6": ("2001:db8::", 64)}[ends.wire]
    addresses = [f"{start}{number}" for number in ends_of_it]
    with link.b.namespace.entered(), Rtnetlink() as rtnetlink:
        rtnetlink.add_addresses(link.b.interface, [f"{one}/{length}" for one in addresses])
    with link.a.namespace.entered(), Rtnetlink() as rtnetlink:
        rtnetlink.add_neighbours(link.a.interface, addresses, link.b.mac)
    return addresses


@requirement(9)
def test_other_peer_each_time(link, ends):
    """Protected, protected with another key, unprotected: the keys stay, the peers differ.

    Between two connections there is an attempt that gets nowhere, with the next peer but one:
    from SYN-SENT a socket can be used again, too.
    """
    first = link.b.address(ends.wire, ends.server)
    second, third = add_addresses(link, ends, 22, 23)
    other = replace(FIRST, name="other", secret=b"another secret")
    near = link.a.addresses[ends.wire]
    link.third_party.append(
        Key("other", near, second, other.a_id, other.b_id, "hmac-sha-1-96", other.secret)
    )
    client = link.client("ours", ends)
    flags = abi.FLAG_LOCK_RNEXTKEYID | abi.FLAG_REJECT_UNEXPECTED
    abi.set_authopt(client.sock, flags, 0, FIRST.b_id)
    listeners = {}
    for port, (address, keys) in enumerate(
        {first: [FIRST], second: [other], third: []}.items(), 1001
    ):
        sock = link.b.tcp_socket(ends.server)
        listener = Peer(link, link.b, ROLES["native"], sock, link.a.address(ends.wire, ends.client))
        for key in keys:
            listener.role.add(link.b, sock, listener.address, key, 0)
            client.role.add(link.a, client.sock, address, key, 0)
        sock.bind((address, port))
        sock.listen()
        listeners[address] = listener
    link.know(FIRST)
    lost = link.b.gate()
    order = [first, second, third, first, third, second, first]

    def reads(address: str) -> bool:
        protected = abi.FLAG_ACTIVE if address != third else 0
        return abi.get_authopt(client.sock).flags == flags | protected

    for target, in_vain in zip(order, order[2:] + order[:2], strict=True):
        lost.shut()
        client.sock.setblocking(False)
        client.sock.connect_ex((in_vain, listeners[in_vain].sock.getsockname()[1]))
        assert client.pending
        assert reads(in_vain)
        disconnect(client.sock)
        lost.open()
        client.sock.setblocking(True)
        client.address = target
        connection = connect_again(link, client, listeners[target])
        assert reads(target)
        disconnect(client.sock)
        with pytest.raises(ConnectionResetError):
            connection.server.sock.recv(1)
    report = link.verify(unsigned=True)
    found = {
        (record.key and record.key.name, min(record.segment.sport, record.segment.dport))
        for record in report.segments
    }
    assert found == {("first", 1001), ("other", 1002), (None, 1003)}


def test_protected_then_listener_reads_back_as_one(link, ends):
    """It has no connection: nothing of the last one shows, and its peers are judged by the keys."""
    client = link.client("ours", ends, FIRST)
    connect_again(link, client, link.listen("native", ends, FIRST))
    disconnect(client.sock)
    client.delete(FIRST)
    listener = listen_on(link, ends, client.sock)
    assert abi.get_authopt(listener.sock).flags == 0
    stranger = caller(link, "plain", ends)
    link.connect(stranger, listener).exchange()
    assert link.a.counters() == {}
    link.verify(unsigned=True)


@contextmanager
def paused(function: str) -> Iterator[Path]:
    """The function waits before it returns, once; gives the parameters of what makes it."""
    subprocess.run(["insmod", helper("pause"), f"function={function}"], check=True)
    parameters = Path("/sys/module/tao_test_pause/parameters")
    try:
        yield parameters
    finally:
        (parameters / "go").write_text("1")
        subprocess.run(["rmmod", "tao_test_pause"], check=True)


@requirement(9)
def test_unsigned_segment_before_the_syn(link, ends):
    """The socket can be found before its state is attached again: what comes then is dropped.

    It would be a SYN that crosses ours, of a peer with which the connection is to be protected.
    """
    client = link.client("ours", ends)
    client.sock.bind((link.a.address(ends.wire, ends.client), PORT + 1))
    connect_again(link, client, link.listen("plain", ends))
    assert not is_protected(client)
    disconnect(client.sock)
    client.add(FIRST)
    listener = link.listen("native", ends, FIRST, port=PORT + 2)
    forger = Forger(link, link.b, ends.wire, PORT + 2, PORT + 1, unsigned=True)
    hash_connect = {"v4": "inet_hash_connect", "v6": "inet6_hash_connect"}[ends.wire]
    with paused(hash_connect) as pause, ThreadPoolExecutor() as pool:
        connecting = pool.submit(client.sock.connect, (client.address, PORT + 2))
        wait_for("connect()", lambda: (pause / "waits").read_text() == "Y\n")
        forger.send(forger.tcp(seq=9000, flags=SYN))
        wait_for("the SYN", lambda: forger.segments(link.b))
        (pause / "go").write_text("1")
        connecting.result()
    connection = Connection(client, listener.accept(), listener)
    connection.exchange()
    assert is_protected(client)
    assert link.a.counters() == {BAD: 1}
    report = link.audit(unsigned=True)
    assert not report.bad
    unsigned = [record.segment for record in report.unsigned]
    later = [it.seq for it in unsigned if PORT + 2 in (it.sport, it.dport)]
    assert later == [9000]
