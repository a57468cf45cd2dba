"""Keys by the address of this end and by a port, on the wire."""

import socket
from dataclasses import replace

import pytest

import abi
from clock import wait_for
from link import FIRST, MAPPED_SERVER, ROLES, V4, V6, Ends, Link, Mkt, Peer
from requirement import requirement
from tcp_authopt_verify import Key
from test_reuse import add_addresses, is_protected
from test_selection import give

pytestmark = [
    pytest.mark.ours,
    pytest.mark.usefixtures("quick"),
    pytest.mark.parametrize("ends", [V4, V6, MAPPED_SERVER], ids=["v4", "v6", "mapped"]),
]

OTHER = replace(FIRST, name="other", secret=b"of the other address or port")
"""Of the same ids."""


def listen(link: Link, ends: Ends, port: int) -> Peer:
    """On all addresses of B."""
    sock = link.b.tcp_socket(ends.server)
    peer = Peer(link, link.b, ROLES["ours"], sock, link.a.address(ends.wire, ends.server))
    abi.set_authopt(sock)
    sock.bind(("", port))
    sock.listen()
    return peer


def connect(link: Link, ends: Ends, role: str, listener: Peer, address: str, key: Mkt | None):
    """From A, with this key or none."""
    client = link.client(role, ends)
    if key:
        client.role.add(link.a, client.sock, address, key, 0)
    client.address = address
    return link.connect(client, listener)


def of_address(link: Link, ends: Ends, key: Mkt, address: str) -> Key:
    """The key, for the verifier, between A and this address of B."""
    near = link.a.addresses[ends.wire]
    return Key(key.name, near, address, key.a_id, key.b_id, "hmac-sha-1-96", key.secret)


def written(address: str, family: socket.AddressFamily) -> str:
    """The address, as a socket of this family writes it."""
    mapped = ":" not in address and family == socket.AF_INET6
    return f"::ffff:{address}" if mapped else address


@requirement(9)
def test_local_address(link, ends):
    """Two addresses of one host have a key each for the same peer; a third has none."""
    first = link.b.addresses[ends.wire]
    second, third = add_addresses(link, ends, 22, 23)
    listener = listen(link, ends, 1000)
    for key, address in ((FIRST, first), (OTHER, second)):
        local = written(address, ends.server)
        give(listener, key, address=listener.address, local=local)
        link.third_party.append(of_address(link, ends, key, address))
    link.known.clear()
    for key, address in ((FIRST, first), (OTHER, second)):
        connection = connect(link, ends, "native", listener, address, key)
        connection.exchange()
        assert is_protected(connection.server)
    plain = connect(link, ends, "plain", listener, third, None)
    assert not is_protected(plain.server)

    # An unsigned SYN of the peer is for the keys of the address that it comes to.
    stranger = link.client("plain", ends)
    stranger.sock.setblocking(False)
    stranger.sock.connect_ex((second, 1000))
    wait_for("it to be refused", lambda: link.b.counters())
    assert stranger.pending
    assert not listener.asked
    keys = {record.key.name for record in link.audit(unsigned=True).signed}
    assert keys == {FIRST.name, OTHER.name}


@requirement(9)
def test_longer_local_prefix_is_more_specific(link, ends):
    """Of keys that differ in it only, with the same ids."""
    address = link.b.addresses[ends.wire]
    listener = listen(link, ends, 1000)
    local = written(address, ends.server)
    length = {"v4": 24, "v6": 64}[ends.wire] + (96 if local != address else 0)
    net = local.rsplit(":" if ends.wire == "v6" else ".", 1)[0]
    net += (
        "::" if ends.wire == "v6" and not net.endswith(":") else ".0" if ends.wire == "v4" else ":"
    )
    give(listener, FIRST, address=listener.address, local=local)
    give(listener, OTHER, address=listener.address, local=net, local_prefixlen=length)
    connect(link, ends, "native", listener, address, FIRST).exchange()
    give(listener, FIRST, abi.KEY_DEL, address=listener.address, local=local)
    connect(link, ends, "native", listener, address, OTHER).exchange()
    keys = {record.key.name for record in link.verify().signed}
    assert keys == {FIRST.name, OTHER.name}


@requirement(9)
@pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])
def test_service_port(link, ends, active):
    """A key for a port is for whoever connects, and for no other port."""
    near, far = (link.b, link.a) if active else (link.a, link.b)
    family = {"v4": V4, "v6": V6}[ends.wire].client
    # The end whose keys know the port is B, which connects or listens.
    control = link.b.control(family)
    peer = Peer(link, link.b, ROLES["ours"], control, link.a.address(ends.wire, family))
    give(peer, FIRST, address=peer.address, port=1000)
    give(peer, OTHER, address=peer.address, port=1001)
    for port, key in ((1000, FIRST), (1001, OTHER), (1002, None)):
        server = far.tcp_socket(family)
        client = near.tcp_socket(family)
        for sock, host, other in ((server, far, near), (client, near, far)):
            if host is link.b:
                abi.set_authopt(sock)
            elif key:
                address = other.address(ends.wire, family)
                ROLES["native"].add(host, sock, address, key, 0)
        server.bind((far.address(ends.wire, family), port))
        server.listen()
        client.connect(server.getsockname()[:2])
        accepted, _ = server.accept()
        far.sockets.append(accepted)
        accepted.send(b"ping")
        assert client.recv(10) == b"ping"
        ours = client if active else accepted
        assert bool(abi.get_authopt(ours).flags & abi.FLAG_ACTIVE) == (key is not None)
    keys = {record.key.name for record in link.audit(unsigned=True).signed}
    assert keys == {FIRST.name, OTHER.name}
    assert not link.report.bad
