"""Keys and VRFs: one machine, with a cable outside of VRFs, one in red and one in blue.

At the far end of each there is a host, and all three have the same address: only the VRF tells
them apart.
"""

import socket
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

import abi
from clock import wait_for
from conftest import failed
from craft import ACK, PSH
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
    Host,
    Link,
    Mkt,
    Peer,
    Vrf,
)
from netns import Namespace
from requirement import requirement
from rtnetlink import Rtnetlink
from tcp_authopt_verify.audit import Record
from test_reuse import is_protected
from test_selection import Wire, give, is_from

pytestmark = [
    pytest.mark.ours,
    pytest.mark.usefixtures("quick"),
    pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"]),
]

MAIN, RED, BLUE = "main", "red", "blue"
VRFS = {MAIN: None, RED: Vrf(RED, 100), BLUE: Vrf(BLUE, 200)}
KEYS = {name: replace(FIRST, name=name, secret=f"of {name}".encode()) for name in VRFS}
"""Of the same ids."""

WHERE = {MAIN: {MAIN}, RED: {RED}, None: {MAIN, RED, BLUE}}
"""Where a key matches with an IFINDEX of 0, with that of a VRF, and without."""

FAR = {"native": 1001, "plain": 1002}


class Machine:
    """The machine with the VRFs, which is A if it connects, and B if it listens."""

    def __init__(self, name: str) -> None:
        self.links: dict[str, Link] = {}
        namespace = Namespace()
        try:
            for vrf in VRFS.values():
                host = Host(name, 1 if name == "A" else 2, namespace, vrf)
                link = Link(a=host) if name == "A" else Link(b=host)
                self.links[vrf.name if vrf else MAIN] = link
        except BaseException:
            self.close()
            raise
        finally:
            namespace.close()
        self.host = self.links[MAIN].b if name == "B" else self.links[MAIN].a

    def accept_from_vrfs(self) -> None:
        """Listeners that are not bound to a VRF hear them all."""
        self.host.namespace.write_sysctl("net/ipv4/tcp_l3mdev_accept", 1)

    def index(self, domain: str) -> int:
        """What IFINDEX is to be for a key of there."""
        with self.host.namespace.entered():
            return 0 if domain == MAIN else socket.if_nametoindex(domain)

    def give(self, peer: Peer, key: Mkt, domain: str | None, flags: int = 0, **more) -> None:
        """Adds a key for the peer in this VRF, or in any."""
        criteria = {} if domain is None else {"ifindex": self.index(domain)}
        give(peer, key, flags, **{"address": peer.address} | criteria | more)

    def unmake(self, *domains: str) -> None:
        """Deletes VRFs; their ports are outside of VRFs then."""
        with self.host.namespace.entered(), Rtnetlink() as rtnetlink:
            for domain in domains:
                rtnetlink.delete(domain)

    def make(self, domain: str, index: int, ends: Ends) -> None:
        """Makes a VRF again, with this interface index, and waits until its cable works."""
        link = self.links[domain]
        mine, other = (link.a, link.b) if self.host.name == "A" else (link.b, link.a)
        with self.host.namespace.entered(), Rtnetlink() as rtnetlink:
            rtnetlink.add_vrf(domain, VRFS[domain].table, index)
            assert socket.if_nametoindex(domain) == index
            rtnetlink.set_up(domain)
            rtnetlink.enslave(mine.interface, domain)
            # The port was down for a moment, which has cost it these.
            if ends.wire == "v6":
                rtnetlink.add_addresses(mine.interface, [f"{mine.addresses['v6']}/64"])
            rtnetlink.add_neighbours(mine.interface, other.addresses.values(), other.mac)
        link.await_path(ends.client, ends.wire)

    def refuses(self, stranger: Peer, counter: str) -> None:
        """The stranger's SYN is counted, and not answered."""
        before = self.host.counters().get(counter, 0)
        stranger.link.start(stranger)
        wait_for("it to be refused", lambda: self.host.counters().get(counter, 0) > before)
        assert stranger.pending
        stranger.sock.close()

    def close(self) -> None:
        """Takes all of it down."""
        for link in self.links.values():
            link.close()


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """It is A, unless a parameter says B; each of its cables has to be looked at."""
    machine = Machine(getattr(request, "param", "A"))
    try:
        yield machine
        if not failed(request.node):
            unseen = [name for name, link in machine.links.items() if link.report is None]
            assert not unseen, f"nobody looked at the capture of {unseen}"
    finally:
        machine.close()


at_the_server = pytest.mark.parametrize("machine", ["B"], indirect=True, ids=["server"])


@requirement(9)
def test_connect_with_the_key_of_the_vrf(machine, ends):
    """The same peer and the same ids everywhere; a socket may be bound to a port of the VRF."""
    for domain, link in machine.links.items():
        machine.give(link.client("ours", ends), KEYS[domain], domain)
    for domain, link in machine.links.items():
        wire = Wire(link)
        for port, (far, to_port) in enumerate(product(["ours", "native"], [False, True]), 1000):
            client = link.client("ours", ends)
            if to_port:
                device = link.a.interface.encode()
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
            listener = link.listen(far, ends, KEYS[domain], port=port)
            connection = link.connect(client, listener)
            connection.exchange()
            connection.close()
            assert wire.keys() == {"A": [domain], "B": [domain]}, (far, to_port)
        assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(9)
@at_the_server
def test_accept_with_the_key_of_the_vrf(machine, ends):
    """By a listener of each VRF, then by one for all."""
    links = machine.links
    for domain, link in links.items():
        machine.give(link.listen("ours", ends), KEYS[domain], domain)
    of_each = {name: link.listen("ours", ends, port=1000) for name, link in links.items()}
    machine.accept_from_vrfs()
    of_all = dict.fromkeys(links, links[MAIN].listen("ours", ends, port=1001))
    for domain, link in links.items():
        wire = Wire(link)
        for far, listeners in product(["ours", "native"], [of_each, of_all]):
            client = link.client(far, ends, KEYS[domain])
            connection = link.connect(client, listeners[domain])
            connection.exchange()
            assert is_protected(connection.server)
            connection.close()
            assert wire.keys() == {"A": [domain], "B": [domain]}, far
        assert link.a.counters() == {}
    assert machine.host.counters() == {}


@requirement(10)
@at_the_server
def test_key_of_another_vrf_does_not_serve(machine, ends):
    """With a key of its own here it is refused as wrong, without one as unexpected."""
    machine.accept_from_vrfs()
    links = machine.links
    listener = links[MAIN].listen("ours", ends)
    abi.set_authopt(listener.sock, abi.FLAG_REJECT_UNEXPECTED)
    for domain in (MAIN, RED):
        machine.give(listener, KEYS[domain], domain)
    refused = {
        (MAIN, RED): BAD,
        (RED, MAIN): BAD,
        (BLUE, MAIN): KEY_NOT_FOUND,
        (BLUE, RED): KEY_NOT_FOUND,
    }
    for (domain, key), counter in refused.items():
        machine.refuses(links[domain].client("native", ends, KEYS[key]), counter)
    assert not listener.asked
    for link in links.values():
        link.verify()
        assert {record.source for record in link.report.signed} == {link.a.addresses[ends.wire]}


@requirement(26)
@at_the_server
def test_where_a_listener_wants_signatures(machine, ends):
    """Where the key does not match, its peer is one without a key."""
    machine.accept_from_vrfs()
    listener = machine.links[MAIN].listen("ours", ends)
    for domain, protected in WHERE.items():
        machine.give(listener, FIRST, domain)
        for name, link in machine.links.items():
            if name in protected:
                machine.refuses(link.client("plain", ends), REQUIRED)
            client = link.client("native" if name in protected else "plain", ends, FIRST)
            connection = link.connect(client, listener)
            connection.exchange()
            assert is_protected(connection.server) == (name in protected), domain
            connection.close()
        machine.give(listener, FIRST, domain, abi.KEY_DEL)
    for link in machine.links.values():
        report = link.verify(unsigned=True)
        assert report.signed, "with a key that matches"
        assert report.unsigned, "with one that does not"
    assert set(machine.host.counters()) == {REQUIRED}


@requirement(9)
def test_where_connect_signs(machine, ends):
    control = machine.links[MAIN].client("ours", ends)
    far = {
        name: {role: link.listen(role, ends, FIRST, port=port) for role, port in FAR.items()}
        for name, link in machine.links.items()
    }
    for domain, protected in WHERE.items():
        machine.give(control, FIRST, domain)
        for name, link in machine.links.items():
            role = "native" if name in protected else "plain"
            connection = link.connect(link.client("ours", ends), far[name][role])
            connection.exchange()
            assert is_protected(connection.client) == (name in protected), domain
            connection.close()
        machine.give(control, FIRST, domain, abi.KEY_DEL)
    for link in machine.links.values():
        report = link.verify(unsigned=True)
        for records, role in ((report.signed, "native"), (report.unsigned, "plain")):
            ports = {min(r.segment.sport, r.segment.dport) for r in records}
            assert ports == {FAR[role]}


@requirement(9, 10)
def test_vrf_is_more_specific_than_any_prefix(machine, ends):
    """A key for anybody in red goes before one for the host anywhere: to sign, and to verify."""
    host, anybody = KEYS[MAIN], KEYS[RED]
    control = machine.links[MAIN].client("ours", ends)
    machine.give(control, host, None)
    machine.give(control, anybody, RED, address=None)
    for domain, link in machine.links.items():
        key = anybody if domain == RED else host
        connection = link.connect(link.client("ours", ends), link.listen("native", ends, key))
        connection.exchange()
        connection.close()
        assert Wire(link).keys() == {"A": [key.name], "B": [key.name]}


@requirement(9)
def test_vrf_key_that_is_not_valid_gives_way(machine, ends):
    """To one of any VRF, in its VRF too."""
    red = machine.links[RED]
    client = red.client("ours", ends)
    machine.give(client, KEYS[MAIN], None)
    machine.give(client, KEYS[RED], RED, abi.KEY_NOSEND | abi.KEY_NORECV)
    connection = red.connect(client, red.listen("native", ends, KEYS[MAIN]))
    connection.exchange()
    machine.give(client, KEYS[RED], RED)
    connection.server.sock.send(b"of any VRF")
    wait_for("it to be refused", lambda: machine.host.counters().get(BAD))
    assert not connection.client.asked
    machine.give(client, KEYS[RED], RED, abi.KEY_DEL)
    assert connection.client.sock.recv(100) == b"of any VRF"
    assert set(Wire(red).keys()["B"]) == {MAIN}
    for domain in (MAIN, BLUE):
        assert not machine.links[domain].audit().segments


@requirement(10)
def test_key_of_another_vrf_does_not_serve_a_connection(machine, ends):
    """A connection outside of VRFs hears segments from red, too: with keys of its own only."""
    machine.accept_from_vrfs()
    main, red = machine.links[MAIN], machine.links[RED]
    machine.give(main.client("ours", ends), FIRST, MAIN)
    machine.give(red.client("ours", ends), SECOND, RED)
    connection = main.connect(main.client("ours", ends), main.listen("native", ends, FIRST))
    connection.exchange()
    forger = Forger.of(main, main.b, ends.wire)
    data = forger.tcp(flags=PSH | ACK, payload=b"from red")

    red.b.inject(forger.frame(data, forger.ao(SECOND)))
    wait_for("it to be refused", lambda: main.a.counters() == {KEY_NOT_FOUND: 1})
    assert not connection.client.asked
    connection.exchange()

    # As where routes leak from one VRF to another.
    right = forger.ao(FIRST, rnextkeyid=FIRST.a_id)
    red.b.inject(forger.frame(replace(data, seq=forger.next(main.b)), right))
    assert connection.client.sock.recv(100) == b"from red"
    assert main.a.counters() == {KEY_NOT_FOUND: 1}
    assert {record.key.name for record in main.verify().signed} == {"first"}
    assert len(red.audit().bad) == 2, "there is no such connection there"
    assert not machine.links[BLUE].audit().segments


GREEN = "green"


@pytest.fixture
def green(link) -> int:
    """A VRF of B's, still without an interface; its index."""
    with link.b.namespace.entered(), Rtnetlink() as rtnetlink:
        rtnetlink.add_vrf(GREEN, 300)
        rtnetlink.set_up(GREEN)
        return socket.if_nametoindex(GREEN)


def move(host: Host, master: str | None) -> None:
    """The interface goes into a VRF, or out of one; it keeps its addresses."""
    host.namespace.write_sysctl(f"net/ipv6/conf/{host.interface}/keep_addr_on_down", 1)
    with host.namespace.entered(), Rtnetlink() as rtnetlink:
        rtnetlink.enslave(host.interface, master)


def sent_by(host: Host, link: Link) -> list[Record]:
    """What the host has sent so far, all of it signed."""
    return [record for record in link.verify().signed if is_from(host, record)]


@pytest.mark.usefixtures("green")
@pytest.mark.parametrize("accept", [0, 1], ids=["strict", "l3mdev-accept"])
def test_interface_moves_under_a_session(link, ends, accept):
    """It is deaf or dumb until the interface is back; nothing is refused, nothing is unsigned."""
    link.b.namespace.write_sysctl("net/ipv4/tcp_l3mdev_accept", accept)
    connection = link.connected("native", "ours", ends)
    connection.exchange()
    client, server = connection.peers
    move(link.b, GREEN)
    before = len(sent_by(link.b, link))
    client.sock.send(b"to the other end")
    server.sock.send(b"and back")
    if accept:
        # It is heard, judged with the keys of the connection, and has no route to answer.
        assert server.sock.recv(100) == b"to the other end"
    once = len(sent_by(link.a, link))
    wait_for("it to come again", lambda: len(sent_by(link.a, link)) >= once + 2)
    assert len(sent_by(link.b, link)) == before
    assert not server.asked
    assert not client.asked
    move(link.b, None)
    if not accept:
        assert server.sock.recv(100) == b"to the other end"
    assert client.sock.recv(100) == b"and back"
    connection.exchange()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(9)
def test_interface_moves_under_sockets_bound_to_it(link, ends, green):
    """The session goes on with its key; the next one is in the VRF, where that does not match."""
    listener = link.listen("ours", ends)
    listener.sock.close()
    listener.sock = link.b.tcp_socket(ends.server)
    device = link.b.interface.encode()
    listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    abi.set_authopt(listener.sock)
    listener.sock.bind((link.b.address(ends.wire, ends.server), PORT))
    listener.sock.listen()
    give(listener, FIRST, address=listener.address, ifindex=0)
    connection = link.connect(link.client("native", ends, FIRST), listener)
    connection.exchange()
    move(link.b, GREEN)
    connection.exchange()
    assert is_protected(connection.server)

    unprotected = link.connect(link.client("plain", ends), listener)
    unprotected.exchange()
    assert not is_protected(unprotected.server)
    give(listener, SECOND, address=listener.address, ifindex=green)
    protected = link.connect(link.client("native", ends, SECOND), listener)
    for each in (connection, protected):
        each.exchange()
        assert is_protected(each.server)
    of_the_first = connection.client.sock.getsockname()[1]
    for record in link.verify(unsigned=True).signed:
        ports = (record.segment.sport, record.segment.dport)
        assert record.key.name == ("first" if of_the_first in ports else "second")
    assert (link.a.counters(), link.b.counters()) == ({}, {})


AGAIN = 1000
"""An interface index that no device has had."""


def accepts(listener: Peer, client: Peer, *, protected: bool) -> None:
    """It does, and so the connection is."""
    connection = client.link.connect(client, listener)
    connection.exchange()
    assert is_protected(connection.server) == protected
    connection.close()


@requirement(26)
@at_the_server
def test_vrf_that_is_made_again(machine, ends):
    """Its keys wait for it, and know it by its name: it has another index."""
    machine.accept_from_vrfs()
    main, red = machine.links[MAIN], machine.links[RED]
    listener = main.listen("ours", ends)
    machine.give(listener, FIRST, RED)
    for index in (AGAIN, AGAIN + 1):
        machine.unmake(RED)
        machine.make(RED, index, ends)
        machine.refuses(red.client("plain", ends), REQUIRED)
        accepts(listener, red.client("native", ends, FIRST), protected=True)
        accepts(listener, main.client("plain", ends), protected=False)
    red.audit()
    main.verify(unsigned=True)
    assert not machine.links[BLUE].audit().segments


@requirement(9, 26)
@at_the_server
def test_vrf_that_gets_the_index_of_another(machine, ends):
    """And none of its keys. They are for the one of that name, wherever it comes again."""
    machine.accept_from_vrfs()
    red, blue = machine.links[RED], machine.links[BLUE]
    listener = machine.links[MAIN].listen("ours", ends)
    abi.set_authopt(listener.sock, abi.FLAG_REJECT_UNEXPECTED)
    machine.give(listener, FIRST, RED)
    index = machine.index(RED)
    machine.unmake(RED, BLUE)
    machine.make(BLUE, index, ends)
    accepts(listener, blue.client("plain", ends), protected=False)
    machine.refuses(blue.client("native", ends, FIRST), KEY_NOT_FOUND)
    machine.give(listener, SECOND, BLUE)
    machine.make(RED, AGAIN, ends)
    for link, key, other in ((red, FIRST, SECOND), (blue, SECOND, FIRST)):
        machine.refuses(link.client("plain", ends), REQUIRED)
        machine.refuses(link.client("native", ends, other), KEY_NOT_FOUND)
        accepts(listener, link.client("native", ends, key), protected=True)
        link.audit()
    assert not machine.links[MAIN].audit().segments


@at_the_server
@pytest.mark.parametrize("other", [False, True], ids=["again", "other-vrf"])
def test_connection_that_outlives_its_vrf(machine, ends, other):
    """It is in the VRF that it began in, and keeps that one's keys, whoever has the index now.

    The sockets are bound to the index: with it the connection goes on, through another VRF if it is
    that one's, where nobody knows the key.
    """
    red, blue = machine.links[RED], machine.links[BLUE]
    listener = red.listen("ours", ends)
    machine.give(listener, FIRST, RED)
    connection = red.connect(red.client("native", ends, FIRST), listener)
    connection.exchange()
    index = machine.index(RED)
    machine.unmake(RED, BLUE)
    if other:
        machine.make(BLUE, index, ends)
        machine.give(blue.listen("ours", ends, port=1000), SECOND, BLUE)
        connection.server.sock.send(b"to red")
        wait_for("it to come through blue", lambda: blue.audit().segments)
        assert {record.keyid for record in blue.report.segments} == {FIRST.b_id}
        machine.unmake(BLUE)
        machine.make(RED, index, ends)
        assert connection.client.sock.recv(100) == b"to red"
    else:
        machine.make(RED, index, ends)
    connection.exchange()
    assert {record.key.name for record in red.verify().signed} == {FIRST.name}
    # While a VRF's own table is empty the kernel looks into that of the main one.
    for link in (blue, machine.links[MAIN]):
        assert {record.keyid for record in link.audit().segments} <= {FIRST.b_id}


@at_the_server
def test_name_of_a_vrf_to_come(machine, ends):
    """A key that was added for the name is the VRF's from its first segment on."""
    red = machine.links[RED]
    index = machine.index(RED)
    machine.unmake(RED, BLUE)
    listener = machine.links[MAIN].listen("ours", ends)
    give(listener, FIRST, address=listener.address, vrf=RED)
    machine.make(RED, index + 100, ends)
    listener = red.listen("ours", ends)
    machine.refuses(red.client("plain", ends), REQUIRED)
    connection = red.connect(red.client("native", ends, FIRST), listener)
    connection.exchange()
    assert is_protected(connection.server)
    assert {record.key.name for record in red.audit().signed} == {FIRST.name}
    for link in (machine.links[MAIN], machine.links[BLUE]):
        assert not link.audit().segments
