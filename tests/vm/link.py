"""Two hosts on one cable, how each of them does TCP-AO, and the connections between them."""

import errno
import fcntl
import select
import socket
import struct
import termios
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

import abi
from bpf import Gate
from clock import SLOWDOWN, ticks, wait_for
from netns import Namespace, Tap, offloads_off
from rtnetlink import Rtnetlink
from tcp_authopt_verify import Audit, Key, Policy, Report
from tcp_authopt_verify.capture import write
from tcp_authopt_verify.keys import dump_policy

REQUIRED, BAD, KEY_NOT_FOUND = "TCPAORequired", "TCPAOBad", "TCPAOKeyNotFound"
REFUSALS = (REQUIRED, BAD, KEY_NOT_FOUND)

PORT, DISCARD = 179, 9
TIMEOUT = 10 * SLOWDOWN
CHUNK = 1 << 16


@dataclass(frozen=True)
class Algorithm:
    """An algorithm under its three names."""

    short: str
    ours: int
    native: str
    verifier: str


SHA1 = Algorithm("sha1", abi.ALG_HMAC_SHA_1_96, "hmac(sha1)", "hmac-sha-1-96")
CMAC = Algorithm("cmac", abi.ALG_AES_128_CMAC_96, "cmac(aes128)", "aes-128-cmac-96")
SHA256 = Algorithm("sha256", abi.ALG_HMAC_SHA_256_96, "hmac(sha256)", "hmac-sha-256-96")
ALGORITHMS = (SHA1, CMAC, SHA256)


@dataclass(frozen=True)
class Mkt:
    """A master key of hosts A and B; the two directions have unlike KeyIDs, so mix-ups show."""

    name: str = "first"
    secret: bytes = b"between A and B"
    a_id: int = 61
    """The KeyID of what A sends."""
    b_id: int = 84
    """The KeyID of what B sends."""
    algorithm: Algorithm = SHA1
    covers_options: bool = True


FIRST = Mkt()
SECOND = Mkt("second", b"another one for later", 112, 123, CMAC)


@dataclass(frozen=True)
class Ends:
    """What runs on the wire, and the address family of the socket at either end of it."""

    wire: str
    client: socket.AddressFamily
    server: socket.AddressFamily


V4 = Ends("v4", socket.AF_INET, socket.AF_INET)
V6 = Ends("v6", socket.AF_INET6, socket.AF_INET6)
MAPPED_CLIENT = Ends("v4", socket.AF_INET6, socket.AF_INET)
MAPPED_SERVER = Ends("v4", socket.AF_INET, socket.AF_INET6)
MAPPED_BOTH = Ends("v4", socket.AF_INET6, socket.AF_INET6)


@dataclass(frozen=True)
class Vrf:
    """A VRF, by the name of its device and its routing table."""

    name: str
    table: int


class Host:
    """One end of the cable.

    A machine with several cables is several of them, in one namespace and each in a VRF of its own.
    """

    def __init__(
        self, name: str, number: int, machine: Namespace | None = None, vrf: Vrf | None = None
    ) -> None:
        self.name, self.number, self.vrf = name, number, vrf
        self.interface = f"veth{name}{vrf.name if vrf else ''}"
        self.device = vrf.name if vrf else ""
        """What its sockets are bound to."""
        self.mac = bytes([2, 0, 0, 0, 0, number])
        self.addresses = {"v4": f"192.0.2.{number}", "v6": f"2001:db8::{number}"}
        self.namespace = Namespace(machine)
        self.sockets: list[socket.socket] = []
        self._control: dict[socket.AddressFamily, socket.socket] = {}
        self._raw: socket.socket | None = None
        self._gates: list[Gate] = []

    def address(self, wire: str, family: socket.AddressFamily) -> str:
        """The host's address as a socket of this family writes it."""
        address = self.addresses[wire]
        mapped = wire == "v4" and family == socket.AF_INET6
        return f"::ffff:{address}" if mapped else address

    def ids(self, key: Mkt) -> tuple[int, int]:
        """The key's send_id and recv_id here."""
        return (key.a_id, key.b_id) if self.name == "A" else (key.b_id, key.a_id)

    def new_socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """A socket of this host, bound to its device."""
        with self.namespace.entered():
            sock = socket.socket(family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.device.encode())
        return sock

    def tcp_socket(self, family: socket.AddressFamily) -> socket.socket:
        """A TCP socket of this host; it is closed with the host at the latest."""
        sock = self.new_socket(family, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT)
        self.sockets.append(sock)
        return sock

    def control(self, family: socket.AddressFamily) -> socket.socket:
        """A socket that only manages keys."""
        if family not in self._control:
            self._control[family] = self.tcp_socket(family)
        return self._control[family]

    def inject(self, frame: bytes) -> None:
        """Sends a frame out of the host's interface, byte for byte as it is.

        The socket is kept: closing one waits for a grace period.
        """
        if self._raw is None:
            with self.namespace.entered():
                self._raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._raw.bind((self.interface, 0))
        self._raw.send(frame)

    def gate(self) -> Gate:
        """What loses segments on their last yard to this host; closed with the host."""
        with self.namespace.entered():
            self._gates.append(Gate(self.interface))
        return self._gates[-1]

    def states(self) -> set[str]:
        """The states of its connections, TIME-WAITs too, as /proc writes them."""
        files = [self.namespace.read(name) for name in ("tcp", "tcp6")]
        return {line.split()[3] for file in files for line in file.splitlines()[1:]}

    def counters(self) -> dict[str, int]:
        """The kernel's counters of refused segments, those that are not zero."""
        counters = self.namespace.counters()
        return {name: counters[name] for name in REFUSALS if counters[name]}

    def close(self, *, reset: bool) -> None:
        """Closes the sockets, each with a reset or as its state has it; lets the namespace go."""
        for sock in self.sockets:
            if sock.fileno() >= 0:
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
                sock.close()
        for opened in (*self._gates, self._raw):
            if opened:
                opened.close()
        if self.vrf:
            # A VRF that goes with a port in it complains if the port is on its way out, too. The
            # other end's VRF may have taken the cable along.
            with self.namespace.entered(), Rtnetlink() as rtnetlink, suppress(OSError):
                rtnetlink.delete(self.interface)
        self.namespace.close()


class Role(Protocol):
    """How an end does TCP-AO."""

    def add(self, host: Host, sock: socket.socket, peer: str, key: Mkt, flags: int) -> None:
        """Gives the key to the socket, for this peer."""

    def retire(self, host: Host, sock: socket.socket, peer: str, old: Mkt, new: Mkt) -> None:
        """Deletes the old key of a live connection that has the new one as well."""

    def protect(self, sock: socket.socket) -> None:
        """Asks for protection, before connect() or listen()."""


class Ours:
    """The module's interface: keys of the namespace, and a switch on the socket."""

    @staticmethod
    def pack(host: Host, peer: str | None, key: Mkt, flags: int = 0) -> bytes:
        """The key as this host writes it."""
        return abi.pack_key(
            *host.ids(key),
            alg=key.algorithm.ours,
            secret=key.secret,
            address=peer,
            flags=flags | (0 if key.covers_options else abi.KEY_EXCLUDE_OPTS),
        )

    def add(self, host: Host, sock: socket.socket, peer: str, key: Mkt, flags: int) -> None:
        """Adds or replaces; any socket of the namespace would do."""
        abi.set_key(sock, self.pack(host, peer, key, flags))

    def delete(self, host: Host, sock: socket.socket, peer: str, key: Mkt) -> None:
        """Deletes the key from the namespace."""
        abi.set_key(sock, self.pack(host, peer, key, abi.KEY_DEL))

    def retire(self, host: Host, sock: socket.socket, peer: str, old: Mkt, new: Mkt) -> None:
        """The switch to what is left comes by itself."""
        self.delete(host, sock, peer, old)

    def protect(self, sock: socket.socket) -> None:
        """Sets TCP_AUTHOPT."""
        abi.set_authopt(sock)


class Keys(Ours):
    """The module's interface, as programs of the patch series use it: keys, and no switch."""

    def protect(self, sock: socket.socket) -> None:
        """A socket that has set a key is protected."""


class Native:
    """The kernel's own interface: keys of each socket."""

    def add(self, host: Host, sock: socket.socket, peer: str, key: Mkt, flags: int) -> None:
        """TCP_AO_ADD_KEY on the socket itself."""
        assert not flags
        send_id, recv_id = host.ids(key)
        abi.native_add_key(
            sock,
            peer,
            prefix_of(peer),
            send_id,
            recv_id,
            key.algorithm.native,
            key.secret,
            covers_options=key.covers_options,
        )

    def retire(self, host: Host, sock: socket.socket, peer: str, old: Mkt, new: Mkt) -> None:
        """TCP_AO_DEL_KEY, which names the successor."""
        abi.native_del_key(sock, peer, prefix_of(peer), *host.ids(old), then=host.ids(new))

    def protect(self, sock: socket.socket) -> None:
        """A socket with a key is protected."""


class Plain:
    """No TCP-AO."""

    def add(self, host: Host, sock: socket.socket, peer: str, key: Mkt, flags: int) -> None:
        """It has no keys."""

    def protect(self, sock: socket.socket) -> None:
        """It has no protection."""


ROLES: dict[str, Role] = {"ours": Ours(), "keys": Keys(), "native": Native(), "plain": Plain()}


def prefix_of(address: str) -> int:
    """The prefix length that means this address alone; a mapped address counts as IPv4."""
    parsed = ip_address(address)
    return 128 if parsed.version == 6 and parsed.ipv4_mapped is None else 32


@dataclass
class Peer:
    """One end of a connection, or of what is to become one."""

    link: "Link"
    host: Host
    role: Role
    sock: socket.socket
    address: str
    """The other end's address, in this socket's family."""

    @property
    def unacknowledged(self) -> int:
        """How many bytes the other end has not acknowledged."""
        (count,) = struct.unpack("=i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)))
        return count

    @property
    def pending(self) -> bool:
        """Whether the socket still waits for the answer to its SYN."""
        _, writable, _ = select.select([], [self.sock], [], 0)
        return not writable

    @property
    def asked(self) -> bool:
        """Whether the listening socket has a connection to accept."""
        readable, _, _ = select.select([self.sock], [], [], 0)
        return bool(readable)

    def accept(self) -> "Peer":
        """The next connection of the listening socket; closed with the host."""
        sock, _ = self.sock.accept()
        sock.settimeout(TIMEOUT)
        self.host.sockets.append(sock)
        return replace(self, sock=sock)

    def add(self, key: Mkt, flags: int = 0) -> None:
        """Adds a key for the other end; flags are for our role only."""
        self.link.know(key)
        self.role.add(self.host, self.sock, self.address, key, flags)

    def delete(self, key: Mkt) -> None:
        """Deletes a key that may be the only one, which only our role can."""
        self.role.delete(self.host, self.sock, self.address, key)

    def retire(self, old: Mkt, new: Mkt) -> None:
        """Deletes the old key; the new one is already there."""
        self.role.retire(self.host, self.sock, self.address, old, new)


class Link:
    """Hosts A and B, the cable between them, and a tap at A's end of it."""

    def __init__(self, a: Host | None = None, b: Host | None = None) -> None:
        self.a, self.b = a or Host("A", 1), b or Host("B", 2)
        self.known: list[Mkt] = []
        """The keys that the verifier may find on the wire."""
        self.third_party: list[Key] = []
        """Those between other addresses than the hosts' own."""
        self.report: Report | None = None
        self._audit: Audit | None = None
        self._terms: tuple = ()
        self._cable()
        for family, wire in ((socket.AF_INET, "v4"), (socket.AF_INET6, "v6")):
            self.await_path(family, wire)
        self.tap = Tap(self.a.namespace, self.a.interface)

    def _cable(self) -> None:
        a, b = self.a, self.b
        with a.namespace.entered(), Rtnetlink() as rtnetlink:
            rtnetlink.add_veth(a.interface, a.mac, b.interface, b.mac, b.namespace.fd)
        for host, other in ((a, b), (b, a)):
            with host.namespace.entered(), Rtnetlink() as rtnetlink:
                rtnetlink.set_up("lo")
                if host.vrf:
                    rtnetlink.add_vrf(host.vrf.name, host.vrf.table)
                    rtnetlink.set_up(host.vrf.name)
                    rtnetlink.enslave(host.interface, host.vrf.name)
                rtnetlink.set_up(host.interface)
                addresses = host.addresses.items()
                prefixes = {"v4": 24, "v6": 64}
                rtnetlink.add_addresses(
                    host.interface, (f"{address}/{prefixes[wire]}" for wire, address in addresses)
                )
                # The first neighbour solicitation may come before the other end is quite up, and
                # be repeated a second later: neither finds its neighbour by asking.
                rtnetlink.add_neighbours(host.interface, other.addresses.values(), other.mac)
                offloads_off(host.interface)

    def await_path(self, family: socket.AddressFamily, wire: str) -> None:
        """Waits until both hosts hear each other.

        The kernel sets up routes and queues in the background, and a SYN that is lost to that
        comes again only a second later.
        """
        probes = []
        for host in (self.a, self.b):
            probes.append(host.new_socket(family, socket.SOCK_DGRAM))
            probes[-1].bind((host.addresses[wire], DISCARD))
            probes[-1].setblocking(False)
        deaf = set(probes)
        for _ in ticks(f"the cable to carry {wire}"):
            for probe, other in zip(probes, probes[::-1], strict=True):
                with suppress(OSError):
                    other.sendto(b"?", probe.getsockname())
                with suppress(OSError):
                    probe.recv(1)
                    deaf.discard(probe)
            if not deaf:
                break
        for probe in probes:
            probe.close()

    def without_sack(self) -> None:
        """Brings timestamps into every segment: beside AO the kernel has no room for both."""
        for host in (self.a, self.b):
            host.namespace.write_sysctl("net/ipv4/tcp_sack", 0)

    def listen(self, role: str, ends: Ends, *keys: Mkt, port: int = PORT) -> Peer:
        """A listening socket on B, with keys for A."""
        peer = self._peer(self.b, role, ends.server, self.a.address(ends.wire, ends.server), keys)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        peer.sock.bind((self.b.address(ends.wire, ends.server), port))
        peer.sock.listen()
        return peer

    def client(self, role: str, ends: Ends, *keys: Mkt) -> Peer:
        """A socket on A, with keys for B, that is not connected yet."""
        return self._peer(self.a, role, ends.client, self.b.address(ends.wire, ends.client), keys)

    def _peer(
        self,
        host: Host,
        role: str,
        family: socket.AddressFamily,
        address: str,
        keys: tuple[Mkt, ...],
    ) -> Peer:
        peer = Peer(self, host, ROLES[role], host.tcp_socket(family), address)
        for key in keys:
            peer.add(key)
        peer.role.protect(peer.sock)
        return peer

    def connect(self, client: Peer, listener: Peer) -> "Connection":
        """Connects and accepts."""
        client.sock.connect((client.address, listener.sock.getsockname()[1]))
        return Connection(client, listener.accept(), listener)

    def join(self, a: Peer, b: Peer) -> "Connection":
        """The connection of two sockets that have connected to each other, without a listener."""
        return Connection(a, b, b)

    def connected(
        self, client: str, server: str, ends: Ends = V4, key: Mkt = FIRST, port: int = PORT
    ) -> "Connection":
        """A connection between an end of either role, with one key."""
        listener = self.listen(server, ends, key, port=port)
        return self.connect(self.client(client, ends, key), listener)

    def start(self, client: Peer) -> None:
        """Begins to connect, and does not wait for what comes of it."""
        client.sock.setblocking(False)
        assert client.sock.connect_ex((client.address, PORT)) == errno.EINPROGRESS

    def know(self, *keys: Mkt) -> None:
        """Tells the verifier of keys that segments may be signed with."""
        self.known += [key for key in keys if key not in self.known]

    def policy(self, *, unsigned: bool = False) -> Policy:
        """What the capture must obey."""
        keys = [
            Key(
                name=key.name,
                a=self.a.addresses[wire],
                b=self.b.addresses[wire],
                a_keyid=key.a_id,
                b_keyid=key.b_id,
                algorithm=key.algorithm.verifier,
                secret=key.secret,
                covers_options=key.covers_options,
            )
            for wire in ("v4", "v6")
            for key in self.known
        ]
        return Policy((*keys, *self.third_party), unsigned_anywhere=unsigned)

    def audit(self, *, unsigned: bool = False) -> Report:
        """Judges all that was on the wire so far; the capture must be complete.

        What was judged on the same terms before is not judged again.
        """
        terms = (unsigned, *self.known, *self.third_party)
        if self._audit is None or terms != self._terms:
            self._audit, self._terms = Audit(self.policy(unsigned=unsigned)), terms
        records = self._audit.report.records
        while not self.tap.has(len(records)):
            for frame in self.tap.settle()[len(records) :]:
                self._audit.feed(frame)
        self.report = Report(self._audit.policy, records)
        assert self.tap.drops == 0, f"the tap lost {self.tap.drops} frames"
        return self.report

    def verify(self, *, unsigned: bool = False) -> Report:
        """Audits, and lets nothing bad pass."""
        report = self.audit(unsigned=unsigned)
        assert report.ok, report.summary()
        return report

    def save(self, path: Path) -> None:
        """Keeps the capture and its keys for the verifier's command line."""
        write(path.with_suffix(".pcap"), self.tap.drain())
        path.with_suffix(".json").write_text(dump_policy(self.policy()))

    def close(self, *, reset: bool = True) -> None:
        """Takes everything down.

        Without resets orphans keep the namespaces, and the module, until they give up.
        """
        self.tap.close()
        # The cable goes with either of its ends.
        for host in sorted((self.a, self.b), key=lambda host: host.vrf is None):
            host.close(reset=reset)


@dataclass
class Connection:
    """An established connection."""

    client: Peer
    server: Peer
    listener: Peer

    @property
    def peers(self) -> tuple[Peer, Peer]:
        """Both ends, A's first."""
        return self.client, self.server

    def exchange(self, to_server: bytes = b"ping", to_client: bytes = b"pong, pong") -> None:
        """Moves data both ways at once and checks that it arrives unchanged."""
        ends = {self.client.sock: to_server, self.server.sock: to_client}
        wanted = {self.client.sock: to_client, self.server.sock: to_server}
        unsent = {sock: memoryview(data) for sock, data in ends.items()}
        got = {sock: bytearray() for sock in ends}
        for sock in ends:
            sock.setblocking(False)
        for _ in ticks(f"{len(to_server)} and {len(to_client)} bytes to be exchanged", 20):
            senders = [sock for sock, rest in unsent.items() if rest]
            receivers = [sock for sock in ends if len(got[sock]) < len(wanted[sock])]
            if not senders and not receivers:
                break
            readable, writable, _ = select.select(receivers, senders, [], 1)
            for sock in writable:
                unsent[sock] = unsent[sock][sock.send(unsent[sock][:CHUNK]) :]
            for sock in readable:
                data = sock.recv(CHUNK)
                assert data, "closed by the other end"
                got[sock] += data
        for peer in self.peers:
            peer.sock.settimeout(TIMEOUT)
            assert got[peer.sock] == wanted[peer.sock]
            # With every byte acknowledged nothing is on its way, not even a delayed ACK.
            wait_for("all data to be acknowledged", lambda peer=peer: peer.unacknowledged == 0)

    def send(self, sender: Peer, data: bytes = b"to whom it concerns") -> None:
        """Moves data one way, and the acknowledgment the other."""
        if sender is self.client:
            self.exchange(data, b"")
        else:
            self.exchange(b"", data)

    def close(self) -> None:
        """The client closes first, then the server; both see the end of the stream."""
        self.client.sock.shutdown(socket.SHUT_WR)
        assert self.server.sock.recv(1) == b""
        self.server.sock.close()
        assert self.client.sock.recv(1) == b""
        self.client.sock.close()
