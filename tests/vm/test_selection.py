"""Which key is used: every KeyID and RNextKeyID here is read from the wire."""

import itertools
import mmap
import os
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

import abi
from clock import wait_for
from conftest import PAIRS
from craft import SYN
from forge import Forger
from link import (
    BAD,
    FIRST,
    KEY_NOT_FOUND,
    MAPPED_BOTH,
    PORT,
    SECOND,
    SHA256,
    V4,
    V6,
    Connection,
    Host,
    Link,
    Mkt,
    Ours,
    Peer,
)
from requirement import requirement
from tcp_authopt_verify.audit import Record
from tcp_authopt_verify.wire import ACK

ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]
ALL_ENDS = [*ENDS, pytest.param(MAPPED_BOTH, id="mapped")]
WITH_OURS = [pair for pair in PAIRS if pair.marks]
TO_OURS = [pair for pair in WITH_OURS if pair.values[1] == "ours"]
THIRD = Mkt("third", b"and a third one", 200, 201, SHA256)
KEYS = (FIRST, SECOND, THIRD)
pytestmark = pytest.mark.usefixtures("quick")
NOBODY = 99
"""An id that no key has."""
CONNECTIONS, ROUNDS = 20, 3
OTHERS, REPLACED, BULK = 50, 100, 100_000


def give(peer: Peer, key: Mkt, flags: int = 0, **criteria: object) -> None:
    """Adds, replaces or deletes a key of ours, with any criteria."""
    if not flags & abi.KEY_DEL:
        peer.link.know(key)
    abi.set_key(peer.sock, packed(peer, key, flags, **criteria))


def packed(peer: Peer, key: Mkt, flags: int = 0, **criteria: object) -> bytes:
    """The value of TCP_AUTHOPT_KEY that does it."""
    return abi.pack_key(
        *peer.host.ids(key),
        alg=key.algorithm.ours,
        secret=key.secret,
        flags=flags,
        **criteria,
    )


def in_order(role: str, *keys: Mkt) -> list[Mkt]:
    """In the order in which to add them, for the connection to begin with the first."""
    return list(keys[:: -1 if role == "native" else 1])


def ask_for(peer: Peer, key: Mkt) -> None:
    """Has an end ask the other one for this key."""
    _, recv_id = peer.host.ids(key)
    if isinstance(peer.role, Ours):
        abi.set_authopt(peer.sock, abi.FLAG_LOCK_RNEXTKEYID, send_rnextkeyid=recv_id)
    else:
        abi.native_ask(peer.sock, recv_id)


class Wire:
    """What was sent, from one step of a test to the next; each segment is judged."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.seen = 0

    def step(self) -> list[Record]:
        """The segments since the last step."""
        report = self.link.audit()
        assert not report.bad, report.summary()
        records = report.records[self.seen :]
        self.seen += len(records)
        return [record for record in records if record.segment]

    def keys(self) -> dict[str, list[str]]:
        """The names of the keys that each host has signed with, in their order, in this step."""
        return self._each(lambda record: record.key.name)

    def ids(self) -> dict[str, list[tuple[int, int]]]:
        """KeyIDs and RNextKeyIDs of each host, in their order, in this step."""
        return self._each(lambda record: (record.keyid, record.rnextkeyid))

    def _each(self, what: Callable[[Record], object]) -> dict[str, list]:
        records = self.step()
        return {
            host.name: list(dict.fromkeys(what(r) for r in records if is_from(host, r)))
            for host in (self.link.a, self.link.b)
        }


def ours_first(connection: Connection) -> tuple[Peer, Peer]:
    """An end that is ours, and the other one."""
    client, server = connection.peers
    return (client, server) if isinstance(client.role, Ours) else (server, client)


def is_from(host: Host, record: Record) -> bool:
    """The host has sent it."""
    return record.source in host.addresses.values()


# --- criteria ------------------------------------------------------------------------------------


def ladder(address: str) -> list[tuple[Mkt, dict[str, object]]]:
    """Keys that all match this address, of the same ids and other secrets; most specific first."""
    parsed = ip_address(address)
    bits = parsed.max_prefixlen
    rungs: dict[str, dict[str, object]] = {"host": {"address": address}}
    for length in (bits - 2, bits - 8, 0):
        network = ip_network((parsed, length), strict=False).network_address
        rungs[f"prefix of {length}"] = {"address": str(network), "prefixlen": length}
    rungs["anybody"] = {}
    # By their place, so that both ends call them the same.
    return [
        (replace(FIRST, name=f"{place}", secret=f"of rung {place}".encode()), criteria)
        for place, criteria in enumerate(rungs.values())
    ]


@requirement(10)
@pytest.mark.parametrize("ends", ALL_ENDS)
@pytest.mark.parametrize(("client", "server"), WITH_OURS)
def test_most_specific_key_signs_and_verifies(link, client, server, ends):
    """Of keys with one KeyID that with the longest prefix; once it is gone, the next one."""
    wire = Wire(link)
    ours = [link.client("ours", ends)] * (client == "ours")
    ours += [link.listen("ours", ends)] * (server == "ours")
    ladders = {peer.host.name: ladder(peer.address) for peer in ours}
    for peer in ours:
        for key, criteria in reversed(ladders[peer.host.name]):
            give(peer, key, **criteria)
    for place, key in enumerate(key for key, _ in ladder(ours[0].address)):
        native = {role: [key] * (role == "native") for role in (client, server)}
        listener = link.listen(server, ends, *native[server], port=1000 + place)
        connection = link.connect(link.client(client, ends, *native[client]), listener)
        connection.exchange()
        connection.close()
        assert wire.keys() == {"A": [key.name], "B": [key.name]}
        for peer in ours:
            _, criteria = ladders[peer.host.name][place]
            give(peer, key, abi.KEY_DEL, **criteria)
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(10)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ALL_ENDS)
def test_less_specific_key_is_not_tried(link, ends):
    """Only the MAC of the most specific key counts; unless that may not be used to receive."""
    listener = link.listen("ours", ends)
    (specific, narrow), (general, wide), *_ = ladder(listener.address)
    give(listener, specific, **narrow)
    give(listener, general, **wide)
    stranger = link.client("native", ends, general)
    link.start(stranger)
    wait_for("the SYN to be refused", lambda: link.b.counters().get(BAD))
    assert not listener.asked
    stranger.sock.close()
    link.verify()

    never = abi.KEY_NOSEND | abi.KEY_NORECV
    give(listener, specific, never, **narrow)
    wire = Wire(link)
    wire.step()
    connection = link.connect(link.client("native", ends, general), listener)
    connection.exchange()
    assert wire.keys() == {"A": [general.name], "B": [general.name]}

    give(listener, specific, **narrow)
    before = link.b.counters()[BAD]
    connection.client.sock.send(b"of the wider one")
    wait_for("it to be refused again", lambda: link.b.counters()[BAD] > before)
    assert not connection.server.asked
    give(listener, specific, never, **narrow)
    assert connection.server.sock.recv(100) == b"of the wider one"
    link.verify()


@requirement(9)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(("client", "server"), WITH_OURS)
def test_less_specific_key_serves_while_no_more_specific_is_valid(link, client, server, ends):
    """On a live connection: to send, and to be asked for."""
    specific, general = FIRST, SECOND
    native = {"native": in_order("native", specific, general), "ours": []}
    listener = link.listen(server, ends, *native[server])
    client = link.client(client, ends, *native[client])
    for peer in (client, listener):
        if isinstance(peer.role, Ours):
            (_, narrow), (_, wide), *_ = ladder(peer.address)
            give(peer, specific, **narrow)
            give(peer, general, **wide)
    connection = link.connect(client, listener)
    connection.exchange()
    end, other = ours_first(connection)
    mine, its = end.host.name, other.host.name
    (_, narrow), *_ = ladder(end.address)
    wire = Wire(link)
    assert wire.keys() == {mine: ["first"], its: ["first"]}

    give(end, specific, abi.KEY_NOSEND, **narrow)
    connection.exchange()
    assert wire.keys() == {mine: ["second"], its: ["first"]}
    give(end, specific, abi.KEY_NORECV | abi.KEY_NOSEND, **narrow)
    connection.send(end)  # what the other end sent before hearing of it would be refused
    connection.exchange()
    assert wire.keys() == {mine: ["second"], its: ["second"]}
    give(end, specific, **narrow)
    connection.send(end)
    connection.exchange()
    connection.close()
    assert wire.keys() == {mine: ["first"], its: ["first"]}
    assert (link.a.counters(), link.b.counters()) == ({}, {})


# --- the order, in a SYN, where no key is preferred ----------------------------------------------

HOST, WIDE, ANYBODY = 0, 2, 4
DAY = 86400
SEND_END, RECV_END = abi.KEY_SEND_LIFETIME_END, abi.KEY_RECV_LIFETIME_END
SEND_BEGIN, RECV_BEGIN = abi.KEY_SEND_LIFETIME_BEGIN, abi.KEY_RECV_LIFETIME_BEGIN

ORDER = {
    # what decides: keys (send_id, recv_id, criteria, flags, lifetimes in days), KeyID, RNextKeyID
    "longer-prefix": ([(1, 101, WIDE, 0, ()), (9, 109, HOST, 0, ())], 9, 109),
    "prefix-over-unbound": ([(1, 101, ANYBODY, 0, ()), (9, 109, WIDE, 0, ())], 9, 109),
    "any-prefix-over-unbound": ([(1, 101, ANYBODY, 0, ()), (9, 109, 3, 0, ())], 9, 109),
    "prefix-over-validity": (
        [(1, 101, WIDE, 0, ()), (9, 109, HOST, SEND_END | RECV_END, (0, 1, 0, 1))],
        *(9, 109),
    ),
    "later-end": (
        [
            (1, 101, HOST, SEND_END | RECV_END, (0, 1, 0, 2)),
            (9, 109, HOST, SEND_END | RECV_END, (0, 2, 0, 1)),
        ],
        *(9, 101),
    ),
    "no-end": (
        [(1, 101, HOST, SEND_END | RECV_END, (0, 9999, 0, 9999)), (9, 109, HOST, 0, ())],
        *(9, 109),
    ),
    "begin-does-not-matter": (
        [(1, 101, HOST, SEND_BEGIN | RECV_BEGIN, (-1, 0, -1, 0)), (9, 109, HOST, 0, ())],
        *(1, 101),
    ),
    "lower-id": ([(9, 101, HOST, 0, ()), (1, 109, HOST, 0, ())], 1, 101),
    "not-to-send": ([(1, 101, HOST, abi.KEY_NOSEND, ()), (9, 109, ANYBODY, 0, ())], 9, 101),
    "not-to-receive": ([(1, 101, HOST, abi.KEY_NORECV, ()), (9, 109, ANYBODY, 0, ())], 1, 109),
    "none-to-receive": (
        [(9, 101, ANYBODY, abi.KEY_NORECV, ()), (1, 109, ANYBODY, abi.KEY_NORECV, ())],
        *(1, 109),
    ),
    "ended-to-send": ([(1, 101, HOST, SEND_END, (0, -1, 0, 0)), (9, 109, WIDE, 0, ())], 9, 101),
    "ended-to-receive": ([(1, 101, HOST, RECV_END, (0, 0, 0, -1)), (9, 109, WIDE, 0, ())], 1, 109),
    "not-begun": (
        [(1, 101, HOST, SEND_BEGIN | RECV_BEGIN, (1, 0, 1, 0)), (9, 109, WIDE, 0, ())],
        *(9, 109),
    ),
}


@requirement(9)
@pytest.mark.ours
@pytest.mark.parametrize(
    ("ends", "swapped"),
    [
        pytest.param(V4, False, id="v4"),
        pytest.param(V6, True, id="v6-swapped"),
        pytest.param(MAPPED_BOTH, True, id="mapped-swapped"),
    ],
)
def test_order_of_keys_in_a_syn(link, ends, swapped):
    """As ORDER says, whatever the order in which the keys are added."""
    wire, control = Wire(link), link.client("ours", ends)
    now = int(time.time())
    for what, (keys, keyid, rnextkeyid) in ORDER.items():
        client = link.client("ours", ends)
        given = []
        for send_id, recv_id, place, flags, days in keys[:: -1 if swapped else 1]:
            key = Mkt(f"{what} {send_id}", f"{what} {send_id}".encode(), send_id, recv_id)
            _, criteria = ladder(client.address)[place]
            times = tuple(max(0, now + day * DAY) for day in days) or (0, 0, 0, 0)
            give(control, key, flags, lifetimes=times, **criteria)
            given.append((key, criteria))
        link.start(client)
        sent = wait_for("the SYN", wire.step)
        assert {(r.keyid, r.rnextkeyid) for r in sent} == {(keyid, rnextkeyid)}, what
        client.sock.close()
        for key, criteria in given:
            give(control, key, abi.KEY_DEL, **criteria)


@requirement(9)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_newest_of_overlapping_keys(link, ends):
    """Once it is permitted; a key that is replaced is the newest then."""
    link.a.namespace.write_sysctl("net/ipv4/tcp_authopt_key_overlap", 1)
    wire = Wire(link)
    client = link.client("ours", ends)
    _, host = ladder(client.address)[0]
    full = host | {"prefixlen": 32 if ends is V4 else 128}
    old, new = (replace(FIRST, name=name, secret=name.encode()) for name in ("old", "new"))
    half = replace(FIRST, name="half", b_id=FIRST.b_id - 1)
    steps = [
        (old, host, "old", FIRST.b_id),
        (new, full, "new", FIRST.b_id),
        (old, host, "old", FIRST.b_id),
        (half, host, "half", half.b_id),
        (new, full, "new", half.b_id),
    ]
    for key, criteria, used, rnextkeyid in steps:
        give(client, key, **criteria)
        attempt = link.client("ours", ends)
        link.start(attempt)
        sent = wait_for("the SYN", wire.step)
        assert {r.key.name for r in sent} == {used}
        assert {(r.keyid, r.rnextkeyid) for r in sent} == {(FIRST.a_id, rnextkeyid)}
        attempt.sock.close()


# --- what the peer asks for, and locks -----------------------------------------------------------


def all_keys(link: Link, client: str, server: str, ends) -> tuple[Peer, Peer]:
    """A client and a listener that have all of KEYS for each other."""
    clients, servers = (in_order(role, *KEYS) for role in (client, server))
    return link.client(client, ends, *clients), link.listen(server, ends, *servers)


@requirement(14)
@pytest.mark.parametrize("ends", ALL_ENDS)
@pytest.mark.parametrize(("client", "server"), TO_OURS)
def test_synack_has_the_key_that_the_syn_asks_for(link, client, server, ends):
    """With the listener's own wish beside it; and so begins the connection."""
    client, listener = all_keys(link, client, server, ends)
    ask_for(client, SECOND)
    wire = Wire(link)
    connection = link.connect(client, listener)
    assert wire.ids() == {"A": [(FIRST.a_id, SECOND.b_id)], "B": [(SECOND.b_id, FIRST.a_id)]}
    connection.send(connection.server)
    assert wire.ids()["B"] == [(SECOND.b_id, FIRST.a_id)]
    connection.close()
    link.verify()


@requirement(28)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("why", ["no-such-key", "not-to-send", "locked"])
def test_synack_has_another_key_where_it_must(link, ends, why):
    """What the SYN asks for there is not, or may not be used, or the listener is locked."""
    client, listener = all_keys(link, "ours", "ours", ends)
    abi.set_authopt(client.sock, abi.FLAG_LOCK_RNEXTKEYID, send_rnextkeyid=THIRD.b_id)
    expected = FIRST
    if why == "no-such-key":
        abi.set_authopt(client.sock, abi.FLAG_LOCK_RNEXTKEYID, send_rnextkeyid=NOBODY)
    elif why == "not-to-send":
        listener.add(THIRD, abi.KEY_NOSEND)
    else:
        flags = abi.FLAG_LOCK_KEYID | abi.FLAG_LOCK_RNEXTKEYID
        abi.set_authopt(listener.sock, flags, SECOND.b_id, THIRD.a_id)
        expected = SECOND
    wire = Wire(link)
    connection = link.connect(client, listener)
    (synack, *_) = [record for record in wire.step() if is_from(link.b, record)]
    assert synack.segment.flags == SYN | ACK
    wish = THIRD.a_id if why == "locked" else FIRST.a_id
    assert (synack.keyid, synack.rnextkeyid) == (expected.b_id, wish)
    connection.exchange()
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(14)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_end_of_the_handshake_may_ask_for_another_key(link, ends):
    """The SYN asks for the first key, the ACK for the second: with that the connection begins."""
    listener = link.listen("ours", ends, FIRST, SECOND)
    link.know(FIRST, SECOND)
    forger = Forger(link, link.a, ends.wire, 1024, PORT)
    forger.send(forger.tcp(seq=9000, flags=SYN), forger.ao(FIRST, src_isn=9000))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))
    forger.send(forger.tcp(), forger.ao(FIRST, rnextkeyid=SECOND.b_id))
    wait_for("the connection", lambda: listener.asked)
    accepted, _ = listener.sock.accept()
    link.b.sockets.append(accepted)
    assert abi.get_authopt(accepted) == (abi.FLAG_ACTIVE, 0, 0, FIRST.a_id, SECOND.b_id)
    wire = Wire(link)
    wire.step()
    accepted.send(b"hello")
    assert wait_for("it", lambda: wire.ids()["B"]) == [(SECOND.b_id, FIRST.a_id)]


@requirement(28)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_key_that_is_asked_for_is_not_there(link, ends):
    """The peer's wish is then no wish: the order decides, until the key is there."""
    connection = link.connected("ours", "ours", ends, FIRST)
    client, server = connection.peers
    client.add(SECOND)
    ask_for(client, THIRD)
    client.add(THIRD)
    wire = Wire(link)
    connection.exchange()
    wire.step()
    connection.exchange()
    assert wire.ids() == {"A": [(FIRST.a_id, THIRD.b_id)], "B": [(FIRST.b_id, FIRST.a_id)]}
    server.add(THIRD)
    connection.exchange()
    assert wire.ids()["B"] == [(THIRD.b_id, FIRST.a_id)]
    connection.close()
    link.verify()


@requirement(19)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(("client", "server"), WITH_OURS)
def test_locked_keyid(link, client, server, ends):
    """Goes before the peer's wish; one that cannot be used is ignored, and the wish with it."""
    connection = link.connect(*all_keys(link, client, server, ends))
    end, other = ours_first(connection)
    ask_for(other, THIRD)
    connection.exchange()
    wire, mine = Wire(link), end.host.name
    wire.step()

    def sends(key: Mkt, lock: int | None) -> None:
        if lock is None:
            abi.set_authopt(end.sock)
        else:
            abi.set_authopt(end.sock, abi.FLAG_LOCK_KEYID, send_keyid=lock)
        connection.send(end)
        keyid, _ = end.host.ids(key)
        assert {keyid for keyid, _ in wire.ids()[mine]} == {keyid}

    second, _ = end.host.ids(SECOND)
    sends(THIRD, None)
    sends(SECOND, second)
    sends(FIRST, NOBODY)
    end.add(SECOND, abi.KEY_NOSEND)
    sends(FIRST, second)
    sends(THIRD, None)
    end.add(SECOND)
    sends(SECOND, second)
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(19)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(("client", "server"), WITH_OURS)
def test_locked_rnextkeyid(link, client, server, ends):
    """Is what the peer is asked for, whether or not there is such a key."""
    connection = link.connect(*all_keys(link, client, server, ends))
    connection.exchange()
    end, other = ours_first(connection)
    mine, its = end.host.name, other.host.name
    wire = Wire(link)

    def exchanged(lock: int | None) -> tuple[set[int], set[int]]:
        if lock is None:
            abi.set_authopt(end.sock)
        else:
            abi.set_authopt(end.sock, abi.FLAG_LOCK_RNEXTKEYID, send_rnextkeyid=lock)
        connection.send(end)
        wire.step()
        connection.exchange()
        ids = wire.ids()
        return {rnext for _, rnext in ids[mine]}, {keyid for keyid, _ in ids[its]}

    _, first = end.host.ids(FIRST)
    _, third = end.host.ids(THIRD)
    assert exchanged(None) == ({first}, {first})
    assert exchanged(third) == ({third}, {third})
    kept = {first} if isinstance(other.role, Ours) else {third}
    assert exchanged(NOBODY) == ({NOBODY}, kept), "the kernel's own stays with its last key"
    assert exchanged(None) == ({first}, {first})
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(19)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_locks_of_a_listener_are_inherited_once(link, ends):
    """Each accepted socket has a copy: neither changes with the other."""
    client, listener = all_keys(link, "ours", "ours", ends)
    locks = abi.FLAG_LOCK_KEYID | abi.FLAG_LOCK_RNEXTKEYID | abi.FLAG_REJECT_UNEXPECTED
    abi.set_authopt(listener.sock, locks, SECOND.b_id, THIRD.a_id)
    connection = link.connect(client, listener)
    server = connection.server.sock
    abi.set_authopt(listener.sock)
    assert abi.get_authopt(listener.sock) == (0, 0, 0, 0, 0)
    wire = Wire(link)
    wire.step()
    connection.exchange()
    assert wire.ids()["B"] == [(SECOND.b_id, THIRD.a_id)]
    assert abi.get_authopt(server).flags == locks | abi.FLAG_ACTIVE
    abi.set_authopt(server, abi.FLAG_REJECT_UNEXPECTED)
    assert abi.get_authopt(listener.sock).flags == 0
    connection.exchange()
    connection.close()
    link.verify()


# --- keys that change meanwhile ------------------------------------------------------------------


@requirement(17)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_keys_change_between_syn_and_ack(link, ends):
    """The request has no keys of its own: the ACK may come with a key that came after the SYN."""
    listener = link.listen("ours", ends, FIRST)
    forger = Forger(link, link.a, ends.wire, 1024, PORT)
    forger.send(forger.tcp(seq=9000, flags=SYN), forger.ao(FIRST, src_isn=9000))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))
    listener.add(SECOND)
    listener.delete(FIRST)
    forger.send(forger.tcp(), forger.ao(FIRST))
    wait_for("the old key to be refused", lambda: link.b.counters() == {KEY_NOT_FOUND: 1})
    assert not listener.asked
    forger.send(forger.tcp(), forger.ao(SECOND))
    wait_for("the connection", lambda: listener.asked)
    accepted, _ = listener.sock.accept()
    link.b.sockets.append(accepted)
    wire = Wire(link)
    wire.step()
    accepted.send(b"hello")
    assert wait_for("it", lambda: wire.keys()["B"]) == ["second"]


@requirement(17)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(("client", "server"), TO_OURS)
def test_keys_change_between_ack_and_accept(link, client, server, ends):
    """Unlike the kernel's own, where keys of a listener do not reach what it has not accepted."""
    client = link.client(client, ends, *in_order(client, FIRST, SECOND))
    listener = link.listen(server, ends, FIRST)
    client.sock.connect((client.address, PORT))
    wait_for("the connection", lambda: listener.asked)
    listener.add(SECOND)
    listener.delete(FIRST)
    accepted, _ = listener.sock.accept()
    accepted.settimeout(client.sock.gettimeout())
    link.b.sockets.append(accepted)
    connection = Connection(client, replace(listener, sock=accepted), listener)
    wire = Wire(link)
    wire.step()
    connection.send(connection.server)
    connection.exchange()
    assert wire.keys() == {"A": ["second"], "B": ["second"]}
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@contextmanager
def in_the_background(work: Callable[[], None]):
    """Another process does this over and over; gives how often it has."""
    rounds = mmap.mmap(-1, mmap.PAGESIZE)
    worker = os.fork()
    if worker == 0:
        try:
            for count in itertools.count(1):
                work()
                rounds[:4] = count.to_bytes(4)
        finally:
            os._exit(1)
    try:
        yield lambda: int.from_bytes(rounds[:4])
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


@requirement(17)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(("client", "server"), WITH_OURS)
def test_keys_change_all_the_time_while_connections_begin(link, client, server, ends):
    """The key is replaced, others of all shapes come and go: no connection misses a beat."""
    wire = Wire(link)
    native = {role: [FIRST] * (role == "native") for role in (client, server)}
    listener = link.listen(server, ends, *native[server])
    controls = [link.client("ours", ends)] * (client == "ours")
    controls += [listener] * (server == "ours")
    others = [
        (peer, replace(key, a_id=200 + place, b_id=200 + place), criteria)
        for peer in controls
        for place, (key, criteria) in enumerate(ladder(peer.address))
    ]
    for peer in controls:
        peer.add(FIRST)

    def change() -> None:
        for peer, key, criteria in others:
            give(peer, key, **criteria)
        for peer in controls:
            peer.add(FIRST, abi.KEY_SEND_LIFETIME_BEGIN)
        for peer, key, criteria in others:
            give(peer, key, abi.KEY_DEL, **criteria)
        for peer in controls:
            peer.add(FIRST)

    with in_the_background(change) as rounds:
        for number in itertools.count(1):
            end = link.client(client, ends, *native[client])
            connection = link.connect(end, listener)
            connection.exchange()
            connection.close()
            if number >= CONNECTIONS and rounds() >= ROUNDS:
                break
    assert wire.keys() == {"A": ["first"], "B": ["first"]}
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(17)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(("client", "server"), WITH_OURS)
def test_key_is_replaced_while_lookups_pass_others(link, client, server, ends):
    """A lookup that goes through many keys with the same criteria finds the old one or the new."""
    native = {role: [FIRST] * (role == "native") for role in (client, server)}
    listener = link.listen(server, ends, *native[server])
    end = link.client(client, ends, *native[client])
    controls = [peer for peer, role in ((end, client), (listener, server)) if role == "ours"]
    never = abi.KEY_NOSEND | abi.KEY_NORECV
    others = [replace(FIRST, a_id=n, b_id=n) for n in range(100, 100 + OTHERS)]
    keys = [(key, never) for key in others] + [(FIRST, 0)]
    values = [
        (peer.sock, packed(peer, key, flags, address=peer.address))
        for peer in controls
        for key, flags in keys
    ]
    link.know(FIRST)

    def change() -> None:
        for sock, value in values:
            abi.set_key(sock, value)

    change()
    connection = link.connect(end, listener)
    with in_the_background(change) as rounds:
        while rounds() < REPLACED:
            connection.exchange(bytes(BULK), bytes(BULK))
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})
