"""ICMP errors about protected connections (RFC 5925 7.8), ours and the kernel's own alike."""

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

import abi
from clock import wait_for
from conftest import OURS, ROLES
from craft import Tcp, ip_frame
from link import FIRST, PORT, V4, V6, Ends, Host, Link, Peer
from requirement import requirement
from tcp_authopt_verify.wire import internet_checksum

ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]
ICMP, ICMPV6 = 1, 58
DROPPED = "TCPAODroppedIcmps"
SOL_IP, IP_RECVERR, IP_MTU = 0, 11, 14
SOL_IPV6, IPV6_RECVERR, IPV6_MTU = 41, 25, 24
MTU = {"v4": 1000, "v6": 1280}


@dataclass(frozen=True)
class Kind:
    """An ICMP error, and what becomes of it."""

    type: int
    code: int
    error: int
    """What the kernel makes of it; 0: it tells an MTU."""
    ignored: bool = False
    """Once a protected connection is established, unless that accepts ICMP errors."""


KINDS = {
    "v4": (
        Kind(3, 0, errno.ENETUNREACH),
        Kind(3, 1, errno.EHOSTUNREACH),
        Kind(3, 2, errno.ENOPROTOOPT, ignored=True),
        Kind(3, 3, errno.ECONNREFUSED, ignored=True),
        Kind(3, 5, errno.EOPNOTSUPP),
        Kind(3, 13, errno.EHOSTUNREACH),
        Kind(11, 0, errno.EHOSTUNREACH),
        Kind(12, 0, errno.EPROTO),
        Kind(3, 4, 0, ignored=True),
    ),
    "v6": (
        Kind(1, 0, errno.ENETUNREACH),
        Kind(1, 1, errno.EACCES, ignored=True),
        Kind(1, 3, errno.EHOSTUNREACH),
        Kind(1, 4, errno.ECONNREFUSED, ignored=True),
        Kind(1, 5, errno.EACCES),
        Kind(3, 0, errno.EHOSTUNREACH),
        Kind(4, 0, errno.EPROTO),
        Kind(2, 0, 0),
    ),
}
PORT_UNREACHABLE = {"v4": KINDS["v4"][3], "v6": KINDS["v6"][3]}


def send_error(link: Link, ends: Ends, victim: Peer, kind: Kind, ports: tuple[int, int]) -> None:
    """As the other end's host would send it, about the last segment of the victim."""
    near, far = victim.host.addresses[ends.wire], other(link, victim).addresses[ends.wire]
    seq = next_seq(link, near, ports[0])
    quoted = ip_frame(near, far, Tcp(near, far, *ports, seq).data())[14:]
    told = struct.pack("!I", MTU[ends.wire] if kind.error == 0 else 0)
    body = struct.pack("!BBH", kind.type, kind.code, 0) + told + quoted
    pseudo, protocol = b"", ICMP
    if ends is V6:
        protocol = ICMPV6
        addresses = ip_address(far).packed + ip_address(near).packed
        pseudo = addresses + struct.pack("!II", len(body), protocol)
    checksum = struct.pack("!H", internet_checksum(pseudo + body))
    body = body[:2] + checksum + body[4:]
    ethernet = victim.host.mac + other(link, victim).mac
    other(link, victim).inject(ip_frame(far, near, body, ethernet, protocol))


def other(link: Link, peer: Peer) -> Host:
    return link.b if peer.host is link.a else link.a


def next_seq(link: Link, source: str, port: int) -> int:
    """Behind what it has sent last: for a SYN its own number, which has to be acknowledged."""
    last = [
        record.segment
        for record in link.audit().signed
        if record.source == source and record.segment.sport == port
    ][-1]
    return last.seq + len(last.payload)


def dropped(host: Host) -> int:
    return host.namespace.counters()[DROPPED]


def error_of(sock: socket.socket) -> int:
    """The socket's error, which is none any more then."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def report_errors(peer: Peer, ends: Ends) -> None:
    """Makes errors visible that do not end the connection."""
    option = (SOL_IP, IP_RECVERR) if ends is V4 else (SOL_IPV6, IPV6_RECVERR)
    peer.sock.setsockopt(*option, 1)


def mtu(peer: Peer, ends: Ends) -> int:
    return peer.sock.getsockopt(*((SOL_IP, IP_MTU) if ends is V4 else (SOL_IPV6, IPV6_MTU)))


def accept_icmp(peer: Peer, role: str, *, accept: bool) -> None:
    """Sets the one flag, or clears it."""
    if role == "ours":
        abi.set_authopt(peer.sock, abi.FLAG_ACCEPT_ICMP if accept else 0)
    else:
        abi.native_set_info(peer.sock, abi.INFO_ACCEPT_ICMPS if accept else 0)


def expect(link: Link, ends: Ends, victim: Peer, kind: Kind, *, ignored: bool) -> None:
    """Sends the error to an established connection, whose socket reports errors."""
    ports = victim.sock.getsockname()[1], victim.sock.getpeername()[1]
    before = dropped(victim.host)
    send_error(link, ends, victim, kind, ports)
    if ignored:
        wait_for(f"{kind} to be ignored", lambda: dropped(victim.host) == before + 1)
        assert error_of(victim.sock) == 0
        assert mtu(victim, ends) == 1500
    elif kind.error:
        wait_for(f"{kind} to be heeded", lambda: error_of(victim.sock) == kind.error)
        assert dropped(victim.host) == before
    else:
        wait_for("the MTU to be heeded", lambda: mtu(victim, ends) == MTU[ends.wire])
        assert dropped(victim.host) == before


@requirement(31)
@pytest.mark.parametrize("accept", [False, True], ids=["default", "accept"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("ends", ENDS)
def test_established(link, ends, role, accept):
    """What is on the RFC's list is ignored and counted, unless the connection accepts it."""
    connection = link.connected(role, role, ends)
    connection.exchange()
    client = connection.client
    report_errors(client, ends)
    if accept:
        accept_icmp(client, role, accept=True)
    for kind in KINDS[ends.wire]:
        expect(link, ends, client, kind, ignored=kind.ignored and not accept)
        connection.exchange()
    connection.close()
    link.verify()


@requirement(31)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("ends", ENDS)
def test_syn_sent(link, ends, role):
    """Not synchronized: each error ends the attempt, but for one that tells an MTU.

    The kernel takes that from IPv6 only once segments are larger.
    """
    kinds = [kind for kind in KINDS[ends.wire] if kind.error or ends is V4]
    for kind in kinds:
        client = link.client(role, ends, FIRST)
        link.start(client)
        port = client.sock.getsockname()[1]
        wait_for("the SYN", lambda port=port: port in ports_of(link))
        send_error(link, ends, client, kind, (port, PORT))
        if kind.error:
            wait_for(f"{kind}", lambda sock=client.sock, kind=kind: error_of(sock) == kind.error)
        else:
            wait_for("the MTU", lambda client=client: mtu(client, ends) == MTU[ends.wire])
            assert client.pending
    assert dropped(link.a) == 0
    link.verify()


def ports_of(link: Link) -> set[int]:
    return {record.segment.sport for record in link.audit().signed}


@requirement(31)
@OURS
@pytest.mark.parametrize("ends", ENDS)
def test_accepted_socket_inherits(link, ends):
    """And reads it back; it can be changed on a live connection, at once and for that one only."""
    listener = link.listen("ours", ends, FIRST)
    accept_icmp(listener, "ours", accept=True)
    connection = link.connect(link.client("ours", ends, FIRST), listener)
    connection.exchange()
    server, kind = connection.server, PORT_UNREACHABLE[ends.wire]
    for peer in connection.peers:
        report_errors(peer, ends)
    active = abi.FLAG_ACTIVE
    assert abi.get_authopt(server.sock).flags == active | abi.FLAG_ACCEPT_ICMP
    assert abi.get_authopt(connection.client.sock).flags == active
    expect(link, ends, server, kind, ignored=False)
    expect(link, ends, connection.client, kind, ignored=True)
    accept_icmp(server, "ours", accept=False)
    assert abi.get_authopt(server.sock).flags == active
    expect(link, ends, server, kind, ignored=True)
    accept_icmp(server, "ours", accept=True)
    expect(link, ends, server, kind, ignored=False)
    assert abi.get_authopt(listener.sock).flags == abi.FLAG_ACCEPT_ICMP
    connection.exchange()
    connection.close()
    link.verify()


@requirement(31)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("ends", ENDS)
def test_time_wait(link, ends, role):
    """Which is a synchronized state, and has nobody to tell an error to: it is counted."""
    connection = link.connected(role, role, ends)
    client, kind = connection.client, PORT_UNREACHABLE[ends.wire]
    ports = client.sock.getsockname()[1], client.sock.getpeername()[1]
    connection.exchange()
    connection.close()
    wait_for("the last ACK", lambda: link.audit().signed[-1].source in link.a.addresses.values())
    send_error(link, ends, client, kind, ports)
    wait_for("it to be ignored", lambda: dropped(link.a) == 1)
    link.verify()
