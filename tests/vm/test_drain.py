"""net.ipv4.tcp_authopt_drain: takes all state off all sockets, for the module to go at once."""

import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import abi
from clock import wait_for
from craft import SYN
from forge import Forger
from link import FIRST, PORT, REQUIRED, V4, V6, Host, Link, Vrf
from test_policy import give_key, require, set_policy
from test_reuse import disconnect
from test_socket_options import refused
from test_unload import BUSY, TIME_WAIT

pytestmark = pytest.mark.ours

SYN_RECV = "03"
DRAIN = Path("/proc/sys/net/ipv4/tcp_authopt_drain")
ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]
UNUSABLE = errno.ENODEV, errno.ENETUNREACH, errno.EHOSTUNREACH
"""What connect() says without a route."""


@pytest.fixture(scope="module", autouse=True)
def _unloaded(module):
    """The first test, too, finds the module as it comes."""
    if module.loaded:
        module.unload(wait=True)


@pytest.fixture(autouse=True)
def _unloaded_again(module):
    """What is drained stays so until it is loaded again, which the next test does."""
    yield
    if module.loaded:
        module.unload(wait=True)


def idle(link: Link, ends) -> None:
    link.client("ours", ends)


def adds_keys(link: Link, ends) -> None:
    """A socket that does nothing else."""
    link.client("keys", ends, FIRST)


def listener(link: Link, ends) -> None:
    link.listen("ours", ends, FIRST)


def session(link: Link, ends) -> None:
    link.connected("ours", "ours", ends).exchange()


def connecting(link: Link, ends) -> None:
    link.start(link.client("ours", ends, FIRST))


def request(link: Link, ends) -> None:
    link.listen("ours", ends, FIRST)
    forger = Forger(link, link.a, ends.wire, 1024, PORT)
    forger.send(forger.tcp(seq=9000, flags=SYN), forger.ao(FIRST, src_isn=9000))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))


def accept_queue(link: Link, ends) -> None:
    listener = link.listen("ours", ends, FIRST)
    client = link.client("native", ends, FIRST)
    client.sock.connect((client.address, PORT))
    wait_for("a connection to accept", lambda: listener.asked)


def time_wait(link: Link, ends) -> None:
    connection = link.connected("ours", "native", ends)
    connection.exchange()
    connection.close()
    for sock in link.a.sockets:
        sock.close()
    assert TIME_WAIT in link.a.states()


def time_wait_with_a_socket(link: Link, ends) -> None:
    connection = link.connected("ours", "native", ends)
    connection.client.sock.shutdown(socket.SHUT_WR)
    assert connection.server.sock.recv(1) == b""
    connection.server.sock.close()
    assert connection.client.sock.recv(1) == b""
    wait_for("TIME-WAIT", lambda: TIME_WAIT in link.a.states())


def orphan(link: Link, ends) -> None:
    """Its last data cannot be delivered: nobody reads at the other end."""
    connection = link.connected("ours", "native", ends)
    client = connection.client.sock
    client.setblocking(False)
    try:
        while True:
            client.send(bytes(1 << 16))
    except BlockingIOError:
        client.close()


HOLDERS = [
    idle,
    adds_keys,
    listener,
    session,
    connecting,
    request,
    accept_queue,
    time_wait,
    time_wait_with_a_socket,
    orphan,
]


def drain() -> None:
    DRAIN.write_text("1")


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("hold", HOLDERS, ids=lambda hold: hold.__name__)
def test_drained_of(link, module, hold: Callable[[Link, object], None], ends):
    hold(link, ends)
    assert BUSY.search(module.unload())
    drain()
    assert module.users == 0
    assert module.unload() == ""
    assert not link.audit().bad


def test_drained_of_all_at_once(link, module):
    """With connections of other kinds, which notice nothing."""
    native = link.connected("native", "native", V4, FIRST, 1001)
    plain = link.connected("plain", "plain", V4, FIRST, 1002)
    for number in range(20):
        link.connected("ours", "ours", V6 if number % 2 else V4, FIRST, 2000 + number).exchange()
    idle(link, V4)
    request(link, V4)
    time_wait_with_a_socket(link, V6)
    drain()
    assert module.unload() == ""
    for connection in native, plain:
        connection.exchange()
    report = link.verify(unsigned=True)
    assert {1002} == {min(r.segment.sport, r.segment.dport) for r in report.unsigned}


FOREIGN = f"""
import socket
sock = socket.socket()
sock.setsockopt(socket.IPPROTO_TCP, {abi.TCP_AUTHOPT}, bytes(8))
sock.listen()
print("listening", flush=True)
sock.accept()
"""


def test_drained_of_what_another_user_holds(module):
    """A namespace of its own is no hiding place."""
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "--user"]
    command += ["--map-root-user", "--net", sys.executable, "-c", FOREIGN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        assert it.stdout.readline() == "listening\n"
        assert BUSY.search(module.unload())
        drain()
        assert module.unload() == ""
        assert "OSError" in it.communicate()[1]


@pytest.mark.parametrize("ends", ENDS)
def test_no_socket_goes_on_without_protection(link, module, ends):
    """Who asked for protection gets an error from now on: the module is gone, the daemon is not."""
    unused = link.client("ours", ends, FIRST)
    connection = link.connected("ours", "ours", ends)
    drain()
    assert module.unload() == ""
    signed = len(link.verify().segments)

    # Whichever end was first, the other one has got its RST.
    with pytest.raises((ConnectionAbortedError, ConnectionResetError)):
        connection.client.sock.recv(1)
    disconnect(connection.client.sock)
    for peer in unused, connection.client:
        with refused(*UNUSABLE):
            peer.sock.connect((peer.address, PORT))
    with refused(errno.EINVAL):
        connection.listener.sock.accept()
    connection.listener.sock.listen()
    stranger = link.client("plain", ends)
    with pytest.raises(ConnectionRefusedError):
        stranger.sock.connect((stranger.address, PORT))
    # The stranger's SYN and the RST for it: nothing of ours.
    assert len(link.audit(unsigned=True).segments) == signed + 2


def test_nothing_is_protected_afterwards(link, module):
    """Until the module is loaded again; and a drain cannot be taken back."""
    drain()
    assert DRAIN.read_text() == "1\n"
    with refused(errno.EINVAL):
        DRAIN.write_text("0")
    drain()
    sock = link.client("plain", V4).sock
    with refused(errno.EBUSY):
        abi.set_authopt(sock)
    with link.a.namespace.entered(), refused(errno.EBUSY):
        abi.set_key(sock, abi.pack_key(1, 2))
    assert link.a.namespace.read("tcp_authopt").count("\n") == 1, "the heading"
    with refused(errno.ENOENT):
        abi.get_authopt(sock)
    assert module.unload() == ""
    link.audit()


@pytest.mark.parametrize("ends", ENDS)
def test_who_has_asked_in_vain_gets_no_protection(link, module, ends):
    """The state of a connection without protection is not drained, and is of no use any more."""
    connection = link.connected("plain", "plain", ends)
    client = connection.client
    abi.set_authopt(client.sock)
    link.client("ours", ends, FIRST)
    drain()
    connection.exchange()
    assert abi.get_authopt(client.sock).flags == 0
    disconnect(client.sock)
    with refused(errno.ENODEV):
        client.sock.connect((client.address, PORT))
    with refused(errno.EBUSY):
        client.sock.listen()
    # There is no key for itself.
    listener = link.a.tcp_socket(ends.client)
    listener.bind((link.a.address(ends.wire, ends.client), PORT))
    listener.listen()
    client.sock.connect(listener.getsockname())
    assert abi.get_authopt(client.sock).flags == 0
    assert not link.verify(unsigned=True).signed


@pytest.mark.parametrize("ends", ENDS)
def test_port_of_a_vrf_is_given_back(module, ends):
    """A listener that was bound in a VRF listens again, in vain; another one can have its port."""
    link = Link(b=Host("B", 2, vrf=Vrf("red", 100)))
    try:
        listener = link.listen("ours", ends, FIRST)
        drain()
        # The kernel complains of one that has the port of another VRF.
        listener.sock.listen()
        assert listener.sock.getsockname()[1] != PORT
        other = link.listen("plain", ends)
        connection = link.connect(link.client("plain", ends), other)
        connection.exchange()
        assert not listener.asked
        link.verify(unsigned=True)
    finally:
        link.close()


def requests(host: Host) -> list[str]:
    """Those that wait for an ACK."""
    lines = [line for name in ("tcp", "tcp6") for line in host.namespace.read(name).splitlines()]
    return [line for line in lines if line.split()[3] == SYN_RECV]


@pytest.mark.parametrize("ends", ENDS)
def test_what_is_required_stays_shut(link, module, ends):
    """Sockets that never asked connect to nobody, and hear nobody, until the module is gone."""
    listener = link.listen("plain", ends)
    for host, other in ((link.a, link.b), (link.b, link.a)):
        give_key(link, host, other, ends)
        require(host, other, ends)
    connection = link.connect(link.client("plain", ends), listener)
    connection.exchange()
    assert BUSY.search(module.unload())
    drain()
    assert module.users == 0
    with pytest.raises((ConnectionAbortedError, ConnectionResetError)):
        connection.client.sock.recv(1)
    with refused(errno.ENODEV):
        link.client("plain", ends).sock.connect((connection.client.address, PORT))
    assert link.verify().signed
    # From now on A has no part in it: it speaks with keys of the kernel's, or unsigned.
    set_policy(link.a, ends, abi.KEY_REQUIRE | abi.KEY_DEL, address=link.b.addresses[ends.wire])
    signed = link.client("native", ends, FIRST)
    link.start(signed)
    wait_for("its SYN-ACK, whose ACK is of no use", lambda: not signed.pending)
    stranger = link.client("plain", ends)
    link.start(stranger)
    wait_for("it to be refused", lambda: link.b.counters().get(REQUIRED))
    stranger.sock.close()
    # A signed RST takes the request away: else the stack says in the log that it has no key for it.
    signed.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    signed.sock.close()
    wait_for("the request to go", lambda: not requests(link.b))
    assert not listener.asked
    assert module.unload() == ""

    # The control: it was the module that kept it shut.
    link.connect(link.client("plain", ends), listener).exchange()
    link.audit(unsigned=True)


def test_not_for_everybody(link, module):
    idle(link, V4)
    assert (DRAIN.read_text(), DRAIN.stat().st_mode & 0o777) == ("0\n", 0o644)
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            drain()
    finally:
        os.seteuid(0)
    # Root of the file's namespace, but without the capability.
    write = f"open({str(DRAIN)!r}, 'w').write('1')"
    done = subprocess.run(
        [
            "setpriv",
            "--bounding-set=-net_admin",
            "--inh-caps=-net_admin",
            sys.executable,
            "-c",
            write,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"[Errno {errno.EPERM}]" in done.stderr
    assert BUSY.search(module.unload())
    link.audit()
