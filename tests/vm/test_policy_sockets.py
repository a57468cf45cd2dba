"""A policy is for sockets that no program has in the usual way, and for what is made of no SYN.

As in test_policy_kinds.py each has its control: without the policy the unsigned one gets through.
"""

import errno
import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

import uring
from bpf import COOKIE, Cookies
from checkpoint import OFF, ON, Frozen, freeze, repair
from clock import wait_for
from craft import ACK, SYN
from forge import Forger
from handshake import ANSWER, OPENING, accept, sent
from link import FIRST, PORT, REQUIRED, TIMEOUT, V4, V6, Ends, Host, Link, Peer, Vrf
from netns import through_all_cpus
from rtnetlink import Rtnetlink
from test_load import helper
from test_migration import DATA, carry_over, join, migrated, pending
from test_policy import give_key, is_active, require
from test_policy_kinds import IPPROTO_MPTCP, mptcp, new_socket, refusals
from test_socket_options import refused

pytestmark = [
    pytest.mark.ours,
    pytest.mark.usefixtures("quick"),
    pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"]),
]

HELLO = b"hello"
FIN_WAIT1 = "04"


def is_refused(link: Link, ends: Ends) -> None:
    """An unsigned SYN to B is counted, and not answered."""
    before = link.b.counters().get(REQUIRED, 0)
    answers = len(sent(link, link.b, ANSWER, unsigned=True))
    stranger = link.client("plain", ends)
    link.start(stranger)
    wait_for("it to be refused", lambda: link.b.counters().get(REQUIRED, 0) > before)
    assert stranger.pending
    stranger.sock.close()
    assert len(sent(link, link.b, ANSWER, unsigned=True)) == answers


def all_signed(link: Link) -> None:
    """From the first SYN on."""
    report = link.verify()
    assert report.segments[0].segment.flags & SYN
    assert report.segments == report.signed


# --- io_uring ------------------------------------------------------------------------------------


@pytest.fixture
def ring() -> Iterator[uring.Ring]:
    with uring.Ring() as ring:
        yield ring


def adopted(host: Host, fd: int) -> socket.socket:
    """A socket of this number, closed with the host."""
    sock = socket.socket(fileno=fd)
    sock.settimeout(TIMEOUT)
    host.sockets.append(sock)
    return sock


@pytest.mark.parametrize("policy", [False, True], ids=["control", "required"])
def test_io_uring_listener(link: Link, ring, ends, policy):
    """socket(), bind(), listen() and accept() are operations of a ring."""
    give_key(link, link.b, link.a, ends)
    if policy:
        require(link.b, link.a, ends)
    with link.b.namespace.entered():
        fd = ring.socket(ends.server)
    adopted(link.b, fd).setblocking(True)
    ring.bind(fd, (link.b.address(ends.wire, ends.server), PORT))
    ring.listen(fd)
    ring.begin(uring.ACCEPT, fd)
    if policy:
        is_refused(link, ends)
        assert not ring.done
        client = link.client("native", ends, FIRST)
    else:
        client = link.client("plain", ends)
    client.sock.connect((client.address, PORT))
    server = adopted(link.b, ring.take())
    client.sock.sendall(HELLO)
    assert server.recv(100) == HELLO
    assert is_active(server) == policy
    report = link.audit(unsigned=True)
    assert not report.bad
    assert bool(report.signed) == policy


@pytest.mark.parametrize("policy", [False, True], ids=["control", "required"])
def test_io_uring_connects(link: Link, ring, ends, policy):
    """socket(), connect() and send() are."""
    address = link.b.address(ends.wire, ends.client), PORT
    if policy:
        require(link.a, link.b, ends)
        with link.a.namespace.entered():
            fd = ring.socket(ends.client)
        sock = adopted(link.a, fd)
        sock.setblocking(True)
        with refused(errno.ENOKEY):
            ring.connect(fd, address)
        assert not link.audit(unsigned=True).segments
        give_key(link, link.a, link.b, ends)
        listener = link.listen("native", ends, FIRST)
    else:
        with link.a.namespace.entered():
            fd = ring.socket(ends.client)
        sock = adopted(link.a, fd)
        sock.setblocking(True)
        listener = link.listen("plain", ends)
    ring.connect(fd, address)
    assert ring.send(fd, HELLO) == len(HELLO)
    assert listener.accept().sock.recv(100) == HELLO
    assert is_active(sock) == policy
    if policy:
        all_signed(link)
    else:
        assert not link.verify(unsigned=True).signed


# --- of the kernel -------------------------------------------------------------------------------


@pytest.fixture
def kernel(link: Link) -> Iterator[Path]:
    """The parameters of a module that has sockets, which are gone before their namespaces are.

    The stack stops the timers of a socket of the kernel's that is closed. So it would stay for ever
    if its FIN was not acknowledged before the peer is gone.
    """
    subprocess.run(["insmod", helper("socket")], check=True)
    yield Path("/sys/module/tao_test_socket/parameters")
    subprocess.run(["rmmod", "tao_test_socket"], check=True)
    for host in (link.a, link.b):
        wait_for("no FIN to be on its way", lambda host=host: FIN_WAIT1 not in host.states())


def tell(kernel: Path, host: Host, what: str, address: str) -> None:
    """The module's socket of this host is to do that; an error is that of the socket."""
    with host.namespace.entered():
        (kernel / what).write_text(f"{address} {PORT}")


def taken(kernel: Path) -> bytes:
    """Has it accept a connection. A file object would make nothing of EAGAIN."""
    fd = os.open(kernel / "accept", os.O_RDONLY)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


@pytest.mark.parametrize("policy", [False, True], ids=["control", "required"])
def test_kernel_listener(link: Link, kernel, ends, policy):
    tell(kernel, link.b, "listen", link.b.addresses[ends.wire])
    give_key(link, link.b, link.a, ends)
    if policy:
        require(link.b, link.a, ends)
        is_refused(link, ends)
        with refused(errno.EAGAIN):
            taken(kernel)
        client = link.client("native", ends, FIRST)
    else:
        client = link.client("plain", ends)
    client.sock.connect((client.address, PORT))
    assert taken(kernel) == b"accepted\n"
    assert client.sock.recv(100) == HELLO
    report = link.audit(unsigned=True)
    assert not report.bad
    assert bool(report.signed) == policy


@pytest.mark.parametrize("policy", [False, True], ids=["control", "required"])
def test_kernel_connects(link: Link, kernel, ends, policy):
    address = link.b.addresses[ends.wire]
    if policy:
        require(link.a, link.b, ends)
        with refused(errno.ENOKEY):
            tell(kernel, link.a, "connect", address)
        assert not link.audit(unsigned=True).segments
        give_key(link, link.a, link.b, ends)
    listener = link.listen("native", ends, FIRST) if policy else link.listen("plain", ends)
    tell(kernel, link.a, "connect", address)
    assert listener.accept().sock.recv(100) == HELLO
    if policy:
        all_signed(link)
    else:
        assert not link.verify(unsigned=True).signed


# --- cookies -------------------------------------------------------------------------------------


@contextmanager
def cookies_by_bpf(host: Host, ends: Ends) -> Iterator[Cookies]:
    """A program answers the SYNs to this host."""
    with host.namespace.entered():
        cookies = Cookies(host.interface, ends.wire, PORT)
    try:
        yield cookies
    finally:
        cookies.close()


@pytest.mark.parametrize("policy", ["none", "before", "after"])
def test_cookie_of_bpf(link: Link, ends, policy):
    """The stack has seen no SYN, and is told that the ACK shows a right cookie."""
    listener = link.listen("plain", ends)
    give_key(link, link.b, link.a, ends)
    client = link.client("plain", ends)
    with cookies_by_bpf(link.b, ends) as cookies:
        if policy == "before":
            require(link.b, link.a, ends)
        gate = link.a.gate()
        gate.shut()
        link.start(client)
        wait_for("the SYN-ACK", lambda: sent(link, link.b, ANSWER, unsigned=True))
        assert not cookies.assigned
        if policy == "after":
            require(link.b, link.a, ends)
        forger = Forger(link, link.a, ends.wire, client.sock.getsockname()[1], PORT, unsigned=True)
        assert forger.isn(link.b) == COOKIE
        forger.send(forger.tcp())
        wait_for("the ACK to be taken for one with a cookie", lambda: cookies.assigned == 1)
        if policy == "none":
            wait_for("the connection", lambda: listener.asked)
            assert not is_active(listener.accept().sock)
            assert link.b.counters() == {}
        else:
            wait_for("it to be refused", lambda: link.b.counters() == {REQUIRED: 1})
            assert refusals(link.b) == {"syn_refused": 1}
            # Nor does it open anything if it is signed: that one is dropped, and not counted.
            forger.send(forger.tcp(), forger.ao(FIRST))
            wait_for("it to be taken for one, too", lambda: cookies.assigned == 2)
            through_all_cpus()
            assert not listener.asked
    link.audit(unsigned=True)


@pytest.mark.parametrize("policy", [False, True], ids=["control", "required"])
def test_cookie_of_before(link: Link, ends, policy):
    """The stack has made it, as it does for BPF, when there was no policy."""
    link.b.namespace.write_sysctl("net/ipv4/tcp_syncookies", 2)
    listener = link.listen("plain", ends)
    link.a.gate().shut()
    forger = Forger(link, link.a, ends.wire, 1024, PORT, unsigned=True)
    forger.send(forger.tcp(seq=1000, flags=OPENING))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))
    assert link.b.namespace.counters()["SyncookiesSent"] == 1
    if policy:
        require(link.b, link.a, ends)
    forger.send(forger.tcp())
    wait_for("the cookie", lambda: link.b.namespace.counters()["SyncookiesRecv"] == 1)
    if policy:
        wait_for("it to be refused", lambda: link.b.counters() == {REQUIRED: 1})
        assert not listener.asked
    else:
        wait_for("the connection", lambda: listener.asked)
        assert not is_active(listener.accept().sock)
    link.audit(unsigned=True)


# --- repair --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unasked(Frozen):
    """A connection that is put back by a program which does not ask for protection."""

    @classmethod
    def taken(cls, peer: Peer) -> "Unasked":
        frozen = freeze(peer)
        return cls(**{field.name: getattr(frozen, field.name) for field in fields(frozen)})

    def set_authopt(self, sock: socket.socket) -> None:
        """It does not."""


def test_repair(link: Link, ends):
    """Nothing goes out before the socket knows its ISNs, and then it does, signed."""
    give_key(link, link.a, link.b, ends)
    require(link.a, link.b, ends)
    connection = link.connect(link.client("plain", ends), link.listen("native", ends, FIRST))
    connection.exchange()
    frozen = Unasked.taken(connection.client)
    before = len(sent(link, link.a, ACK))
    sock = connection.client.sock = frozen.connect(link.a)
    assert is_active(sock)
    repair(sock, OFF)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENOKEY
    assert len(sent(link, link.a, ACK)) == before
    repair(sock, ON)
    frozen.set_ao(sock)
    frozen.set_rest(sock)
    repair(sock, OFF)
    connection.exchange()
    connection.close()
    all_signed(link)


def test_repair_without_a_key(link: Link, ends):
    require(link.a, link.b, ends)
    sock = new_socket(link.a, ends.client)
    repair(sock, ON)
    with refused(errno.ENOKEY):
        sock.connect((link.b.address(ends.wire, ends.client), PORT))
    repair(sock, OFF)
    assert not link.audit(unsigned=True).segments


def test_repair_without_the_policy(link: Link, ends):
    """The control: a key alone is for who asks, and so what leaves repair is not signed."""
    give_key(link, link.a, link.b, ends)
    sock = new_socket(link.a, ends.client)
    repair(sock, ON)
    sock.connect((link.b.address(ends.wire, ends.client), PORT))
    assert not is_active(sock)
    repair(sock, OFF)
    wait_for("its probe", lambda: sent(link, link.a, ACK, unsigned=True))
    assert not link.report.signed


# --- migration -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [False, True], ids=["control", "required"])
def test_unsigned_request_moves(link: Link, ends, policy):
    """The policy comes while it waits, and then its listener is another one."""
    old = join(link, "plain", ends)
    client = link.client("plain", ends)
    pending(link, client)
    new = join(link, "plain", ends)
    if policy:
        require(link.b, link.a, ends)
    old.sock.close()
    client.sock.send(DATA)
    if policy:
        wait_for("it to be refused", lambda: refusals(link.b) == {"syn_refused": 1})
        assert not new.asked
        assert migrated(link) == 0
    else:
        connection = accept(new, client)
        assert connection.server.sock.recv(100) == DATA
        assert migrated(link) == 1
    link.audit(unsigned=True)


def test_signed_request_moves(link: Link, ends):
    """From one listener that never asked to another: it stays what it was."""
    give_key(link, link.b, link.a, ends)
    require(link.b, link.a, ends)
    old = join(link, "plain", ends)
    client = link.client("native", ends, FIRST)
    pending(link, client)
    connection = carry_over(link, client, old, join(link, "plain", ends))
    assert is_active(connection.server.sock)
    connection.close()
    all_signed(link)


# --- VRFs ----------------------------------------------------------------------------------------

RED = Vrf("red", 100)


def make_vrf(host: Host, other: Host) -> None:
    """The host is a port of it, or is again."""
    host.vrf, host.device = RED, RED.name
    with host.namespace.entered(), Rtnetlink() as rtnetlink:
        rtnetlink.add_vrf(RED.name, RED.table)
        rtnetlink.set_up(RED.name)
        rtnetlink.enslave(host.interface, RED.name)
    restore(host, other)


def delete_vrf(host: Host, other: Host) -> None:
    """The host is outside of VRFs."""
    host.vrf, host.device = None, ""
    with host.namespace.entered(), Rtnetlink() as rtnetlink:
        rtnetlink.delete(RED.name)
    restore(host, other)


def restore(host: Host, other: Host) -> None:
    """The port was down for a moment, which has cost it these."""
    with host.namespace.entered(), Rtnetlink() as rtnetlink:
        rtnetlink.add_addresses(host.interface, [f"{host.addresses['v6']}/64"])
        rtnetlink.add_neighbours(host.interface, other.addresses.values(), other.mac)


@pytest.mark.parametrize("first", ["device", "policy"])
def test_vrf_by_name(link: Link, ends, first):
    """Made before the policy or after it, deleted, and made again: it is the one of that name."""
    link.b.namespace.write_sysctl("net/ipv4/tcp_l3mdev_accept", 1)
    listener = link.listen("plain", ends)
    give_key(link, link.b, link.a, ends)
    if first == "device":
        make_vrf(link.b, link.a)
    require(link.b, link.a, ends, vrf=RED.name)
    if first == "policy":
        link.connect(link.client("plain", ends), listener).exchange()
        make_vrf(link.b, link.a)
    for again in (True, False):
        link.await_path(ends.client, ends.wire)
        is_refused(link, ends)
        assert not listener.asked
        connection = link.connect(link.client("native", ends, FIRST), listener)
        connection.exchange()
        assert is_active(connection.server.sock)
        connection.close()
        delete_vrf(link.b, link.a)
        link.await_path(ends.client, ends.wire)
        # The control: outside of it nothing is required.
        outside = link.connect(link.client("plain", ends), listener)
        outside.exchange()
        assert not is_active(outside.server.sock)
        if again:
            make_vrf(link.b, link.a)
    link.audit(unsigned=True)


# --- MPTCP ---------------------------------------------------------------------------------------

MPTCP = 30
CAPABLE, JOIN = 4, 12
"""How long the options of a SYN are."""


def speaks_mptcp(segment) -> bool:
    return bool(segment.named(MPTCP))


@pytest.mark.parametrize("policy", [False, True], ids=["control", "required"])
def test_mp_capable(link: Link, ends, policy):
    """A signed SYN may ask for MPTCP, with the few options that there is room for beside TCP-AO."""
    listener = mptcp(link, ends)
    give_key(link, link.b, link.a, ends)
    if policy:
        require(link.b, link.a, ends)
    link.a.gate().shut()
    forger = Forger(link, link.a, ends.wire, 1024, PORT, unsigned=not policy)

    def signed(**more: int) -> dict:
        return {"ao": forger.ao(FIRST, **more)} if policy else {}

    options = bytes([MPTCP, CAPABLE, 1, 1])
    forger.send(forger.tcp(seq=1000, flags=OPENING, options=options), **signed(src_isn=1000))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))
    (answer,) = sent(link, link.b, ANSWER, unsigned=True)
    assert speaks_mptcp(answer) != policy
    if policy:
        forger.send(forger.tcp(), **signed())
        wait_for("the connection", lambda: listener.asked)
        server = listener.accept()
        assert is_active(server.sock)
        forger.send(forger.tcp(payload=HELLO), **signed())
        assert server.sock.recv(100) == HELLO
        all_signed(link)
    else:
        link.audit(unsigned=True)


@pytest.mark.parametrize("policy", [False, True], ids=["control", "required"])
def test_mp_join(link: Link, ends, policy):
    """No other subflow joins a connection that is older than the policy, signed or not."""
    listener = mptcp(link, ends)
    give_key(link, link.b, link.a, ends)
    client = new_socket(link.a, ends.client, IPPROTO_MPTCP)
    client.connect((link.b.address(ends.wire, ends.client), PORT))
    server = listener.accept().sock
    client.sendall(HELLO)
    assert server.recv(100) == HELLO
    server.sendall(HELLO)
    assert client.recv(100) == HELLO
    (answer,) = sent(link, link.b, ANSWER, unsigned=True)
    ((_, capable),) = [(it.kind, it.value) for it in answer.named(MPTCP)]
    token = hashlib.sha256(capable[2:10]).digest()[:4]
    if policy:
        require(link.b, link.a, ends)
    link.a.gate().shut()
    options = bytes([MPTCP, JOIN, 0x10, 1]) + token + b"once"
    forger = Forger(link, link.a, ends.wire, 1024, PORT, unsigned=not policy)
    syn = forger.tcp(seq=1000, flags=OPENING, options=options)
    if policy:
        forger.send(syn)
        wait_for("it to be refused", lambda: link.b.counters() == {REQUIRED: 1})
        drops = link.b.namespace.counters()["ListenDrops"]
        forger.send(syn, forger.ao(FIRST, src_isn=1000))
        wait_for(
            "it to be dropped", lambda: link.b.namespace.counters()["ListenDrops"] == drops + 1
        )
        assert len(sent(link, link.b, ANSWER, unsigned=True)) == 1
    else:
        forger.send(syn)
        wait_for("the SYN-ACK", lambda: len(sent(link, link.b, ANSWER, unsigned=True)) == 2)
        joined = sent(link, link.b, ANSWER, unsigned=True)[-1]
        assert [option.value[0] >> 4 for option in joined.named(MPTCP)] == [1]
    link.audit(unsigned=True)
