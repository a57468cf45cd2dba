"""As much rtnetlink as two hosts on a cable need.

`ip` would do, but starting it several times in each test took most of the suite's time in an
emulated machine.
"""

import socket
import struct
from collections.abc import Iterable
from ipaddress import ip_interface
from types import TracebackType
from typing import Self

NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLMSG_ERROR = 2
RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWNEIGH = 16, 17, 20, 24, 28
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 10, 18
IFLA_AF_SPEC, IFLA_NET_NS_FD = 26, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER, IFLA_VRF_TABLE = 1, 2, 1, 1
IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_MODE_NONE = 8, 1
IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD = 1, 2, 0x02
NDA_DST, NDA_LLADDR, NUD_PERMANENT = 1, 2, 0x80
RTA_DST, RTA_OIF, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_LINK, RTN_UNICAST = 1, 4, 254, 3, 253, 1
IFF_UP = 1


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def link_attributes(name: str, mac: bytes) -> bytes:
    """What a new interface is to be called."""
    return attribute(IFLA_IFNAME, name.encode() + b"\0") + attribute(IFLA_ADDRESS, mac)


class Rtnetlink:
    """A connection to the network namespace that it is opened in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def _request(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        flags |= NLM_F_REQUEST | NLM_F_ACK
        header = struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0)
        self._socket.send(header + body)
        reply = self._socket.recv(65536)
        _, answer, _, sequence, _, error = struct.unpack_from("=IHHIIi", reply)
        assert (answer, sequence) == (NLMSG_ERROR, self._sequence)
        if error:
            raise OSError(-error, f"rtnetlink request {kind} refused")

    def add_veth(
        self, name: str, mac: bytes, peer_name: str, peer_mac: bytes, peer_namespace: int
    ) -> None:
        """A pair of interfaces, the peer in the namespace of that file descriptor."""
        peer = link_attributes(peer_name, peer_mac)
        peer += attribute(IFLA_NET_NS_FD, struct.pack("=I", peer_namespace))
        data = attribute(VETH_INFO_PEER, bytes(16) + peer)
        info = attribute(IFLA_INFO_KIND, b"veth\0") + attribute(IFLA_INFO_DATA, data)
        body = bytes(16) + link_attributes(name, mac) + attribute(IFLA_LINKINFO, info)
        self._request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)

    def _add(self, name: str, kind: str, data: bytes = b"", index: int = 0) -> None:
        info = attribute(IFLA_INFO_KIND, kind.encode() + b"\0") + attribute(IFLA_INFO_DATA, data)
        named = attribute(IFLA_IFNAME, name.encode() + b"\0")
        head = struct.pack("=BxHiII", 0, 0, index, 0, 0)
        body = head + named + attribute(IFLA_LINKINFO, info)
        self._request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)

    def add_dummy(self, name: str) -> None:
        """An interface to nowhere."""
        self._add(name, "dummy")

    def add_vrf(self, name: str, table: int, index: int = 0) -> None:
        """An L3 master device, whose routes are in that table; an index of 0 is the next free."""
        self._add(name, "vrf", attribute(IFLA_VRF_TABLE, struct.pack("=I", table)), index)

    def enslave(self, name: str, master: str | None) -> None:
        """Makes the interface a port of the master, or of none."""
        index, its = socket.if_nametoindex(name), socket.if_nametoindex(master) if master else 0
        body = struct.pack("=BxHiII", 0, 0, index, 0, 0)
        self._request(RTM_NEWLINK, 0, body + attribute(IFLA_MASTER, struct.pack("=I", its)))

    def rename(self, name: str, new: str) -> None:
        """Gives the interface another name."""
        index = socket.if_nametoindex(name)
        named = attribute(IFLA_IFNAME, new.encode() + b"\0")
        self._request(RTM_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0) + named)

    def delete(self, name: str) -> None:
        """Removes the interface."""
        index = socket.if_nametoindex(name)
        self._request(RTM_DELLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0))

    def set_up(self, name: str) -> None:
        """Brings the interface up, without an IPv6 address of its own making."""
        index = socket.if_nametoindex(name)
        mode = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([ADDR_GEN_MODE_NONE]))
        family = attribute(IFLA_AF_SPEC, attribute(socket.AF_INET6, mode))
        self._request(RTM_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0) + family)
        self._request(RTM_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, IFF_UP, IFF_UP))

    def add_addresses(self, name: str, interfaces: Iterable[str]) -> None:
        """Addresses with their prefix lengths, usable at once."""
        index = socket.if_nametoindex(name)
        for written in interfaces:
            interface = ip_interface(written)
            family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
            prefix = interface.network.prefixlen
            body = struct.pack("=BBBBI", family, prefix, IFA_F_NODAD, 0, index)
            for kind in (IFA_LOCAL, IFA_ADDRESS):
                body += attribute(kind, interface.packed)
            self._request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)

    def set_mtu(self, name: str, mtu: int) -> None:
        """What the interface sends at most in one packet."""
        index = socket.if_nametoindex(name)
        body = struct.pack("=BxHiII", 0, 0, index, 0, 0)
        self._request(RTM_NEWLINK, 0, body + attribute(IFLA_MTU, struct.pack("=I", mtu)))

    def add_routes(self, name: str, addresses: Iterable[str]) -> None:
        """These addresses are behind the interface, on its link."""
        index = struct.pack("=I", socket.if_nametoindex(name))
        for interface in map(ip_interface, addresses):
            family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
            body = struct.pack(
                "=BBBBBBBBI",
                family,
                interface.network.prefixlen,
                0,
                0,
                RT_TABLE_MAIN,
                RTPROT_BOOT,
                RT_SCOPE_LINK,
                RTN_UNICAST,
                0,
            )
            body += attribute(RTA_DST, interface.network.network_address.packed)
            flags = NLM_F_CREATE | NLM_F_EXCL
            self._request(RTM_NEWROUTE, flags, body + attribute(RTA_OIF, index))

    def add_neighbours(self, name: str, addresses: Iterable[str], mac: bytes) -> None:
        """Where these addresses are, so that nobody has to ask, nor waits for an answer."""
        index = socket.if_nametoindex(name)
        for address in map(ip_interface, addresses):
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            body = struct.pack("=BxxxiHBB", family, index, NUD_PERMANENT, 0, 0)
            body += attribute(NDA_DST, address.packed) + attribute(NDA_LLADDR, mac)
            self._request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body)
