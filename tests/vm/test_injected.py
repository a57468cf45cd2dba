"""Allocations fail: an error and nothing changed, or a segment less, never one unsigned."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import abi
from abi import pack_key
from clock import ticks, wait_for
from conftest import PAIRS
from inject import (
    ANYWHERE,
    EVERYTHING,
    MODULES,
    OURS,
    SEGMENTS,
    SOCKETS,
    each_failing,
    failing,
    needs_failslab,
)
from link import FIRST, PORT, TIMEOUT, V4, V6, Connection, Peer
from module import finit_module
from netns import Namespace
from rtnetlink import Rtnetlink
from test_reuse import disconnect
from tracing import hooked

pytestmark = [pytest.mark.ours, needs_failslab]

ENDS = pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
NOTHING_YET = abi.Authopt(0, 0, 0, 0, 0)
NO_MEMORY = (errno.ENOMEM, errno.ENOBUFS)
CONNECTIONS = 3
DATA = bytes(range(256)) * 20
PEER, ANOTHER = "192.0.2.1", "192.0.2.2"

KEYS = {
    "first": ([], pack_key(1, 2, address=PEER)),
    "alike": ([pack_key(1, 2, address=PEER)], pack_key(1, 2, address=ANOTHER)),
    "shape": ([pack_key(1, 2, address=PEER)], pack_key(3, 4)),
    "replace": (
        [pack_key(1, 2, address=PEER)],
        pack_key(1, 2, address=PEER, flags=abi.KEY_NOSEND),
    ),
}
"""The keys that are there, and the one that is added."""


def rows() -> list[str]:
    """The keys of this namespace."""
    return Path("/proc/self/net/tcp_authopt").read_text().splitlines()[1:]


def state(sock: socket.socket) -> abi.Authopt | int:
    """What the socket says of its state, or with which errno it does not."""
    try:
        return abi.get_authopt(sock)
    except OSError as error:
        return error.errno


@contextmanager
def fresh_socket() -> Iterator[socket.socket]:
    """A socket in a namespace without a key."""
    namespace = Namespace()
    with namespace.entered(), socket.socket() as sock:
        yield sock
    namespace.close()


def test_module_is_loaded(module):
    """With all hooks or none. Most allocations are ftrace's, thousands of them."""
    functions = hooked()
    module.unload(wait=True)
    answers = set()
    for attempt in each_failing(EVERYTHING, MODULES, growth=1.3):
        answer = attempt.answer(partial(finit_module, module.file))
        assert module.loaded == (not answer)
        assert hooked() == ({} if answer else functions)
        if not answer:
            module.unload(wait=True)
        answers.add(answer)
    module.enable()
    assert answers == {0, errno.ENOMEM}


def test_authopt():
    with fresh_socket() as sock:
        abi.set_authopt(sock)  # the first one of the machine does more
    answers = set()
    for attempt in each_failing(OURS, MODULES):
        with fresh_socket() as sock:
            answer = attempt.answer(partial(abi.set_authopt, sock))
            assert state(sock) == (errno.ENOENT if answer else NOTHING_YET)
        answers.add(answer)
    assert answer == 0
    assert answers == {0, errno.ENOMEM}


@pytest.mark.parametrize("case", KEYS)
def test_key_is_added(case):
    """The socket has no state before, and gets it with the key or not at all."""
    there, key = KEYS[case]
    with fresh_socket() as sock:
        abi.set_authopt(sock)  # the first one of the machine does more
    answers = set()
    for attempt in each_failing(OURS, MODULES):
        with fresh_socket() as sock:
            with socket.socket() as another:
                for other in there:
                    abi.set_key(another, other)
            before = rows()
            answer = attempt.answer(partial(abi.set_key, sock, key))
            assert state(sock) == (errno.ENOENT if answer else NOTHING_YET)
            if answer:
                assert rows() == before
            else:
                assert rows() != before
                assert len(rows()) == (1 if case == "replace" else len(there) + 1)
        answers.add(answer)
    assert answer == 0
    assert answers == {0, errno.ENOMEM}


@pytest.mark.parametrize("known", [False, True], ids=["new", "with-keys"])
def test_vrf_comes(known):
    """With a place for its keys, or not at all: it would be open to peers that have one."""
    answers = set()
    for attempt in each_failing(OURS, MODULES):
        with fresh_socket() as sock, Rtnetlink() as rtnetlink:
            rtnetlink.add_vrf("red", 100, 50)
            if known:
                abi.set_key(sock, pack_key(1, 2, ifindex=50))
            rtnetlink.delete("red")
            answer = attempt.answer(partial(rtnetlink.add_vrf, "red", 100, 51))
            assert [name for _, name in socket.if_nameindex()] == ["lo"] + ["red"] * (not answer)
            if answer:
                rtnetlink.add_vrf("red", 100, 51)
            abi.set_key(sock, pack_key(1, 2, ifindex=51))
            assert [row.split("\t")[-1] for row in rows()] == ["51"]
        answers.add(answer)
    assert answer == 0
    # What the allocator needs for itself comes and goes, so that ours may be passed over above.
    assert answers <= {0, errno.ENOMEM}
    with fresh_socket(), Rtnetlink() as rtnetlink:
        refused = pytest.raises(OSError, match=rf"Errno {errno.ENOMEM}\b")
        with failing(OURS, MODULES, every=1), refused:
            rtnetlink.add_vrf("red", 100, 50)
        assert [name for _, name in socket.if_nameindex()] == ["lo"]


@pytest.mark.parametrize("known", [False, True], ids=["new", "with-keys"])
def test_vrf_goes_and_is_renamed(sock, known):
    """That needs no memory."""
    with Rtnetlink() as rtnetlink:
        rtnetlink.add_vrf("red", 100, 50)
        if known:
            abi.set_key(sock, pack_key(1, 2, ifindex=50))
        with failing(OURS, MODULES, every=1):
            rtnetlink.rename("red", "blue")
            rtnetlink.delete("blue")
        rtnetlink.add_vrf("blue", 100, 51)
        assert [row.split("\t")[-1] for row in rows()] == ["51"] * known


@pytest.mark.parametrize("others", [False, True], ids=["last-of-its-shape", "one-of-two"])
def test_key_is_deleted(sock, others):
    """That needs no memory that it could not do without."""
    abi.set_key(sock, pack_key(3, 4))
    if others:
        abi.set_key(sock, pack_key(5, 6, address=ANOTHER))
    before = rows()
    key = pack_key(1, 2, address=PEER)
    delete = pack_key(1, 2, address=PEER, flags=abi.KEY_DEL)
    abi.set_key(sock, key)
    with failing(OURS, MODULES, every=1):
        abi.set_key(sock, delete)
    assert rows() == before
    # Whatever was left undone for want of memory is in nobody's way.
    abi.set_key(sock, key)
    abi.set_key(sock, delete)
    assert rows() == before


def test_proc_is_read_whole_or_not(sock):
    for number in range(100):
        abi.set_key(sock, pack_key(1, 2, address=f"192.0.2.{number}"))
    before = rows()
    answers = set()
    for attempt in each_failing(OURS, ANYWHERE):
        found: list[list[str]] = []
        answer = attempt.answer(lambda found=found: found.append(rows()))
        assert found == ([] if answer else [before])
        answers.add(answer)
    assert answer == 0
    assert answers == {0, errno.ENOMEM}


def accept(client: Peer, listener: Peer) -> Connection:
    """The connection that the client has begun."""
    wait_for("the connection", lambda: listener.asked, 20)
    sock, _ = listener.sock.accept()
    listener.host.sockets.append(sock)
    for end in (client.sock, sock):
        end.settimeout(TIMEOUT)
    return Connection(client, replace(listener, sock=sock), listener)


def carry(connection: Connection) -> None:
    """Moves data there and back.

    A socket that finds no memory for a segment may be asked again at once, which a Python socket
    with a timeout does.
    """
    for sender, receiver in (connection.peers, connection.peers[::-1]):
        sender.sock.sendall(DATA)
        got = bytearray()
        while len(got) < len(DATA):
            got += receiver.sock.recv(len(DATA))
        assert got == DATA


def end(connection: Connection) -> None:
    """Ends it, the client first, whose socket can be used again."""
    connection.client.sock.shutdown(socket.SHUT_WR)
    assert connection.server.sock.recv(1) == b""
    connection.server.sock.close()
    assert connection.client.sock.recv(1) == b""


@ENDS
@pytest.mark.parametrize("again", [False, True], ids=["first", "beside-time-wait"])
def test_connect(link, ends, again):
    """It is refused, and the socket is as before or as new; or it comes up, protected."""
    listener = link.listen("ours", ends, FIRST)
    for attempt in each_failing((*OURS, *SOCKETS, *SEGMENTS), ANYWHERE):
        client = link.client("ours", ends, FIRST)
        if again:
            end(link.connect(client, listener))
            disconnect(client.sock)
        before = state(client.sock)
        client.sock.setblocking(False)
        address = client.address, PORT
        answer = attempt.answer(partial(client.sock.connect, address))
        if attempt.failed and answer in NO_MEMORY:
            # Of what is as before, all but that there was a connection that was protected.
            no_connection = before._replace(flags=before.flags & ~abi.FLAG_ACTIVE)
            assert state(client.sock) in (before, no_connection, NOTHING_YET)
            link.start(client)
        else:
            assert answer == errno.EINPROGRESS
        connection = accept(client, listener)
        for peer in connection.peers:
            assert abi.get_authopt(peer.sock).flags == abi.FLAG_ACTIVE
        carry(connection)
        end(connection)
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


INTERRUPTED = {
    "module": (OURS, MODULES, 2),
    "sockets": (SOCKETS, ANYWHERE, 3),
    "segments": (SEGMENTS, ANYWHERE, 4),
}
"""Whose allocations fail, and every so manieth: connect() makes two for a socket."""


@ENDS
@pytest.mark.parametrize(("client", "server"), PAIRS[:3])
@pytest.mark.parametrize("whose", INTERRUPTED)
def test_connections(link, client, server, ends, whose):
    """In softirq, too: what cannot be sent comes later, and what is sent is signed."""
    listener = link.listen(server, ends, FIRST)
    clients = [link.client(client, ends, FIRST) for _ in range(CONNECTIONS)]
    with failing(*INTERRUPTED[whose]) as failures:
        for one in clients:
            one.sock.setblocking(False)
            for _ in ticks("the SYN to be sent"):
                answer = one.sock.connect_ex((one.address, PORT))
                if answer not in NO_MEMORY:
                    break
            assert answer == errno.EINPROGRESS
            connection = accept(one, listener)
            carry(connection)
            # A FIN for which there is no memory is never sent: the stack forgets it.
            if whose != "segments":
                end(connection)
        failed = failures()
    assert failed
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})
