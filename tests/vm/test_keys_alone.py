"""Programs that set keys and never TCP_AUTHOPT, as those of the patch series do.

An add gives its socket the state that TCP_AUTHOPT with all zeros would give it, or changes nothing.
"""

import errno
import socket
from contextlib import nullcontext

import pytest

import abi
from abi import pack_key
from clock import wait_for
from link import (
    FIRST,
    MAPPED_CLIENT,
    MAPPED_SERVER,
    REQUIRED,
    V4,
    V6,
    Link,
    Ours,
    Peer,
)
from requirement import requirement
from test_reuse import disconnect, is_protected
from test_socket_options import refused, rows, unprivileged

pytestmark = pytest.mark.ours

NOTHING_YET = abi.Authopt(0, 0, 0, 0, 0)
PEER, ANOTHER = "192.0.2.1", "192.0.2.2"
ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]
ALL_ENDS = [
    *ENDS,
    pytest.param(MAPPED_CLIENT, id="v4-mapped-client"),
    pytest.param(MAPPED_SERVER, id="v4-mapped-server"),
]
PAIRS = [
    pytest.param("keys", "keys", id="keys-keys"),
    pytest.param("keys", "native", id="keys-native"),
    pytest.param("native", "keys", id="native-keys"),
    pytest.param("keys", "ours", id="keys-ours"),
]


def give(peer: Peer) -> None:
    """Sets the key on the end's socket, whatever its role."""
    peer.link.know(FIRST)
    abi.set_key(peer.sock, Ours.pack(peer.host, peer.address, FIRST))


def has_none(sock: socket.socket) -> bool:
    """The socket carries no state; asking never gives it any."""
    with refused(errno.ENOENT):
        abi.get_authopt(sock)
    return True


@requirement(9)
@pytest.mark.parametrize("ends", ALL_ENDS)
@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_protected(link, client, server, ends):
    """From the SYN on, at either end; what is accepted inherits it."""
    connection = link.connected(client, server, ends)
    connection.exchange()
    for peer, role in zip(connection.peers, (client, server), strict=True):
        if role != "native":
            assert is_protected(peer)
    connection.close()
    assert link.verify().signed
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(9)
@pytest.mark.parametrize("ends", ENDS)
def test_listener_takes_nothing_unsigned(link, ends):
    """Of the peer that it has set a key for."""
    listener = link.listen("keys", ends, FIRST)
    stranger = link.client("plain", ends)
    link.start(stranger)
    wait_for("the SYN to be refused", lambda: link.b.counters().get(REQUIRED))
    assert stranger.pending
    assert not listener.asked
    assert not link.audit(unsigned=True).signed


@requirement(9)
@pytest.mark.parametrize("ends", ENDS)
def test_key_for_a_listener_that_listens(link, ends):
    """From the next SYN on."""
    listener = link.listen("plain", ends)
    before = link.connect(link.client("plain", ends), listener)
    before.exchange()
    link.client("keys", ends, FIRST)
    give(listener)
    connection = link.connect(link.client("ours", ends), listener)
    connection.exchange()
    assert is_protected(connection.server)
    assert has_none(before.server.sock)
    before.exchange()
    connection.close()
    link.verify(unsigned=True)


@requirement(9)
@pytest.mark.parametrize("ends", ENDS)
def test_too_late_for_a_connection(link, ends):
    """It goes on unsigned; the next one of its socket is protected."""
    connection = link.connected("plain", "plain", ends)
    for peer in connection.peers:
        give(peer)
        assert abi.get_authopt(peer.sock) == NOTHING_YET
    connection.exchange()
    connection.server.sock.close()
    disconnect(connection.client.sock)
    assert not link.verify(unsigned=True).signed

    listener = link.listen("ours", ends, port=1001)
    link.connect(connection.client, listener).exchange()
    assert is_protected(connection.client)
    assert link.verify(unsigned=True).signed


@pytest.mark.parametrize("there", [False, True], ids=["add", "replace"])
def test_state_is_that_of_zeros(sock, there):
    if there:
        with socket.socket() as other:
            abi.set_key(other, pack_key(1, 2, address=PEER))
    assert has_none(sock)
    abi.set_key(sock, pack_key(1, 2, address=PEER, secret=b"new bytes"))
    assert abi.get_authopt(sock) == NOTHING_YET
    assert len(rows()) == 1


def test_state_that_is_there_stays(sock):
    """Flags and locks are as TCP_AUTHOPT has set them."""
    abi.set_authopt(sock, abi.FLAG_LOCK_KEYID | abi.FLAG_REJECT_UNEXPECTED, send_keyid=7)
    before = abi.get_authopt(sock)
    abi.set_key(sock, pack_key(1, 2))
    assert abi.get_authopt(sock).flags == before.flags


@pytest.mark.usefixtures("quick")
def test_delete_gives_none(sock):
    with socket.socket() as other:
        abi.set_key(other, pack_key(1, 2))
    abi.set_key(sock, pack_key(1, 2, flags=abi.KEY_DEL))
    assert has_none(sock)
    with refused(errno.ENOENT):
        abi.set_key(sock, pack_key(1, 2, flags=abi.KEY_DEL))
    assert has_none(sock)


# ---- refused ----


def unconnected(link: Link) -> socket.socket:
    """A socket that nothing was done with."""
    return link.a.tcp_socket(socket.AF_INET)


def listening(link: Link) -> socket.socket:
    """A listener."""
    sock = link.a.tcp_socket(socket.AF_INET)
    sock.listen()
    return sock


def connected(link: Link) -> socket.socket:
    """One end of an unsigned connection."""
    return link.connected("plain", "plain").client.sock


REFUSED = {
    "unknown-algorithm": (pack_key(3, 4, alg=9), errno.EINVAL),
    "other-family": (pack_key(3, 4, address="2001:db8::1"), errno.EINVAL),
    "too-long": (pack_key(3, 4).ljust(abi.AUTHOPT_KEY.size, b"\0") + b"!", errno.EINVAL),
    "overlap": (pack_key(1, 4), errno.EEXIST),
    "too-many": (pack_key(5, 6, address=ANOTHER), errno.ENOSPC),
    "no-privilege": (pack_key(3, 4), errno.EPERM),
}
"""An add beside the key that is there, and what it is answered."""


@pytest.mark.parametrize("why", REFUSED)
@pytest.mark.parametrize("what", [unconnected, listening, connected], ids=lambda it: it.__name__)
def test_refused_add_changes_nothing(link, module, what, why):
    """Neither keys nor the socket; and nothing holds the module that did not before."""
    value, answer = REFUSED[why]
    sock = what(link)
    link.audit(unsigned=True)
    with link.a.namespace.entered(), socket.socket() as other:
        abi.set_key(other, pack_key(1, 2))
        before, users = rows(), module.users
        if why == "too-many":
            link.a.namespace.write_sysctl("net/ipv4/tcp_authopt_max_keys", 1)
        with refused(answer), unprivileged() if why == "no-privilege" else nullcontext():
            abi.set_key(sock, value)
        assert (rows(), module.users) == (before, users)
        assert has_none(sock)
        # What is refused is so for the key's sake: the next one is taken.
        abi.set_key(sock, pack_key(1, 2, flags=abi.KEY_NOSEND))
        assert abi.get_authopt(sock) == NOTHING_YET
        assert module.users == users + (what is not connected)
