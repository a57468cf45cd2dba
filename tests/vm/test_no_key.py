"""net.ipv4.tcp_authopt_no_key_grace: for how long a connection without a key says nothing of it."""

import errno
import select
import socket
import time

import pytest

import abi
from clock import wait_for
from link import FIRST, SECOND, V4, V6, Connection, Link, Peer
from requirement import requirement
from test_live_keys import OURS_FIRST, ends_of
from test_socket_options import refused
from wall import T, give

pytestmark = [pytest.mark.ours, pytest.mark.usefixtures("quick")]

SO_ERROR = socket.SOL_SOCKET, socket.SO_ERROR
TCP_USER_TIMEOUT = 18
HOUR = 3600
DATA = b"kept back"

ENDS = pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
WHOSE = pytest.mark.parametrize(("client", "server", "changed"), OURS_FIRST)


def set_grace(peer: Peer, seconds: int) -> None:
    """In the end's namespace."""
    peer.host.namespace.write_sysctl("net/ipv4/tcp_authopt_no_key_grace", seconds)


def tries(peer: Peer) -> int:
    """How often TCP has tried to send again what it holds (TCP_INFO: retransmits and probes)."""
    info = peer.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 4)
    return info[2] + info[3]


def complains(peer: Peer) -> bool:
    """Whether poll() tells its program that something is wrong."""
    poll = select.poll()
    poll.register(peer.sock, 0)
    return bool(poll.poll(0))


def is_silent(link: Link, peer: Peer, since: int) -> bool:
    """The end has sent nothing since there were so many records."""
    addresses = peer.host.addresses.values()
    return not [r for r in link.verify().records[since:] if r.source in addresses]


def loses_its_key(connection: Connection, changed: str) -> tuple[Peer, Peer, int]:
    """One end does, and may be without for long; gives it, the other, and the records so far."""
    connection.exchange()
    end, other = ends_of(connection, changed)
    set_grace(end, HOUR)
    before = len(connection.client.link.verify().records)
    end.delete(FIRST)
    return end, other, before


def gets_it_back(end: Peer, other: Peer) -> None:
    """What was held up arrives, and the program has heard of nothing."""
    assert not complains(end)
    end.add(FIRST)
    assert other.sock.recv(100) == DATA
    assert not complains(end)
    assert end.sock.getsockopt(*SO_ERROR) == 0


@requirement(17)
@ENDS
@WHOSE
def test_deleted_and_added_again(link, client, server, changed, ends):
    """50 ms later, while there is data to send: the program never hears of it."""
    connection = link.connected(client, server, ends)
    end, other, before = loses_its_key(connection, changed)
    assert end.sock.send(DATA) == len(DATA)
    time.sleep(0.05)
    assert is_silent(link, end, before)
    gets_it_back(end, other)
    connection.exchange()
    connection.close()
    link.verify()


@requirement(40)
@ENDS
def test_hole_between_two_lifetimes(link, wall, ends):
    """Of two seconds."""
    wall.set(T)
    connection = link.connected("ours", "native", ends)
    client, server = connection.peers
    server.add(SECOND)
    set_grace(client, HOUR)
    give(client, FIRST, send=(T, T + 100))
    give(client, SECOND, send=(T + 103, None))
    connection.exchange()
    before = len(link.verify().records)
    wall.set(T + 101)
    client.sock.send(DATA)
    assert is_silent(link, client, before)
    assert not complains(client)
    wait_for("the data", lambda: server.asked, 10)
    assert time.clock_gettime(time.CLOCK_REALTIME) >= T + 103
    assert server.sock.recv(100) == DATA
    assert not complains(client)
    assert client.sock.getsockopt(*SO_ERROR) == 0
    connection.exchange()
    connection.close()
    link.verify()


@requirement(17)
@ENDS
@WHOSE
def test_timers_go_on(link, client, server, changed, ends):
    """What is due again is tried again, and none of it is told."""
    connection = link.connected(client, server, ends)
    end, other, before = loses_its_key(connection, changed)
    end.sock.send(DATA)
    wait_for("it to be tried again, twice", lambda: tries(end) >= 2)
    assert is_silent(link, end, before)
    gets_it_back(end, other)
    connection.exchange()
    link.verify()


@requirement(17)
@ENDS
@pytest.mark.parametrize("grace", [-1, 0])
def test_told_at_once(link, grace, ends):
    """With the first segment that is due, as it is without the sysctl being set."""
    connection = link.connected("ours", "ours", ends)
    connection.exchange()
    end, other = connection.peers
    if grace != -1:
        set_grace(end, grace)
    set_grace(other, HOUR)  # the other namespace's is its own
    end.delete(FIRST)
    end.sock.send(DATA)
    assert complains(end)
    assert end.sock.getsockopt(*SO_ERROR) == errno.ENOKEY
    wait_for("it to be told again", lambda: end.sock.getsockopt(*SO_ERROR) == errno.ENOKEY)
    end.add(FIRST)
    assert other.sock.recv(100) == DATA
    link.verify()


@requirement(17)
@ENDS
def test_told_when_the_grace_is_over(link, ends):
    """A second after the first segment that was due, and not much later."""
    connection = link.connected("ours", "native", ends)
    connection.exchange()
    end, other = connection.peers
    set_grace(end, 1)
    end.delete(FIRST)
    time.sleep(1.1)  # nothing is due
    start = time.monotonic()
    end.sock.send(DATA)
    assert not complains(end)
    assert wait_for("the error", lambda: end.sock.getsockopt(*SO_ERROR)) == errno.ENOKEY
    assert time.monotonic() - start >= 1
    end.add(FIRST)
    assert other.sock.recv(100) == DATA
    link.verify()


@requirement(17)
def test_clock_that_is_set_does_not_count(link, wall):
    """Forward by an hour while there is no key; the grace is of a minute."""
    wall.set(T)
    connection = link.connected("ours", "native")
    connection.exchange()
    end, other = connection.peers
    set_grace(end, 60)
    end.delete(FIRST)
    end.sock.send(DATA)
    wall.set(T + HOUR)
    before = tries(end)
    wait_for("it to be tried again, twice", lambda: tries(end) >= before + 2)
    assert not complains(end)
    end.add(FIRST)
    assert other.sock.recv(100) == DATA
    assert end.sock.getsockopt(*SO_ERROR) == 0
    link.verify()


@requirement(17)
@pytest.mark.parametrize("how", ["another-choice", "the-same-choice"])
def test_time_without_a_key_begins_anew(link, wall, how):
    """Once a segment was signed, also with the choice of before."""
    wall.set(T)
    connection = link.connected("ours", "native")
    end, other = connection.peers
    give(end, FIRST, send=(T, T + 100))
    connection.exchange()
    set_grace(end, HOUR)

    def lose_key() -> None:
        if how == "another-choice":
            end.delete(FIRST)
        else:
            wall.set(T + 1000)
        end.sock.send(DATA)

    def find_key() -> None:
        if how == "another-choice":
            give(end, FIRST, send=(T, T + 100))
        wall.stop_until(T + 10, "the data", lambda: other.asked)

    start = time.monotonic()
    lose_key()
    find_key()
    assert other.sock.recv(100) == DATA
    wait_for("two seconds to pass", lambda: time.monotonic() > start + 2)
    set_grace(end, 2)
    lose_key()
    assert not complains(end)
    find_key()
    assert end.sock.getsockopt(*SO_ERROR) == 0
    link.verify()


@requirement(17)
def test_timeouts_of_tcp_end_it_before(link):
    """The program is told that the connection has timed out, as without TCP-AO."""
    connection = link.connected("ours", "native")
    connection.exchange()
    end = connection.client
    set_grace(end, HOUR)
    end.sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 500)
    end.delete(FIRST)
    end.sock.send(DATA)
    wait_for("the end", lambda: complains(end), 20)
    assert end.sock.getsockopt(*SO_ERROR) == errno.ETIMEDOUT
    link.verify()


@requirement(17)
@ENDS
def test_who_connects_is_told_at_once(link, ends):
    """With no key for the SYN, or none any more when it is due again."""
    link.listen("native", ends, SECOND)
    client = link.client("ours", ends, FIRST)
    set_grace(client, HOUR)
    link.start(client)
    wait_for("the SYN", lambda: link.verify().signed)
    client.delete(FIRST)
    assert wait_for("the error", lambda: client.sock.getsockopt(*SO_ERROR)) == errno.ENOKEY
    client.add(FIRST, abi.KEY_NOSEND)
    late = link.client("ours", ends)
    before = len(link.verify().records)
    with refused(errno.ENOKEY):
        late.sock.connect((late.address, 1001))
    assert is_silent(link, late, before)
