"""Network namespaces: nothing of one touches another, and one that ends leaves nothing behind."""

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

import abi
from abi import pack_key
from clock import wait_for
from conftest import PAIRS
from link import BAD, FIRST, KEY_NOT_FOUND, SECOND, TIMEOUT, V4, V6, Ends, Link
from netns import Namespace
from test_contract_users import become_root_of_own_namespace
from test_drain import HOLDERS
from test_reuse import is_protected
from test_selection import KEYS, Wire, give, ladder
from test_socket_options import MAX_KEYS, refused, rows
from tracing import Allocation, Ledger

pytestmark = pytest.mark.usefixtures("quick")

ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]
WITH_OURS = [pair for pair in PAIRS if pair.marks]


@pytest.fixture
def twins() -> Iterator[tuple[Link, Link]]:
    """Two cables with the same addresses at their ends, and nothing else in common."""
    links = Link(), Link()
    yield links
    for link in links:
        link.close()


# --- apart ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(("client", "server"), WITH_OURS)
def test_same_addresses_and_ids_in_two_namespaces(twins, client, server, ends):
    """And other secrets: each has its own, and a key that goes in one stays in the other."""
    keys = [replace(FIRST, name=name, secret=name.encode()) for name in ("here", "there")]
    wires = [Wire(link) for link in twins]
    connections = [
        link.connected(client, server, ends, key) for link, key in zip(twins, keys, strict=True)
    ]
    for connection in connections * 2:
        connection.exchange()
    for wire, key in zip(wires, keys, strict=True):
        assert wire.keys() == {"A": [key.name], "B": [key.name]}

    there = twins[1]
    end = connections[0].client if client == "ours" else connections[0].server
    other = connections[0].server if end is connections[0].client else connections[0].client
    end.delete(keys[0])
    other.sock.send(b"refused")
    wait_for("it to be refused", lambda: end.host.counters().get(KEY_NOT_FOUND))
    connections[1].exchange()
    assert (there.a.counters(), there.b.counters()) == ({}, {})
    end.add(keys[1])
    before = end.host.counters().get(BAD, 0)
    other.sock.send(b"once more")
    wait_for("the other secret to be wrong here", lambda: end.host.counters().get(BAD, 0) > before)
    connections[1].exchange()
    connections[1].close()
    assert (there.a.counters(), there.b.counters()) == ({}, {})
    assert wires[1].keys() == {"A": ["there"], "B": ["there"]}
    assert set(wires[0].keys()[other.host.name]) == {"here"}


@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_the_namespace_of_the_socket_counts(link, ends):
    """Not that of the process, which has gone to another one, with other keys and limits."""
    elsewhere = Namespace()
    wrong = replace(FIRST, name="wrong", secret=b"of the other namespace")
    listener, client = link.listen("ours", ends), link.client("ours", ends)
    with elsewhere.entered(), socket.socket(ends.client) as sock:
        for peer in (listener, client):
            give(replace(peer, sock=sock), wrong, address=peer.address)
        MAX_KEYS.write_text("2")
        for peer in (listener, client):
            peer.add(FIRST)
        with refused(errno.ENOSPC):
            abi.set_key(sock, pack_key(7, 8))
        there = rows()
        connection = link.connect(client, listener)
        connection.exchange()
        assert all(is_protected(peer) for peer in connection.peers)
        wire = Wire(link)
        assert wire.keys() == {"A": ["first"], "B": ["first"]}
        client.add(SECOND)
        listener.add(SECOND)
        client.delete(FIRST)
        connection.send(connection.client)
        connection.close()
        assert wire.keys()["A"] == ["second"]
        assert rows() == there
        assert len(there) == 2
    elsewhere.close()
    for host, left in ((link.a, 1), (link.b, 2)):
        with host.namespace.entered():
            assert len(rows()) == left


# --- the end of one ------------------------------------------------------------------------------


def unprotected(link: Link, ends: Ends) -> None:
    """Its state is parked."""
    link.connect(link.client("ours", ends), link.listen("ours", ends)).exchange()


def many_keys(link: Link, ends: Ends) -> None:
    """Of all shapes, replaced and deleted ones among them."""
    client = link.client("ours", ends)
    for key in KEYS:
        for rung, criteria in ladder(client.address):
            give(client, replace(key, name=rung.name), **criteria)
    give(client, FIRST, address=client.address)
    client.delete(SECOND)


@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_namespace_that_ends_leaves_nothing(module, ends):
    """With keys, sockets in every state, requests, orphans and TIME-WAITs in it."""
    wait_for("the module to be unused", lambda: module.users == 0, 20)
    with Ledger() as ledger:
        links = []
        for hold in (*HOLDERS, unprotected, many_keys):
            link = Link()
            links.append(link)
            hold(link, ends)
            assert not link.audit(unsigned=hold is unprotected).bad
        assert module.users
        # Namespaces, keys and states of sockets; traffic keys and states that softirq has made.
        left = ledger.left()
        assert {it.charged for it in left} == {True, False}
        assert len({it.size for it in left}) >= 4
        for link in links:
            link.close(reset=False)  # as when their programs are killed
        wait_for("everything to be freed", lambda: not ledger.left(), 20)
    wait_for("the module to be unused", lambda: module.users == 0, 20)


# --- users ---------------------------------------------------------------------------------------


class User:
    """A user without privilege, root of a user namespace and of network namespaces of its own."""

    def __init__(self) -> None:
        self._channel, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._channel.close()
                self._serve(its)
            finally:
                os._exit(0)
        its.close()
        self._channel.settimeout(TIMEOUT)
        self._answer()

    def _serve(self, channel: socket.socket) -> None:
        become_root_of_own_namespace()
        self._network(0)
        channel.send(bytes(4))
        work = {b"k": self._keys, b"n": self._network, b"s": self._states}
        while asked := channel.recv(5):
            error = 0
            try:
                work[asked[:1]](int.from_bytes(asked[1:]))
            except OSError as refusal:
                error = refusal.errno
            channel.send(error.to_bytes(4))

    def _network(self, more: int) -> None:
        """One namespace, and some more, of which the last one is used."""
        self.namespaces = []
        for _ in range(more + 1):
            os.unshare(os.CLONE_NEWNET)
            self.namespaces.append(os.open("/proc/self/ns/net", os.O_RDONLY))
        self.socks = [socket.socket()]
        self.count = 0

    def _keys(self, more: int) -> None:
        for _ in range(more):
            self.count += 1
            address = f"10.{self.count >> 16}.{self.count >> 8 & 255}.{self.count & 255}"
            abi.set_key(self.socks[0], pack_key(1, 2, address=address))

    def _states(self, more: int) -> None:
        for _ in range(more):
            self.socks.append(socket.socket())
            abi.set_authopt(self.socks[-1])

    def _answer(self) -> int:
        return int.from_bytes(self._channel.recv(4))

    def does(self, what: str, number: int) -> int:
        """Has him add keys, or make states or namespaces; the error, 0 for none."""
        self._channel.send(what[:1].encode() + number.to_bytes(4))
        return self._answer()

    def goes(self) -> None:
        """With all that is his."""
        self._channel.close()
        os.waitpid(self.pid, 0)


@pytest.fixture
def user(charged) -> Iterator[User]:
    """In a memory cgroup of his."""
    user = User()
    yield user
    user.goes()


@pytest.mark.ours
def test_keys_of_a_user_are_charged_to_him_until_his_namespace_ends(charged):
    before = charged()
    user = User()
    here = charged()
    count = 3000
    assert user.does("keys", count) == 0
    # A key is 272 bytes, and its node in the tree 40.
    assert charged() - here >= count * (272 + 40)
    user.goes()
    wait_for("what he was charged to be back", lambda: charged() - before < here - before, 20)


@pytest.mark.ours
def test_all_that_a_user_makes_the_module_take_is_charged(user):
    """Namespaces, keys, and states of sockets: each piece of memory that the module asks for."""
    with Ledger() as ledger:
        # Of namespaces it is one more; a key has a node in the tree.
        for what, least in (("namespaces", 4), ("keys", 3 * 2), ("states", 3)):
            before = len(ledger.taken)
            assert user.does(what, 3) == 0
            ledger.left()
            assert len(ledger.taken) - before >= least, what
    assert [it for it in ledger.taken if not it.charged] == []


@pytest.mark.ours
def test_limit_of_keys_holds_a_user(user):
    """It is set from outside, for his namespace; he goes on below it, not above."""
    limit = os.open(f"/proc/{user.pid}/ns/net", os.O_RDONLY)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    os.setns(limit, os.CLONE_NEWNET)
    try:
        MAX_KEYS.write_text("20")
        assert user.does("keys", 20) == 0
        assert user.does("keys", 1) == errno.ENOSPC
        assert len(rows()) == 20
    finally:
        os.setns(home, os.CLONE_NEWNET)
        os.close(home)
        os.close(limit)
    assert user.does("namespaces", 0) == 0
    assert user.does("keys", 21) == 0, "a new one has the default again"


def children(ledger: Ledger, size: int) -> list[Allocation]:
    """States of accepted connections: of this size, and made in softirq."""
    return [it for it in ledger.left() if it.size == size and not it.charged]


@pytest.mark.ours
def test_accepted_connections_of_a_user_are_bounded(link):
    """What softirq makes for them is bounded by the accept queue, and goes with the listener."""
    listener = link.listen("ours", V4, FIRST)
    listener.sock.listen(4)
    with Ledger() as ledger:
        # The first on this machine may be charged with more.
        abi.set_authopt(link.a.tcp_socket(socket.AF_INET))
        size = ledger.left()[-1].size
        clients = [link.client("native", V4, FIRST) for _ in range(12)]
        for client in clients:
            link.start(client)
        counters = link.b.namespace.counters
        wait_for("more than the queue takes", lambda: counters()["ListenOverflows"])
        wait_for("a full queue", lambda: len(children(ledger, size)) >= 5)
        assert len(children(ledger, size)) == 5
        assert sum(it.size for it in ledger.left() if not it.charged) <= 5 * 2048
        listener.sock.close()
        wait_for("them to be freed", lambda: not any(not it.charged for it in ledger.left()))
    link.verify()
