"""Policies: connections that are protected though nobody asked."""

import errno
import socket
import time

import pytest

import abi
from clock import wait_for
from handshake import ANSWER, sent
from link import (
    FIRST,
    KEY_NOT_FOUND,
    MAPPED_CLIENT,
    MAPPED_SERVER,
    PORT,
    REQUIRED,
    ROLES,
    V4,
    V6,
    Ends,
    Host,
    Link,
    Ours,
    Peer,
)
from test_icmp import DROPPED, PORT_UNREACHABLE, send_error
from test_reuse import add_addresses, disconnect
from test_socket_options import refused
from test_unload import BUSY, idle

__all__ = ["idle"]

pytestmark = [pytest.mark.ours, pytest.mark.usefixtures("quick")]

ENDS = [
    pytest.param(V4, id="v4"),
    pytest.param(V6, id="v6"),
    pytest.param(MAPPED_CLIENT, id="mapped-client"),
    pytest.param(MAPPED_SERVER, id="mapped-server"),
]


def family_of(ends: Ends) -> socket.AddressFamily:
    """That of what is on the wire."""
    return socket.AF_INET if ends.wire == "v4" else socket.AF_INET6


def set_policy(host: Host, ends: Ends, flags: int = abi.KEY_REQUIRE, **criteria: object) -> None:
    """With the other host, unless the criteria say more."""
    abi.set_key(host.control(family_of(ends)), abi.pack_policy(flags, **criteria))


def require(host: Host, other: Host, ends: Ends, flags: int = 0, **more: object) -> None:
    """Requires protection with the other host."""
    criteria = {"address": other.addresses[ends.wire]} | more
    set_policy(host, ends, abi.KEY_REQUIRE | flags, **criteria)


def give_key(link: Link, host: Host, other: Host, ends: Ends, key=FIRST, flags: int = 0) -> None:
    """A key of the namespace; the socket that adds it is none of the connection."""
    if not flags & abi.KEY_DEL:
        link.know(key)
    control = host.control(family_of(ends))
    abi.set_key(control, Ours.pack(host, other.addresses[ends.wire], key, flags))


def is_active(sock: socket.socket) -> bool:
    """Whether the connection is protected: a socket that never asked has no state otherwise."""
    try:
        return bool(abi.get_authopt(sock).flags & abi.FLAG_ACTIVE)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("peer", ["native", "ours"])
@pytest.mark.parametrize("ends", ENDS)
def test_listener(link: Link, ends, peer, when):
    """The listener never asked, and is older or younger than the policy."""
    if when == "before":
        listener = link.listen("plain", ends)
    give_key(link, link.b, link.a, ends)
    require(link.b, link.a, ends)
    if when == "after":
        listener = link.listen("plain", ends)
    connection = link.connect(link.client(peer, ends, FIRST), listener)
    connection.exchange(bytes(5000), bytes(70000))
    assert is_active(connection.server.sock)
    assert abi.get_authopt(connection.server.sock) == (
        abi.FLAG_ACTIVE,
        FIRST.b_id,
        FIRST.a_id,
        FIRST.a_id,
        FIRST.b_id,
    )
    with refused(errno.ENOENT):
        abi.get_authopt(listener.sock)
    connection.close()
    link.verify()


@pytest.mark.parametrize("peer", ["native", "ours"])
@pytest.mark.parametrize("ends", ENDS)
def test_connect(link: Link, ends, peer):
    """The connecting socket never asked."""
    give_key(link, link.a, link.b, ends)
    require(link.a, link.b, ends)
    connection = link.connect(link.client("plain", ends), link.listen(peer, ends, FIRST))
    connection.exchange(bytes(70000), bytes(5000))
    assert is_active(connection.client.sock)
    connection.close()
    link.verify()


@pytest.mark.parametrize("ends", ENDS)
def test_both_ends(link: Link, ends):
    for host, other in ((link.a, link.b), (link.b, link.a)):
        give_key(link, host, other, ends)
        require(host, other, ends)
    connection = link.connect(link.client("plain", ends), link.listen("plain", ends))
    connection.exchange()
    assert is_active(connection.client.sock)
    assert is_active(connection.server.sock)
    connection.close()
    link.verify()


@pytest.mark.parametrize("keyed", [False, True], ids=["no-key", "keyed"])
@pytest.mark.parametrize("ends", ENDS)
def test_unsigned_syn(link: Link, ends, keyed):
    """It is not answered, and counted; the program hears nothing of it."""
    listener = link.listen("plain", ends)
    if keyed:
        give_key(link, link.b, link.a, ends)
    require(link.b, link.a, ends)
    client = link.client("plain", ends)
    link.start(client)
    wait_for("it to be refused", lambda: link.b.counters() == {REQUIRED: 1})
    assert client.pending
    assert not listener.asked
    assert len(link.audit(unsigned=True).segments) == 1

    # The same without the policy.
    set_policy(link.b, ends, abi.KEY_REQUIRE | abi.KEY_DEL, address=link.a.addresses[ends.wire])
    connection = link.connect(link.client("plain", ends), listener)
    connection.exchange()
    assert not is_active(connection.server.sock)
    link.audit(unsigned=True)


@pytest.mark.parametrize("ends", ENDS)
def test_connect_without_a_key(link: Link, ends):
    """Nothing is sent, and the socket is as it was: it connects to others."""
    require(link.a, link.b, ends)
    listener = link.listen("plain", ends)
    client = link.client("plain", ends)
    with refused(errno.ENOKEY):
        client.sock.connect((client.address, PORT))
    with refused(errno.ENOENT):
        abi.get_authopt(client.sock)
    assert not link.audit(unsigned=True).segments
    set_policy(link.a, ends, abi.KEY_EXEMPT, address=link.b.addresses[ends.wire])
    connection = link.connect(client, listener)
    connection.exchange()
    assert not is_active(client.sock)
    link.audit(unsigned=True)


# --- which policy --------------------------------------------------------------------------------


def protected(link: Link, ends: Ends, client: str = "native", port: int = PORT) -> bool:
    """Whether a connection to a new listener of B is."""
    listener = link.listen("plain", ends, port=port)
    connection = link.connect(
        link.client(client, ends, *([FIRST] if client != "plain" else [])), listener
    )
    connection.exchange()
    listener.sock.close()
    return is_active(connection.server.sock)


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_most_specific_one(link: Link, ends):
    """An exempted peer of a prefix, a port that is required of an exempted peer, and back again."""
    give_key(link, link.b, link.a, ends)
    net = {"v4": ("192.0.2.0", 24), "v6": ("2001:db8::", 64)}[ends.wire]
    peer = link.a.addresses[ends.wire]
    set_policy(link.b, ends, address=net[0], prefixlen=net[1])
    assert protected(link, ends)
    set_policy(link.b, ends, abi.KEY_EXEMPT, address=peer)
    assert not protected(link, ends, "plain", 1001)
    set_policy(link.b, ends, address=peer, port=1002)
    assert protected(link, ends, port=1002)
    assert not protected(link, ends, "plain", 1003)
    # The same criteria are the same policy.
    set_policy(link.b, ends, abi.KEY_EXEMPT, address=peer, port=1002)
    assert not protected(link, ends, "plain", 1002)
    set_policy(link.b, ends, abi.KEY_EXEMPT | abi.KEY_DEL, address=peer)
    assert protected(link, ends, port=1004)
    link.audit(unsigned=True)


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_exempt_says_nothing_to_who_asks(link: Link, ends):
    set_policy(link.b, ends, abi.KEY_EXEMPT, address=link.a.addresses[ends.wire])
    link.connected("native", "ours", ends).exchange()
    link.verify()


@pytest.mark.parametrize("ends", [V4, V6, MAPPED_SERVER], ids=["v4", "v6", "mapped"])
def test_of_a_local_address(link: Link, ends):
    """Only what comes to that address has to be signed."""
    give_key(link, link.b, link.a, ends)
    (other,) = add_addresses(link, ends, 22)
    set_policy(link.b, ends, local=link.b.addresses[ends.wire])
    sock = link.b.tcp_socket(ends.server)
    listener = Peer(link, link.b, ROLES["plain"], sock, link.a.address(ends.wire, ends.server))
    sock.bind(("", PORT))
    sock.listen()
    stranger = link.client("plain", ends)
    link.start(stranger)
    wait_for("it to be refused", lambda: link.b.counters() == {REQUIRED: 1})
    client = link.client("plain", ends)
    client.address = other
    link.connect(client, listener).exchange()
    connection = link.connect(link.client("native", ends, FIRST), listener)
    connection.exchange()
    assert is_active(connection.server.sock)
    link.audit(unsigned=True)


@pytest.mark.parametrize("role", ["plain", "ours"])
@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_exempt_local_address(link: Link, ends, role):
    """A listener on all addresses knows only of its segments to which one they come."""
    (other,) = add_addresses(link, ends, 22)
    peer = link.a.addresses[ends.wire]
    set_policy(link.b, ends, address=peer)
    set_policy(link.b, ends, abi.KEY_EXEMPT, address=peer, local=other)
    sock = link.b.tcp_socket(ends.server)
    listener = Peer(link, link.b, ROLES[role], sock, link.a.address(ends.wire, ends.server))
    listener.role.protect(sock)
    sock.bind(("", PORT))
    sock.listen()
    client = link.client("plain", ends)
    client.address = other
    link.connect(client, listener).exchange()
    link.start(link.client("plain", ends))
    wait_for("it to be refused", lambda: link.b.counters() == {REQUIRED: 1})
    assert not listener.asked
    link.audit(unsigned=True)


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_who_asks_and_has_no_key(link: Link, ends):
    """What a policy requires it requires of a socket that asked, too."""
    listener = link.listen("ours", ends)
    require(link.b, link.a, ends)
    link.start(link.client("plain", ends))
    wait_for("it to be refused", lambda: link.b.counters() == {REQUIRED: 1})
    assert not listener.asked
    require(link.a, link.b, ends)
    client = link.client("ours", ends)
    with refused(errno.ENOKEY):
        client.sock.connect((client.address, PORT))
    assert len(link.audit(unsigned=True).segments) == 1


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_signed_and_not_required(link: Link, ends):
    """To a listener that never asked the kernel's rule goes on: it is dropped, and counted."""
    link.listen("plain", ends)
    for count in (1, 2):
        client = link.client("native", ends, FIRST)
        link.start(client)
        wait_for("it to be refused", lambda n=count: link.b.counters() == {KEY_NOT_FOUND: n})
        client.sock.close()
        give_key(link, link.b, link.a, ends)
        require(link.b, link.a, ends, port=1)
    assert not sent(link, link.b, ANSWER)


# --- beside the kernel's own TCP-AO, and MD5 -----------------------------------------------------


@pytest.mark.parametrize("strict", [False, True], ids=["mild", "strict"])
@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_native_listener(link: Link, ends, strict):
    """What the kernel signs is signed; it is not ours, and with STRICT that does not do."""
    listener = link.listen("native", ends, FIRST)
    require(link.b, link.a, ends, abi.KEY_STRICT if strict else 0)
    if strict:
        client = link.client("native", ends, FIRST)
        link.start(client)
        wait_for("it to be refused", lambda: link.b.counters() == {REQUIRED: 1})
        assert client.pending
        assert not listener.asked
    else:
        connection = link.connect(link.client("native", ends, FIRST), listener)
        connection.exchange()
        connection.close()
    link.verify()


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_native_listener_without_a_key_for_the_peer(link: Link, ends):
    """To the kernel it is one without TCP-AO, to the policy it is not."""
    listener = link.listen("native", ends)
    abi.native_add_key(
        listener.sock,
        {"v4": "192.0.2.99", "v6": "2001:db8::99"}[ends.wire],
        {"v4": 32, "v6": 128}[ends.wire],
        1,
        2,
        FIRST.algorithm.native,
        FIRST.secret,
    )
    link.connect(link.client("plain", ends), listener).exchange()
    require(link.b, link.a, ends)
    link.start(link.client("plain", ends))
    wait_for("it to be refused", lambda: link.b.counters() == {REQUIRED: 1})
    assert not listener.asked
    link.audit(unsigned=True)


@pytest.mark.parametrize("strict", [False, True], ids=["mild", "strict"])
@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_native_connect(link: Link, ends, strict):
    require(link.a, link.b, ends, abi.KEY_STRICT if strict else 0)
    listener = link.listen("native", ends, FIRST)
    client = link.client("native", ends, FIRST)
    if strict:
        with refused(errno.EKEYREJECTED):
            client.sock.connect((client.address, PORT))
        assert not link.audit().segments
    else:
        link.connect(client, listener).exchange()
        link.verify()


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_native_connect_by_md5(link: Link, ends):
    """The kernel gives up its TCP-AO for a peer of which it has an MD5 key only."""
    require(link.a, link.b, ends)
    link.listen("plain", ends)
    client = link.client("plain", ends)
    stranger = {"v4": "192.0.2.99", "v6": "2001:db8::99"}[ends.wire]
    prefix = {"v4": 32, "v6": 128}[ends.wire]
    abi.native_add_key(client.sock, stranger, prefix, 1, 2, FIRST.algorithm.native, b"x")
    abi.set_md5(client.sock, client.address, b"md5")
    with refused(errno.EKEYREJECTED):
        client.sock.connect((client.address, PORT))
    assert not link.audit(unsigned=True).segments


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_md5_does_not_do(link: Link, ends):
    """Neither to a listener, nor for who connects; with a key it is TCP-AO that signs."""
    listener = link.listen("plain", ends)
    abi.set_md5(listener.sock, link.a.address(ends.wire, ends.server), b"md5")
    require(link.b, link.a, ends)
    client = link.client("plain", ends)
    abi.set_md5(client.sock, client.address, b"md5")
    link.start(client)
    wait_for("it to be refused", lambda: link.b.counters() == {REQUIRED: 1})
    assert not listener.asked

    for host, other in ((link.a, link.b), (link.b, link.a)):
        give_key(link, host, other, ends)
    require(link.a, link.b, ends)
    client = link.client("plain", ends)
    abi.set_md5(client.sock, client.address, b"md5")
    connection = link.connect(client, listener)
    connection.exchange()
    assert is_active(client.sock)
    assert is_active(connection.server.sock)
    link.audit(unsigned=True)


# --- the sockets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_options_of_a_protected_socket(link: Link, ends):
    """They are those of one that asked; but a connection that is over has never been."""
    for host, other in ((link.a, link.b), (link.b, link.a)):
        give_key(link, host, other, ends)
        require(host, other, ends)
    connection = link.connect(link.client("plain", ends), link.listen("plain", ends))
    connection.exchange()
    client = connection.client.sock
    abi.set_authopt(client, abi.FLAG_LOCK_RNEXTKEYID, 0, FIRST.b_id)
    assert abi.get_authopt(client).flags == abi.FLAG_ACTIVE | abi.FLAG_LOCK_RNEXTKEYID
    connection.exchange()
    server = connection.server.sock
    with refused(errno.EBUSY, errno.EINVAL, errno.EKEYREJECTED):
        abi.native_add_key(
            server,
            connection.server.address,
            {"v4": 32, "v6": 128}[ends.wire],
            1,
            2,
            FIRST.algorithm.native,
            b"x",
        )
    link.verify()


@pytest.mark.parametrize("what", ["get", "native", "listen", "connect", "ask"])
@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_socket_after_its_connection(link: Link, ends, what):
    """It is as if it had never been protected, whatever it is used for next."""
    give_key(link, link.a, link.b, ends)
    require(link.a, link.b, ends)
    client = link.client("plain", ends)
    link.start(client)
    disconnect(client.sock)
    client.sock.settimeout(5)
    prefix = {"v4": 32, "v6": 128}[ends.wire]
    if what == "get":
        with refused(errno.ENOENT):
            abi.get_authopt(client.sock)
    elif what == "native":
        abi.native_add_key(
            client.sock, client.address, prefix, *link.a.ids(FIRST), "hmac(sha1)", FIRST.secret
        )
        link.connect(client, link.listen("native", ends, FIRST)).exchange()
    elif what == "listen":
        client.sock.listen()
        port = client.sock.getsockname()[1]
        far = link.b.tcp_socket(ends.server)
        set_policy(link.a, ends, abi.KEY_REQUIRE | abi.KEY_DEL, address=link.b.addresses[ends.wire])
        far.connect((link.a.address(ends.wire, ends.server), port))
        accepted, _ = client.sock.accept()
        link.a.sockets.append(accepted)
        assert not is_active(accepted)
    elif what == "connect":
        set_policy(link.a, ends, abi.KEY_EXEMPT, address=link.b.addresses[ends.wire])
        link.connect(client, link.listen("plain", ends)).exchange()
        assert not is_active(client.sock)
    else:
        abi.set_authopt(client.sock)
        link.connect(client, link.listen("native", ends, FIRST)).exchange()
        assert is_active(client.sock)
    link.audit(unsigned=True)


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_key_that_comes_back(link: Link, ends):
    """A key that is deleted and added again ends no session of a program that never asked."""
    give_key(link, link.a, link.b, ends)
    require(link.a, link.b, ends)
    connection = link.connect(link.client("plain", ends), link.listen("native", ends, FIRST))
    connection.exchange()
    give_key(link, link.a, link.b, ends, flags=abi.KEY_DEL)
    connection.client.sock.send(b"kept back")
    time.sleep(1)
    give_key(link, link.a, link.b, ends)
    assert connection.server.sock.recv(100) == b"kept back"
    assert connection.client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    connection.exchange()
    link.verify()


@pytest.mark.parametrize("accept", [False, True], ids=["default", "accept"])
@pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])
@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_icmp(link: Link, ends, active, accept):
    """ACCEPT_ICMP of the policy is for its connections, and reads back as nothing of theirs."""
    near, far = (link.a, link.b) if active else (link.b, link.a)
    give_key(link, near, far, ends)
    require(near, far, ends, abi.KEY_ACCEPT_ICMP if accept else 0)
    if active:
        listener = link.listen("native", ends, FIRST)
        connection = link.connect(link.client("plain", ends), listener)
    else:
        listener = link.listen("plain", ends)
        connection = link.connect(link.client("native", ends, FIRST), listener)
    connection.exchange()
    victim = connection.client if active else connection.server
    assert abi.get_authopt(victim.sock).flags == abi.FLAG_ACTIVE
    level, option = (0, 11) if ends is V4 else (41, 25)  # IP_RECVERR, IPV6_RECVERR
    victim.sock.setsockopt(level, option, 1)
    ports = victim.sock.getsockname()[1], victim.sock.getpeername()[1]
    before = victim.host.namespace.counters()[DROPPED]
    send_error(link, ends, victim, PORT_UNREACHABLE[ends.wire], ports)
    if accept:
        wait_for("the error", lambda: error_of(victim.sock) == errno.ECONNREFUSED)
    else:
        dropped = victim.host.namespace.counters
        wait_for("it to be ignored", lambda: dropped()[DROPPED] == before + 1)
        assert error_of(victim.sock) == 0
    link.verify()


def error_of(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


# --- the module ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [V4], ids=["v4"])
@pytest.mark.usefixtures("idle")
def test_policy_holds_the_module(link: Link, module, ends):
    """A namespace that requires something does; one that exempts does not."""
    set_policy(link.b, ends, abi.KEY_EXEMPT)
    link.b.control(family_of(ends)).close()
    del link.b._control[family_of(ends)]
    wait_for("the module to be unused", lambda: module.users == 0, 20)
    require(link.b, link.a, ends)
    assert module.users == 1
    assert BUSY.search(module.unload())
    require(link.b, link.a, ends, port=1)
    assert module.users == 1
    peer = link.a.addresses[ends.wire]
    for criteria in ({"address": peer}, {"address": peer, "port": 1}):
        assert module.users == 1
        set_policy(link.b, ends, abi.KEY_REQUIRE | abi.KEY_DEL, **criteria)
    assert module.users == 0
    set_policy(link.b, ends, abi.KEY_EXEMPT | abi.KEY_DEL)
    link.audit()
