"""A router whose second link takes only small packets, and protected connections across it.

ICMPv4 "fragmentation needed" is one of the errors that they ignore (RFC 5925 7.8).
"""

import pytest

from clock import ticks, wait_for
from conftest import ROLES
from link import V4, V6, Connection, Link
from netns import Namespace, offloads_off
from requirement import requirement
from rtnetlink import Rtnetlink
from test_icmp import accept_icmp, dropped, mtu

MTU = 1280
DATA = bytes(range(250)) * 40
"""Several segments, however small."""


class Routed(Link):
    """Hosts A and B with a router between them."""

    def _cable(self) -> None:
        self.router = Namespace()
        mac = bytes([2, 0, 0, 0, 0, 9])
        prefixes = {"v4": 24, "v6": 64}
        for host, other in ((self.a, self.b), (self.b, self.a)):
            far = f"to{host.name}"
            with host.namespace.entered(), Rtnetlink() as rtnetlink:
                rtnetlink.add_veth(host.interface, host.mac, far, mac, self.router.fd)
                rtnetlink.set_up("lo")
                rtnetlink.set_up(host.interface)
                own = (f"{host.addresses[wire]}/{length}" for wire, length in prefixes.items())
                rtnetlink.add_addresses(host.interface, own)
                rtnetlink.add_neighbours(host.interface, other.addresses.values(), mac)
                offloads_off(host.interface)
            with self.router.entered(), Rtnetlink() as rtnetlink:
                rtnetlink.set_up(far)
                number = host.number
                own = (f"198.51.100.{number}/32", f"2001:db8:1::{number}/128")
                rtnetlink.add_addresses(far, own)
                rtnetlink.add_routes(far, host.addresses.values())
                rtnetlink.add_neighbours(far, host.addresses.values(), host.mac)
                offloads_off(far)
        with self.router.entered(), Rtnetlink() as rtnetlink:
            rtnetlink.set_mtu("toB", MTU)
        for name in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            self.router.write_sysctl(name, 1)
        for name, value in (("tcp_rto_min_us", 10_000), ("tcp_retries1", 1)):
            self.a.namespace.write_sysctl(f"net/ipv4/{name}", value)

    def close(self) -> None:
        """The router, too."""
        super().close()
        self.router.close()


@pytest.fixture
def topology() -> type[Link]:
    """With the router."""
    return Routed


def arrives(connection: Connection) -> None:
    """The data that was sent is all there, and segments are of the size that passes."""
    got = b""
    while len(got) < len(DATA):
        got += connection.server.sock.recv(len(DATA))
    assert got == DATA
    connection.exchange()
    connection.close()


@requirement(31)
@pytest.mark.parametrize("role", ROLES)
def test_errors_accepted(link, role):
    connection = link.connected(role, role)
    connection.exchange()
    accept_icmp(connection.client, role, accept=True)
    connection.client.sock.sendall(DATA)
    arrives(connection)
    assert dropped(link.a) == 0
    link.verify()


@requirement(31)
@pytest.mark.parametrize("remedy", ["mtu-probing", "flag"])
@pytest.mark.parametrize("role", ROLES)
def test_errors_ignored(link, role, remedy):
    """The connection stalls until the stack may probe, or the flag is set."""
    connection = link.connected(role, role)
    connection.exchange()
    connection.client.sock.sendall(DATA)
    wait_for("the errors to be ignored", lambda: dropped(link.a) >= 3)
    assert mtu(connection.client, V4) == 1500
    assert not connection.server.asked
    if remedy == "flag":
        accept_icmp(connection.client, role, accept=True)
    else:
        link.a.namespace.write_sysctl("net/ipv4/tcp_mtu_probing", 1)
    arrives(connection)
    link.verify()


@pytest.mark.parametrize("role", ROLES)
def test_errors_that_answer_probes_are_counted(link, role):
    """Nobody has forged them: the stack asks how much passes, and loses nothing by that."""
    link.a.namespace.write_sysctl("net/ipv4/tcp_mtu_probing", 2)
    connection = link.connected(role, role)
    for _ in ticks("a probe to be answered", 20):
        connection.exchange(DATA * 20)
        if dropped(link.a):
            break
    connection.close()
    assert (link.a.counters(), link.b.counters()) == ({}, {})
    link.verify()


@requirement(31)
@pytest.mark.parametrize("role", ROLES)
def test_packet_too_big_of_ipv6(link, role):
    """Is no such error: it is heeded, if it quotes what is on its way."""
    connection = link.connected(role, role, V6)
    connection.exchange()
    connection.client.sock.sendall(DATA)
    wait_for("it to be heeded", lambda: mtu(connection.client, V6) == MTU)
    arrives(connection)
    assert dropped(link.a) == 0
    link.verify()
