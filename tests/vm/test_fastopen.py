"""TCP Fast Open: data in a SYN. As client it is there; a peer with a key is not served like that.

The MAC of a SYN covers no number of the receiver's, so its data could be played again at any time.
It is taken when it comes again, after the handshake.
"""

import errno
import socket

import pytest

import abi
from clock import wait_for
from craft import SYN
from forge import Forger
from handshake import (
    ANSWER,
    CASES,
    FASTOPEN,
    OPENING,
    accept,
    assert_echoes,
    names,
    sent,
    talk_in_turn,
)
from link import FIRST, PORT, REQUIRED, V4, V6, Connection, Ends, Host, Link, Peer
from requirement import requirement

ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]

CLIENT, SERVER, CLIENT_NO_COOKIE, SERVER_NO_COOKIE, ALL_LISTENERS = 1, 2, 4, 0x200, 0x400
COOKIE_LENGTH = 8
DATA = b"in the SYN already"


def allow(host: Host, what: int) -> None:
    """Sets which parts of Fast Open the host does."""
    host.namespace.write_sysctl("net/ipv4/tcp_fastopen", what)


def without_cookies(link: Link) -> None:
    """Fast Open at once, from A to B."""
    allow(link.a, CLIENT | CLIENT_NO_COOKIE)
    allow(link.b, SERVER | SERVER_NO_COOKIE | ALL_LISTENERS)


def send_with_syn(client: Peer) -> None:
    """Connects to PORT with data."""
    target = client.address, PORT
    assert client.sock.sendto(DATA, socket.MSG_FASTOPEN, target) == len(DATA)


def open_fast(client: Peer, listener: Peer) -> Connection:
    """A connection whose data has come, with its SYN or after it."""
    send_with_syn(client)
    connection = accept(listener, client)
    assert connection.server.sock.recv(100) == DATA
    return connection


@requirement(12, 13)
@pytest.mark.parametrize(("client", "server", "ends"), CASES)
def test_without_cookie(link: Link, client, server, ends):
    """The SYN's MAC covers its data. The kernel's own server takes it from there; ours does not."""
    without_cookies(link)
    listener = link.listen(server, ends, FIRST)
    connection = open_fast(link.client(client, ends, FIRST), listener)
    for _ in range(3):
        connection.exchange()
    connection.close()
    link.verify()
    (syn,), (answer,) = sent(link, link.a, OPENING), sent(link, link.b, ANSWER)
    assert syn.payload == DATA
    taken = len(DATA) if server == "native" else 0
    assert answer.ack == (syn.seq + 1 + taken) % (1 << 32)
    assert names(syn) == {"ao", "mss", "wscale", "timestamps", "sack-permitted"}
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(12, 13)
@pytest.mark.parametrize(("client", "server", "ends"), CASES)
def test_with_cookie(link: Link, client, server, ends):
    """Asking for a cookie fits beside all other options; the cookie itself not beside timestamps.

    A SYN that has no room for it has data all the same, which the server then does not take.
    """
    allow(link.a, CLIENT)
    allow(link.b, SERVER | ALL_LISTENERS)
    listener = link.listen(server, ends, FIRST)
    for timestamps, taken in ((1, False), (1, False), (0, server == "native")):
        link.a.namespace.write_sysctl("net/ipv4/tcp_timestamps", timestamps)
        opener = link.client(client, ends, FIRST)
        # Without a cookie the data goes when the connection is there.
        opener.sock.setblocking(True)
        connection = open_fast(opener, listener)
        connection.exchange()
        connection.close()
        link.verify()
        syn, answer = sent(link, link.a, OPENING)[-1], sent(link, link.b, ANSWER)[-1]
        assert (answer.ack == (syn.seq + 1 + len(DATA)) % (1 << 32)) == taken
    asking, without_room, with_cookie = sent(link, link.a, OPENING)
    giving = sent(link, link.b, ANSWER)[0]

    assert len(asking.option_bytes) == 40
    assert names(asking) == {
        *("ao", "mss", "wscale", "timestamps", "sack-permitted", "fast-open"),
    }
    assert [option.value for option in asking.named(FASTOPEN)] == [b""]
    (cookie,) = giving.named(FASTOPEN)
    assert len(cookie.value) == COOKIE_LENGTH
    assert (without_room.payload, names(without_room)) == (DATA, names(asking) - {"fast-open"})
    assert (with_cookie.payload, len(with_cookie.option_bytes)) == (DATA, 40)
    assert names(with_cookie) == names(asking) - {"timestamps"}
    assert with_cookie.named(FASTOPEN)[0].value == cookie.value
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(15)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_data_of_a_syn_ack_passes_2_to_the_32(link: Link, ends):
    """The stack counts no wrap there. What comes behind it has the next SNE."""
    allow(link.a, CLIENT | CLIENT_NO_COOKIE)
    client = link.client("ours", ends, FIRST)
    send_with_syn(client)
    wait_for("the SYN", lambda: sent(link, link.a, OPENING))
    (syn,) = sent(link, link.a, OPENING)
    forger = Forger(link, link.b, ends.wire, PORT, syn.sport)
    isn = (1 << 32) - 5
    answer = forger.tcp(
        seq=isn, ack=syn.seq + 1 + len(DATA), flags=ANSWER, payload=b"in the SYN-ACK"
    )
    forger.send(answer, forger.ao(FIRST, src_isn=isn))
    assert client.sock.recv(100) == b"in the SYN-ACK"
    forger.send(forger.tcp(payload=b"more"), forger.ao(FIRST, sne=1))
    assert client.sock.recv(100) == b"more"
    client.sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    assert abi.get_repair(client.sock).rcv_sne == 1
    client.sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
    link.verify()
    assert link.a.counters() == {}


TCP_REPAIR = 19


def half_open(link: Link, ends: Ends, listener: Peer) -> tuple[Forger, socket.socket]:
    """A socket that is in SYN-RECV and has data, of a client that only we play."""
    forger = Forger(link, link.a, ends.wire, 1024, PORT)
    syn = forger.tcp(seq=1000, flags=SYN, payload=DATA)
    forger.send(syn, forger.ao(FIRST, src_isn=1000))
    wait_for("a connection", lambda: listener.asked)
    accepted, _ = listener.sock.accept()
    accepted.settimeout(10)
    link.b.sockets.append(accepted)
    assert accepted.recv(100) == DATA
    return forger, accepted


@requirement(9)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_no_key_to_send_with(link: Link, ends):
    """No SYN, and the data is nowhere."""
    without_cookies(link)
    listener = link.listen("native", ends, FIRST)
    client = link.client("ours", ends)
    client.add(FIRST, abi.KEY_NOSEND)
    with pytest.raises(OSError, match="key not available") as caught:
        send_with_syn(client)
    assert caught.value.errno == errno.ENOKEY
    assert not link.audit().segments
    assert not listener.asked


@requirement(9)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_first_key_between_connect_and_send(link: Link, ends):
    """With TCP_FASTOPEN_CONNECT the SYN goes when there is data: then it is decided."""
    without_cookies(link)
    listener = link.listen("native", ends, FIRST)
    client = link.client("ours", ends)
    client.sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    client.sock.connect((client.address, PORT))
    assert not link.audit().segments
    client.add(FIRST)
    client.sock.send(DATA)
    connection = accept(listener, client)
    assert connection.server.sock.recv(100) == DATA
    connection.exchange()
    assert abi.get_authopt(client.sock).flags == abi.FLAG_ACTIVE
    link.verify()
    assert sent(link, link.a, OPENING)[0].payload == DATA


@requirement(21)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_stranger_between_connect_and_send(link: Link, ends):
    """With TCP_FASTOPEN_CONNECT he meets a socket that waits for an answer. send() gives up."""
    without_cookies(link)
    client = link.client("ours", ends)
    client.sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    client.sock.connect((client.address, PORT))
    forger = Forger(link, link.b, ends.wire, PORT, client.sock.getsockname()[1], unsigned=True)
    forger.send(forger.tcp(seq=5000, ack=0, flags=SYN))
    wait_for("it to cross", lambda: SYN_RECV in link.a.states())
    client.add(FIRST)
    client.sock.setblocking(False)  # it would wait for a socket that can be written to
    with pytest.raises(ConnectionAbortedError):
        client.sock.send(DATA)
    assert abi.get_authopt(client.sock).flags == 0
    report = link.audit(unsigned=True)
    assert DATA not in [record.segment.payload for record in report.records if record.segment]


SYN_RECV = "03"
TCP_FASTOPEN_CONNECT = 30


@requirement(23)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_signed_though_there_is_no_key(link: Link, ends):
    """Its data is taken, unverified and unprotected; or, with REJECT_UNEXPECTED, nothing is."""
    without_cookies(link)
    listener = link.listen("ours", ends)
    forger, accepted = half_open(link, ends, listener)
    answers = sent(link, link.b, ANSWER, unsigned=True)
    assert "ao" not in names(answers[0])
    assert abi.get_authopt(accepted) == (0, 0, 0, 0, 0)
    abi.set_authopt(listener.sock, abi.FLAG_REJECT_UNEXPECTED)
    forger = Forger(link, link.a, ends.wire, 1025, PORT)
    syn = forger.tcp(seq=1000, flags=SYN, payload=DATA)
    forger.send(syn, forger.ao(FIRST, src_isn=1000))
    wait_for("it to be refused", lambda: link.b.counters())
    assert not listener.asked
    link.verify(unsigned=True)


@requirement(26)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_unsigned_though_there_is_a_key(link: Link, ends):
    """Neither socket nor answer; and none that becomes protected."""
    without_cookies(link)
    listener = link.listen("ours", ends, FIRST)
    send_with_syn(link.client("plain", ends))
    wait_for("the SYN to be refused", lambda: link.b.counters() == {REQUIRED: 1})
    assert not listener.asked
    assert not sent(link, link.b, ANSWER, unsigned=True)


@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_timestamps(link: Link, ends):
    """What the client sends echoes what came last, from the SYN-ACK on."""
    link.without_sack()
    without_cookies(link)
    listener = link.listen("native", ends, FIRST)
    connection = open_fast(link.client("ours", ends, FIRST), listener)
    talk_in_turn(connection)
    link.verify()
    assert_echoes(link, [link.a])
