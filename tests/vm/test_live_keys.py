"""Keys that change under a live connection, which goes on or stands still, but never unsigned."""

import errno
import itertools
import mmap
import os
import signal
import socket
from dataclasses import replace

import pytest

import abi
from clock import ticks, wait_for
from conftest import PAIRS
from link import BAD, FIRST, KEY_NOT_FOUND, SECOND, TIMEOUT, V4, V6, Connection, Link, Ours, Peer
from requirement import requirement

ROUNDS = int(os.environ.get("TAO_ROUNDS", "2000"))

ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]
OURS_FIRST = [
    pytest.param("ours", "ours", "client", id="ours-ours-client"),
    pytest.param("ours", "ours", "server", id="ours-ours-server"),
    pytest.param("ours", "native", "client", id="ours-native-client"),
    pytest.param("native", "ours", "server", id="native-ours-server"),
]
"""Who connects to whom, and whose key, always one of ours, is changed."""


class Watch:
    """Which keys each end signs with, from one step of a test to the next."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.seen = len(link.verify().records)

    def keys(self) -> dict[str, list[str]]:
        """Their names, by host, in the order in which they came up since the last question."""
        records = self.link.verify().records[self.seen :]
        self.seen += len(records)
        return {
            host.name: list(
                dict.fromkeys(
                    record.key.name
                    for record in records
                    if record.key and record.source in host.addresses.values()
                )
            )
            for host in (self.link.a, self.link.b)
        }


def ends_of(connection: Connection, changed: str) -> tuple[Peer, Peer]:
    """The end whose key is changed, and the other one."""
    pair = connection.peers
    return pair if changed == "client" else pair[::-1]


@requirement(6, 11, 14)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_second_key_takes_over(link, client, server, ends):
    """A pair is added at both ends, then the first deleted at one and at the other."""
    connection = link.connected(client, server, ends)
    connection.exchange()
    watch = Watch(link)
    for peer in connection.peers:
        peer.add(SECOND)
    connection.exchange()
    assert watch.keys() == {"A": ["first"], "B": ["first"]}

    connection.client.retire(FIRST, SECOND)
    connection.send(connection.client)
    assert watch.keys() == {"A": ["second"], "B": ["second"]}, "B does as A's RNextKeyID says"
    connection.exchange()
    connection.server.retire(FIRST, SECOND)
    connection.exchange()
    connection.close()
    assert watch.keys() == {"A": ["second"], "B": ["second"]}
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(17)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(("client", "server", "changed"), OURS_FIRST)
def test_only_key_is_deleted(link, client, server, changed, ends):
    """Then nothing goes out and nothing comes in, until it is back."""
    connection = link.connected(client, server, ends)
    connection.exchange()
    mute, other = ends_of(connection, changed)
    mute.delete(FIRST)
    before = len(link.verify().records)
    so_error = socket.SOL_SOCKET, socket.SO_ERROR

    assert mute.sock.send(b"kept back") == len(b"kept back")
    error = wait_for("the error to be reported", lambda: mute.sock.getsockopt(*so_error))
    assert error == errno.ENOKEY
    other.sock.send(b"not let in")
    wait_for("the other end to be refused", lambda: mute.host.counters().get(KEY_NOT_FOUND))
    mute.sock.setblocking(False)
    with pytest.raises(OSError, match=rf"\[Errno ({errno.EAGAIN}|{errno.ENOKEY})\]"):
        mute.sock.recv(1)
    address = mute.host.addresses[ends.wire]
    assert [str(r) for r in link.verify().records[before:] if r.source == address] == []

    mute.add(FIRST)
    mute.sock.getsockopt(*so_error)
    mute.sock.settimeout(TIMEOUT)
    assert other.sock.recv(100) == b"kept back"
    assert mute.sock.recv(100) == b"not let in"
    connection.exchange()
    connection.close()
    link.verify()


@requirement(5, 6)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("changed", ["client", "server"])
def test_key_is_replaced_by_other_bytes(link, ends, changed):
    """From the moment that the call returns the old bytes are worth nothing."""
    connection = link.connected("ours", "ours", ends)
    connection.exchange()
    changed_first, other = ends_of(connection, changed)
    renewed = replace(FIRST, name="renewed", secret=b"other bytes under the same ids")
    watch = Watch(link)
    start = watch.seen
    changed_first.add(renewed)
    other.sock.send(b"signed with the old bytes, then with the new")
    wait_for("the old ones to be refused", lambda: changed_first.host.counters().get(BAD))
    assert not changed_first.asked

    other.add(renewed)
    assert changed_first.sock.recv(100) == b"signed with the old bytes, then with the new"
    assert watch.keys()[other.host.name] == ["first", "renewed"]
    old = [r for r in link.report.records[start:] if r.key and r.key.name == "first"]
    assert changed_first.host.counters() == {BAD: len(old)}
    assert other.host.counters() == {}

    connection.exchange()
    connection.close()
    assert watch.keys() == {"A": ["renewed"], "B": ["renewed"]}


@requirement(5)
@pytest.mark.ours
@pytest.mark.parametrize("what", ["algorithm", "options"])
def test_key_is_replaced_by_another_kind(link, what):
    """The algorithm and what the MAC covers count as much as the bytes."""
    link.without_sack()
    connection = link.connected("ours", "ours")
    connection.exchange()
    change = {"algorithm": SECOND.algorithm} if what == "algorithm" else {"covers_options": False}
    renewed = replace(FIRST, name="renewed", **change)
    watch = Watch(link)
    for peer in connection.peers:
        peer.add(renewed)
    connection.exchange()
    connection.close()
    assert watch.keys() == {"A": ["renewed"], "B": ["renewed"]}


@requirement(17)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(("client", "server", "changed"), OURS_FIRST)
def test_replacing_validity_disturbs_nothing(link, client, server, changed, ends):
    """NOSEND and NORECV steer which key is used; no segment is lost or refused on the way."""
    connection = link.connected(client, server, ends)
    for peer in connection.peers:
        peer.add(SECOND)
    connection.exchange()
    end, other = ends_of(connection, changed)
    watch = Watch(link)

    mine, its = end.host.name, other.host.name

    end.add(FIRST)
    connection.exchange()
    assert watch.keys() == {mine: ["first"], its: ["first"]}, "the same key once more"
    end.add(FIRST, abi.KEY_NOSEND)
    connection.exchange()
    assert watch.keys() == {mine: ["second"], its: ["first"]}
    end.add(FIRST, abi.KEY_NORECV)
    connection.send(end)  # what the other end sent before hearing of it would be refused
    connection.exchange()
    assert watch.keys() == {mine: ["first"], its: ["second"]}
    end.add(FIRST)
    connection.send(end)
    connection.exchange()
    connection.close()
    assert watch.keys() == {mine: ["first"], its: ["first"]}
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(17)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_replaced_all_the_time(link, ends):
    """By another process, at both ends, while data flows: there is no moment without the key."""
    connection = link.connected("ours", "ours", ends)
    lifetime = abi.KEY_SEND_LIFETIME_BEGIN, abi.KEY_RECV_LIFETIME_BEGIN
    replacements = [
        (peer.sock, Ours.pack(peer.host, peer.address, FIRST, flags))
        for flags in (0, *lifetime)
        for peer in connection.peers
    ]
    rounds = mmap.mmap(-1, mmap.PAGESIZE)
    writer = os.fork()
    if writer == 0:
        try:
            for count in itertools.count(1):
                for sock, key in replacements:
                    abi.set_key(sock, key)
                rounds[:4] = count.to_bytes(4)
        finally:
            os._exit(1)
    try:
        for _ in ticks(f"{ROUNDS} rounds of the writer", 40):
            connection.exchange(bytes(20000), bytes(20000))
            if int.from_bytes(rounds[:4]) >= ROUNDS:
                break
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(9)
@pytest.mark.ours
def test_key_added_too_late(link):
    """Whether a connection is protected is decided at its SYN, and never again."""
    listener = link.listen("ours", V4)
    client = link.client("ours", V4)
    connection = link.connect(client, listener)
    for peer in connection.peers:
        assert abi.get_authopt(peer.sock).flags & abi.FLAG_ACTIVE == 0
        peer.add(FIRST)
    connection.exchange()
    connection.close()
    report = link.verify(unsigned=True)
    assert not report.signed
