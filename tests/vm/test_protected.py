"""Which connections are protected: decided with the SYN, once, whatever comes after it.

In most of these tests one end is an attacker's program that speaks for a host of the cable, so that
each change falls between two given segments.
"""

import errno
import socket
from dataclasses import replace

import pytest

import abi
from clock import wait_for
from craft import ACK, SYN
from forge import Forger
from link import (
    BAD,
    FIRST,
    KEY_NOT_FOUND,
    PORT,
    REQUIRED,
    SECOND,
    V4,
    V6,
    Ends,
    Link,
    Peer,
)
from requirement import requirement
from tcp_authopt_verify.wire import OPTION_AO
from test_contract_repair import TCP_REPAIR
from test_reuse import is_protected
from test_selection import is_from
from test_socket_options import refused

pytestmark = [
    pytest.mark.ours,
    pytest.mark.usefixtures("quick"),
    pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"]),
]

OF_B = replace(SECOND, name="of B", secret=b"what makes B deaf")
SO_ERROR = socket.SOL_SOCKET, socket.SO_ERROR
B_ISN, A_ISN = 5000, 9000
TCP_ESTABLISHED, TCP_SYN_SENT = 1, 2


# --- connect() -----------------------------------------------------------------------------------


def called(link: Link, ends: Ends, client: Peer) -> Forger:
    """The client's SYN is sent, and B hears nothing of it: who speaks for it is this."""
    link.listen("ours", ends, OF_B)
    link.start(client)
    syn = wait_for("the SYN", lambda: link.audit(unsigned=True).segments)[0].segment
    return Forger(link, link.b, ends.wire, syn.dport, syn.sport, unsigned=not syn.named(OPTION_AO))


def answer(forger: Forger, key=None) -> None:
    """Sends the SYN-ACK, signed or not."""
    segment = forger.tcp(seq=B_ISN, flags=SYN | ACK)
    forger.send(segment, key and forger.ao(key, src_isn=B_ISN))


def is_connected(client: Peer) -> bool:
    """The SYN-ACK was taken. A SYN that could not be signed leaves an error, and no more."""
    (state,) = client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    assert state in (TCP_SYN_SENT, TCP_ESTABLISHED)
    return state == TCP_ESTABLISHED


def assert_goes_on_unsigned(link: Link, client: Peer) -> None:
    """What the client sends, and what it takes."""
    assert not is_protected(client)
    client.sock.send(b"for everybody to read")
    wait_for(
        "the data",
        lambda: any(
            r.segment.payload == b"for everybody to read"
            for r in link.audit(unsigned=True).unsigned
            if is_from(link.a, r)
        ),
    )
    signed = [r for r in link.report.segments if is_from(link.a, r) and r.keyid is not None]
    assert not signed


@requirement(9)
def test_asked_for_after_the_syn(link, ends):
    """There is a key, but the socket asks while it waits for the answer: too late."""
    client = link.client("plain", ends)
    link.client("ours", ends, FIRST)
    forger = called(link, ends, client)
    abi.set_authopt(client.sock)
    answer(forger)
    wait_for("the connection", lambda: is_connected(client))
    assert_goes_on_unsigned(link, client)


@requirement(9)
def test_asked_for_after_connect_and_after_accept(link, ends):
    """There is a key at both ends, and both ask: too late."""
    connection = link.connected("plain", "plain", ends)
    link.client("ours", ends, FIRST)
    link.listen("ours", ends, FIRST, port=1001)
    for peer in connection.peers:
        abi.set_authopt(peer.sock, abi.FLAG_LOCK_KEYID, send_keyid=FIRST.a_id)
        assert abi.get_authopt(peer.sock) == (abi.FLAG_LOCK_KEYID, 0, 0, 0, 0)
    connection.exchange()
    for peer in connection.peers:
        peer.role = link.client("ours", ends).role
        peer.delete(FIRST)
        peer.add(FIRST)
    connection.exchange()
    assert not any(is_protected(peer) for peer in connection.peers)
    connection.close()
    assert not link.verify(unsigned=True).signed


@requirement(9)
def test_key_comes_after_the_syn(link, ends):
    client = link.client("ours", ends)
    forger = called(link, ends, client)
    client.add(FIRST)
    answer(forger)
    wait_for("the connection", lambda: is_connected(client))
    assert_goes_on_unsigned(link, client)


@requirement(9)
def test_key_goes_after_the_syn(link, ends):
    """The connection that is to come is protected, and cannot come without the key."""
    client = link.client("ours", ends, FIRST)
    forger = called(link, ends, client)
    assert is_protected(client)
    client.delete(FIRST)
    for key, counted in ((None, {REQUIRED: 1}), (FIRST, {REQUIRED: 1, KEY_NOT_FOUND: 1})):
        answer(forger, key)
        wait_for("it to be refused", lambda counted=counted: link.a.counters() == counted)
        assert not is_connected(client)
        assert is_protected(client)
    client.add(FIRST)
    answer(forger, FIRST)
    wait_for("the connection", lambda: is_connected(client))
    assert is_protected(client)
    assert [r.reason for r in link.audit().bad] == ["no AO option"]


@requirement(5)
def test_key_is_replaced_after_the_syn(link, ends):
    """The answer to a SYN of the old one has to be of the new one."""
    renewed = replace(FIRST, name="renewed", secret=b"other bytes under the same ids")
    client = link.client("ours", ends, FIRST)
    forger = called(link, ends, client)
    client.add(renewed)
    answer(forger, FIRST)
    wait_for("the old one to be refused", lambda: link.a.counters() == {BAD: 1})
    assert not is_connected(client)
    answer(forger, renewed)
    wait_for("the connection", lambda: is_connected(client))

    def last() -> tuple[bool, str]:
        record = link.verify().signed[-1]
        return is_from(link.a, record), record.key.name

    wait_for("its ACK", lambda: last() == (True, "renewed"))


@requirement(9)
@pytest.mark.parametrize("key", ["before", "after", "never-valid"])
def test_connect_in_repair(link, ends, key):
    """There is no SYN: it is decided all the same."""
    client = link.client("ours", ends)
    if key == "before":
        client.add(FIRST)
    client.sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    if key == "never-valid":
        client.add(FIRST, abi.KEY_NOSEND)
        with refused(errno.ENOKEY):
            client.sock.connect((client.address, PORT))
        client.add(FIRST)
    client.sock.connect((client.address, PORT))
    if key == "after":
        client.add(FIRST)
    assert is_protected(client) == (key != "after")
    client.sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
    if key == "after":
        sent = wait_for("a probe", lambda: link.audit(unsigned=True).segments)[0]
        assert not sent.segment.named(OPTION_AO)
        return
    # Nobody has told between which ISNs it is: there is nothing to sign the probe with.
    so_error = socket.SOL_SOCKET, socket.SO_ERROR
    assert wait_for("the error", lambda: client.sock.getsockopt(*so_error)) == errno.ENOKEY
    assert not link.audit(unsigned=True).segments


# --- listen() ------------------------------------------------------------------------------------


def answered(link: Link, ends: Ends, key=None) -> Forger:
    """A's SYN, signed or not, is answered: who speaks for A is this."""
    link.know(*[key] * bool(key))
    forger = Forger(link, link.a, ends.wire, 1024, PORT, unsigned=key is None)
    syn = forger.tcp(seq=A_ISN, flags=SYN)
    forger.send(syn, key and forger.ao(key, src_isn=A_ISN))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))
    return forger


def accepted(listener: Peer) -> Peer:
    """The connection that waits to be accepted."""
    wait_for("a connection", lambda: listener.asked)
    return listener.accept()


@requirement(9)
@pytest.mark.parametrize("what", ["key", "request"])
def test_asked_for_before_the_syn(link, ends, what):
    """After listen(): what counts is the SYN."""
    listener = link.listen("plain" if what == "request" else "ours", ends)
    link.listen("ours", ends, FIRST, port=1001)
    if what == "request":
        abi.set_authopt(listener.sock)
    client = link.client("native", ends, FIRST)
    connection = link.connect(client, listener)
    connection.exchange()
    assert is_protected(connection.server)
    connection.close()
    link.verify()


@requirement(9)
@pytest.mark.parametrize("what", ["key", "request"])
def test_too_late_for_what_waits_to_be_accepted(link, ends, what):
    """The connection is there, though nobody has accepted it."""
    listener = link.listen("plain" if what == "request" else "ours", ends)
    client = link.client("plain", ends)
    client.sock.connect((client.address, PORT))
    wait_for("a connection", lambda: listener.asked)
    link.listen("ours", ends, FIRST, port=1001)
    if what == "request":
        abi.set_authopt(listener.sock)
    server = accepted(listener)
    if what == "request":
        with refused(errno.ENOENT):
            abi.get_authopt(server.sock)
    else:
        assert not is_protected(server)
    client.sock.send(b"unsigned")
    assert server.sock.recv(100) == b"unsigned"
    server.sock.send(b"as well")
    assert client.sock.recv(100) == b"as well"
    assert not link.verify(unsigned=True).signed


@requirement(17)
def test_key_goes_before_the_connection_is_accepted(link, ends):
    """It is protected, and mute, until there is a key."""
    listener = link.listen("ours", ends, FIRST)
    client = link.client("native", ends, FIRST)
    client.sock.connect((client.address, PORT))
    wait_for("a connection", lambda: listener.asked)
    listener.delete(FIRST)
    server = accepted(listener)
    assert is_protected(server)
    before = len(link.verify().records)
    server.sock.send(b"kept back")
    assert wait_for("the error", lambda: server.sock.getsockopt(*SO_ERROR)) == errno.ENOKEY
    assert not [r for r in link.verify().records[before:] if is_from(link.b, r)]
    listener.add(FIRST)
    assert client.sock.recv(100) == b"kept back"
    link.verify()


@requirement(9)
@pytest.mark.usefixtures("quick")
def test_key_goes_after_the_syn_is_answered(link, ends):
    """The handshake does not end without it, nor unsigned, and goes on where it was with it."""
    listener = link.listen("ours", ends, FIRST)
    forger = answered(link, ends, FIRST)
    unsigned, signed = [forger.frame(forger.tcp(), ao) for ao in (None, forger.ao(FIRST))]
    # When the SYN-ACK is due, and there is no key, the request is gone: two seconds after this.
    wait_for("the SYN-ACK to come again", lambda: len(forger.segments(link.b)) == 2)
    listener.delete(FIRST)
    link.a.inject(unsigned)
    link.a.inject(signed)
    refused = {BAD: 1, KEY_NOT_FOUND: 1}
    wait_for("both to be refused", lambda: link.b.counters() == refused)
    assert not listener.asked
    listener.add(FIRST)
    link.a.inject(signed)
    assert is_protected(accepted(listener))
    assert [r.reason for r in link.audit().bad] == ["no AO option"]


@requirement(9, 21)
@pytest.mark.parametrize("what", ["key", "request"])
def test_handshake_that_began_unsigned_is_refused(link, ends, what):
    """With its ACK, after the peer's first key. The next one is protected."""
    listener = link.listen("plain" if what == "request" else "ours", ends)
    forger = answered(link, ends)
    link.listen("ours", ends, FIRST, port=1001)
    if what == "request":
        abi.set_authopt(listener.sock)
    forger.send(forger.tcp())
    wait_for("it to be refused", lambda: link.b.counters() == {REQUIRED: 1})
    assert not listener.asked
    connection = link.connect(link.client("native", ends, FIRST), listener)
    connection.exchange()
    assert is_protected(connection.server)
    link.verify(unsigned=True)
