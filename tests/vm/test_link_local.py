"""Peers with link-local addresses, as of BGP on links that have no others, also in a VRF."""

import socket
from dataclasses import replace

import pytest

from clock import wait_for
from conftest import PAIRS, ROLES
from link import BAD, FIRST, REQUIRED, V6, Host, Link, Mkt, Peer, Vrf
from requirement import requirement
from test_reuse import is_protected
from test_selection import give


class Neighbour(Host):
    """A host whose sockets are bound to its interface: without one such an address is none."""

    def __init__(self, name: str, number: int, vrf: Vrf | None) -> None:
        super().__init__(name, number, vrf=vrf)
        self.addresses["v6"] = f"fe80::{number}"
        self.device = self.interface


@pytest.fixture(params=[None, Vrf("red", 100)], ids=["main", "vrf"])
def vrf(request):
    return request.param


@pytest.fixture
def topology(vrf):
    return lambda: Link(Neighbour("A", 1, vrf), Neighbour("B", 2, vrf))


def listen_here(link: Link, role: str, *keys: Mkt) -> Peer:
    """A listener for the interface."""
    return link.listen(role, V6, *keys)


def listen_everywhere(link: Link, role: str, *keys: Mkt) -> Peer:
    """A listener for all interfaces and VRFs."""
    link.b.namespace.write_sysctl("net/ipv4/tcp_l3mdev_accept", 1)
    listener = link.listen(role, V6, *keys)
    listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"")
    return listener


LISTENERS = [
    pytest.param(listen_here, id="bound"),
    pytest.param(listen_everywhere, id="unbound"),
]


@requirement(9)
@pytest.mark.parametrize("listen", LISTENERS)
@pytest.mark.parametrize(("client", "server"), PAIRS)
def test_connection(link, client, server, listen):
    listener = listen(link, server, FIRST)
    connection = link.connect(link.client(client, V6, FIRST), listener)
    connection.exchange()
    for role, peer in zip((client, server), connection.peers, strict=True):
        assert role == "native" or is_protected(peer)
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


def index_of(host: Host) -> int:
    """What IFINDEX is to be for a key of where the host is."""
    with host.namespace.entered():
        return socket.if_nametoindex(host.vrf.name) if host.vrf else 0


@requirement(9)
@pytest.mark.ours
@pytest.mark.parametrize("listen", LISTENERS)
def test_key_of_the_vrf(link, listen):
    """It goes before one of the same ids that is for no VRF in particular, in every segment."""
    other = replace(FIRST, name="elsewhere", secret=b"of another link")
    listener, client = listen(link, "ours"), link.client("ours", V6)
    for peer in (listener, client):
        give(peer, FIRST, address=peer.address, ifindex=index_of(peer.host))
        give(peer, other, address=peer.address)
    connection = link.connect(client, listener)
    connection.exchange()
    connection.close()
    assert {record.key.name for record in link.verify().signed} == {"first"}
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(26)
@pytest.mark.parametrize("listen", LISTENERS)
@pytest.mark.parametrize("server", ROLES)
def test_stranger_is_refused(link, server, listen):
    """Unsigned, and with another key."""
    listen(link, server, FIRST)
    for stranger, counter in (
        (link.client("plain", V6), REQUIRED),
        (link.client("native", V6, replace(FIRST, name="wrong", secret=b"guessed")), BAD),
    ):
        link.start(stranger)
        wait_for("it to be refused", lambda c=counter: c in link.b.counters())
        assert stranger.pending
    report = link.audit(unsigned=True)
    assert {record.source for record in report.segments} == {link.a.addresses["v6"]}
