"""A policy is for every kind of socket: what listens, and what connects, and never asked.

Of each listener: with the policy an unsigned SYN gets no answer and does not reach the program, nor
does a wrongly signed one, while a signed one does; an unsigned RST ends nothing. Without it, the
control, the unsigned one does reach the program.
"""

import errno
import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

import abi
from clock import wait_for
from craft import ACK, RST
from forge import Forger
from handshake import ANSWER, OPENING, sent
from link import BAD, FIRST, PORT, REQUIRED, ROLES, TIMEOUT, V4, V6, Ends, Host, Link, Peer
from test_policy import give_key, is_active, require, set_policy
from test_socket_options import refused

pytestmark = [
    pytest.mark.ours,
    pytest.mark.usefixtures("quick"),
    pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"]),
]

WRONG = replace(FIRST, name="wrong", secret=b"what only the stranger knows")
IPPROTO_MPTCP = 262

ECHO = """
import socket
listener = socket.socket(fileno=0)
listener.settimeout(None)
while True:
    connection, _ = listener.accept()
    connection.sendall(connection.recv(100))
"""
"""A program that has its listener from whoever started it."""


def new_socket(host: Host, family: socket.AddressFamily, protocol: int = 0, user: int = 0):
    """A socket of this host, with a program that knows nothing of TCP-AO."""
    with host.namespace.entered():
        os.seteuid(user)
        try:
            sock = socket.socket(family, socket.SOCK_STREAM, protocol)
        finally:
            os.seteuid(0)
    sock.settimeout(TIMEOUT)
    host.sockets.append(sock)
    return sock


def new_listener(link: Link, ends: Ends, protocol: int = 0, user: int = 0) -> Peer:
    """On B."""
    sock = new_socket(link.b, ends.server, protocol, user)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return Peer(link, link.b, ROLES["plain"], sock, link.a.address(ends.wire, ends.server))


def begin(listener: Peer, ends: Ends) -> Peer:
    """Binds and listens."""
    listener.sock.bind((listener.host.address(ends.wire, ends.server), PORT))
    listener.sock.listen()
    return listener


def plain(link: Link, ends: Ends) -> Peer:
    return begin(new_listener(link, ends), ends)


def of_another_user(link: Link, ends: Ends) -> Peer:
    listener = new_listener(link, ends, user=65534)
    assert os.fstat(listener.sock.fileno()).st_uid == 65534
    return begin(listener, ends)


def passed(link: Link, ends: Ends) -> Peer:
    """By one process to another one, which is this one, too."""
    listener = plain(link, ends)
    near, far = socket.socketpair()
    with near, far, listener.sock as sent_away:
        socket.send_fds(near, [b"x"], [sent_away.fileno()])
        _, (fd,), _, _ = socket.recv_fds(far, 1, 1)
    sock = socket.socket(fileno=fd)
    sock.settimeout(TIMEOUT)
    link.b.sockets.append(sock)
    return replace(listener, sock=sock)


def mptcp(link: Link, ends: Ends) -> Peer:
    return begin(new_listener(link, ends, IPPROTO_MPTCP), ends)


def fast_open(link: Link, ends: Ends) -> Peer:
    link.b.namespace.write_sysctl("net/ipv4/tcp_fastopen", 0x2 | 0x200)
    listener = new_listener(link, ends)
    listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    return begin(listener, ends)


def cookies(link: Link, ends: Ends) -> Peer:
    link.b.namespace.write_sysctl("net/ipv4/tcp_syncookies", 2)
    return plain(link, ends)


def one_of_several(link: Link, ends: Ends) -> Peer:
    """Two share the port; the other one is asked by nobody, for it accepts nothing."""
    listener = new_listener(link, ends)
    listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other = new_listener(link, ends)
    other.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    begin(listener, ends)
    other.sock.bind((other.host.address(ends.wire, ends.server), PORT))
    return listener


LISTENERS = [
    plain,
    of_another_user,
    passed,
    mptcp,
    fast_open,
    cookies,
    one_of_several,
]


@pytest.mark.parametrize(
    ("kind", "when"),
    [
        pytest.param(kind, when, id=f"{kind.__name__}-{when}")
        for kind, when in (
            *((kind, "older") for kind in LISTENERS),
            (plain, "younger"),
            (mptcp, "younger"),
        )
    ],
)
def test_listeners(link: Link, ends, kind, when):
    """See above."""
    give_key(link, link.b, link.a, ends)
    link.know(WRONG)
    if when == "older":
        listener = kind(link, ends)
        require(link.b, link.a, ends)
    else:
        require(link.b, link.a, ends)
        listener = kind(link, ends)

    stranger = link.client("plain", ends)
    link.start(stranger)
    wait_for("it to be refused", lambda: link.b.counters() == {REQUIRED: 1})
    stranger.sock.close()
    liar = link.client("native", ends, WRONG)
    link.start(liar)
    wait_for("it to be refused, too", lambda: link.b.counters() == {REQUIRED: 1, BAD: 1})
    liar.sock.close()
    assert not listener.asked
    assert len(sent(link, link.a, OPENING, unsigned=True)) == 2
    assert not sent(link, link.b, ANSWER, unsigned=True)

    connection = link.connect(link.client("native", ends, FIRST), listener)
    connection.exchange()
    assert is_active(connection.server.sock)
    forger = Forger.of(link, link.a, ends.wire)
    forger.send(forger.tcp(flags=RST | ACK))
    wait_for("the RST to be refused", lambda: link.b.counters()[REQUIRED] == 2)
    connection.exchange()
    connection.close()
    mine = link.b.addresses.values()
    records = [it for it in link.audit(unsigned=True).segments if it.source in mine]
    assert {record.key and record.key.name for record in records} == {FIRST.name}


@pytest.mark.parametrize("kind", LISTENERS, ids=lambda kind: kind.__name__)
def test_listeners_without_the_policy(link: Link, ends, kind):
    """The control: for another peer, or for none any more, the unsigned SYN does reach it."""
    give_key(link, link.b, link.a, ends)
    require(link.b, link.a, ends, port=PORT + 1)
    listener = kind(link, ends)
    require(link.b, link.a, ends)
    set_policy(link.b, ends, abi.KEY_REQUIRE | abi.KEY_DEL, address=link.a.addresses[ends.wire])
    connection = link.connect(link.client("plain", ends), listener)
    connection.exchange()
    assert not is_active(connection.server.sock)
    connection.close()
    assert link.b.counters() == {}
    link.audit(unsigned=True)


def test_inherited_listener(link: Link, ends):
    """Of a program that was started with it, and was there before the policy."""
    listener = plain(link, ends)
    give_key(link, link.b, link.a, ends)
    with subprocess.Popen([sys.executable, "-c", ECHO], stdin=listener.sock) as program:
        try:
            client = link.client("plain", ends)
            client.sock.connect((client.address, PORT))
            client.sock.sendall(b"unsigned")
            assert client.sock.recv(100) == b"unsigned"
            require(link.b, link.a, ends)
            link.start(link.client("plain", ends))
            wait_for("it to be refused", lambda: link.b.counters() == {REQUIRED: 1})
            signed = link.client("native", ends, FIRST)
            signed.sock.connect((signed.address, PORT))
            signed.sock.sendall(b"signed")
            assert signed.sock.recv(100) == b"signed"
        finally:
            program.kill()
    link.audit(unsigned=True)


def test_complete_connection(link: Link, ends):
    """What was complete before the policy stays what it was."""
    connection = link.connected("plain", "plain", ends)
    for host, other in ((link.a, link.b), (link.b, link.a)):
        give_key(link, host, other, ends)
        require(host, other, ends)
    connection.exchange()
    connection.close()
    assert not link.audit(unsigned=True).signed


def test_half_done_handshake(link: Link, ends):
    """The policy comes between SYN-ACK and ACK, which opens nothing."""
    listener = plain(link, ends)
    # Else the kernel of A would have something to say to the SYN-ACK.
    link.a.gate().shut()
    forger = Forger(link, link.a, ends.wire, 1024, PORT, unsigned=True)
    forger.send(forger.tcp(seq=1000, flags=OPENING))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))
    require(link.b, link.a, ends)
    forger.send(forger.tcp())
    wait_for("it to be refused", lambda: link.b.counters() == {REQUIRED: 1})
    assert not listener.asked
    link.audit(unsigned=True)


def is_refused(sock: socket.socket) -> bool:
    """Whether its connect() has failed; it would go on for a minute by itself."""
    err = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert err in (0, errno.ECONNREFUSED)
    return err != 0


def refusals(host: Host) -> dict[str, int]:
    """What a policy has refused in its namespace, where it is not zero."""
    words = host.namespace.read("tcp_authopt_counters").split()
    counters = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    return {name: count for name, count in counters.items() if count}


def test_connect_that_is_under_way(link: Link, ends):
    """The policy comes between the SYN and the SYN-ACK, which is refused: no ACK leaves."""
    listener = link.listen("plain", ends)
    gate = link.a.gate()
    gate.shut()
    client = link.client("plain", ends)
    link.start(client)
    wait_for("the SYN-ACK, which is lost", lambda: sent(link, link.b, ANSWER, unsigned=True))
    require(link.a, link.b, ends)
    gate.open()
    wait_for("an end of it", lambda: is_refused(client.sock))
    assert (link.a.counters(), refusals(link.a)) == ({REQUIRED: 1}, {"connect_refused": 1})
    assert not sent(link, link.a, ACK, unsigned=True)
    assert not listener.asked


@pytest.mark.parametrize("required", [True, False], ids=["", "control"])
@pytest.mark.parametrize("crossed", [True, False], ids=["crossed", "data"])
def test_forged_answer_to_a_connect_that_is_under_way(link: Link, ends, crossed, required):
    """A SYN that crosses is not answered, and data that comes with an answer is not taken."""
    link.a.namespace.write_sysctl("net/ipv4/tcp_fastopen", 0x1 | 0x4)
    # B's kernel has nothing to say.
    link.b.gate().shut()
    sock = new_socket(link.a, ends.client)
    sock.setblocking(False)
    sock.bind(("", 5000))
    connect_with_data(sock, (link.b.address(ends.wire, ends.client), PORT))
    forger = Forger(link, link.b, ends.wire, PORT, 5000, unsigned=True)
    wait_for("the SYN", lambda: forger.segments(link.a))
    if required:
        require(link.a, link.b, ends)
    answer = forger.tcp(seq=1000, flags=OPENING if crossed else ANSWER)
    forger.send(answer if crossed else replace(answer, payload=b"forged"))
    if required:
        wait_for("an end of it", lambda: is_refused(sock))
        assert (link.a.counters(), refusals(link.a)) == ({REQUIRED: 1}, {"connect_refused": 1})
        assert sock.recv(100, socket.MSG_DONTWAIT) == b""
        assert {segment.flags for segment in forger.segments(link.a)} == {OPENING}
    elif crossed:
        wait_for("an answer", lambda: sent(link, link.a, ANSWER, unsigned=True))
    else:
        wait_for("the ACK", lambda: sent(link, link.a, ACK, unsigned=True))
        assert sock.recv(100, socket.MSG_DONTWAIT) == b"forged"


# --- connecting ----------------------------------------------------------------------------------


def connect(sock: socket.socket, address: tuple) -> None:
    sock.connect(address)
    sock.sendall(b"hello")


def connect_bound(sock: socket.socket, address: tuple) -> None:
    sock.bind(("", 5000))
    connect(sock, address)


def connect_in_the_background(sock: socket.socket, address: tuple) -> None:
    sock.setblocking(False)
    with refused(errno.EINPROGRESS):
        sock.connect(address)
    sock.settimeout(TIMEOUT)
    sock.sendall(b"hello")


def connect_with_data(sock: socket.socket, address: tuple) -> None:
    sock.sendto(b"hello", socket.MSG_FASTOPEN, address)


def connect_when_there_is_data(sock: socket.socket, address: tuple) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
    connect(sock, address)


CONNECTS = [
    connect,
    connect_bound,
    connect_in_the_background,
    connect_with_data,
    connect_when_there_is_data,
]


@pytest.mark.parametrize(
    ("how", "user"),
    [
        pytest.param(how, user, id=f"{how.__name__}-{user}")
        for how, user in (*((how, 0) for how in CONNECTS), (connect, 65534))
    ],
)
def test_connects(link: Link, ends, how, user):
    """Signed from the first SYN on, and not one that is not."""
    link.a.namespace.write_sysctl("net/ipv4/tcp_fastopen", 0x1 | 0x4)
    give_key(link, link.a, link.b, ends)
    require(link.a, link.b, ends)
    listener = link.listen("native", ends, FIRST)
    sock = new_socket(link.a, ends.client, user=user)
    how(sock, (link.b.address(ends.wire, ends.client), PORT))
    server = listener.accept()
    assert server.sock.recv(100) == b"hello"
    assert is_active(sock)
    report = link.verify()
    assert report.segments[0].segment.flags & OPENING
    assert report.segments == report.signed


@pytest.mark.parametrize("how", CONNECTS, ids=lambda how: how.__name__)
def test_connects_without_a_key(link: Link, ends, how):
    """Nothing leaves, and the program is told why."""
    link.a.namespace.write_sysctl("net/ipv4/tcp_fastopen", 0x1 | 0x4)
    require(link.a, link.b, ends)
    link.listen("plain", ends)
    sock = new_socket(link.a, ends.client)
    if how in (connect_in_the_background, connect_when_there_is_data):
        how = connect
    with refused(errno.ENOKEY):
        how(sock, (link.b.address(ends.wire, ends.client), PORT))
    assert not link.audit(unsigned=True).segments
    assert refusals(link.a) == {"connect_refused": 1}


def test_mptcp_connects(link: Link, ends):
    """A connection of MPTCP has other subflows: it is none, before a SYN leaves."""
    give_key(link, link.a, link.b, ends)
    require(link.a, link.b, ends)
    listener = link.listen("plain", ends)
    sock = new_socket(link.a, ends.client, IPPROTO_MPTCP)
    address = link.b.address(ends.wire, ends.client), PORT
    with refused(errno.EOPNOTSUPP):
        sock.connect(address)
    assert not link.audit(unsigned=True).segments
    set_policy(link.a, ends, abi.KEY_EXEMPT, address=link.b.addresses[ends.wire])
    again = new_socket(link.a, ends.client, IPPROTO_MPTCP)
    again.connect(address)
    again.sendall(b"hello")
    assert listener.accept().sock.recv(100) == b"hello"
    link.audit(unsigned=True)
