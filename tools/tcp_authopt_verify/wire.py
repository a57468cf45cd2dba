"""From a captured frame to a TCP segment, by hand and strictly.

A frame either is a well-formed TCP segment, or plainly one of a few other things (ARP, ICMP,
UDP, ...), or Malformed. There is no fourth way, so nothing that carries TCP slips through
unjudged, not even where the byte that says so is damaged.
"""

import struct
from dataclasses import dataclass

OTHER_ETHERTYPES = {0x0806: "arp", 0x88CC: "lldp"}
OTHER_PROTOCOLS = {1: "icmp", 17: "udp", 58: "icmpv6"}
IPV6_EXTENSIONS = {0, 43, 60}

PROTO_IGMP = 2
PROTO_TCP = 6
OPTION_END, OPTION_NOP, OPTION_MD5, OPTION_AO = 0, 1, 19, 29

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_FLAG_LETTERS = ((SYN, "S"), (FIN, "F"), (RST, "R"), (PSH, "P"), (ACK, "."))


class Malformed(Exception):
    """The frame breaks a rule of its own protocol."""


@dataclass(frozen=True, slots=True)
class Option:
    """One TCP option: its kind, where it starts among the options, and what follows its length."""

    kind: int
    offset: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment as it was on the wire; the addresses are 4 or 16 bytes long."""

    src: bytes
    dst: bytes
    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    header: bytes
    """The fixed 20 bytes of the header."""
    option_bytes: bytes
    options: tuple[Option, ...]
    payload: bytes
    checksum_ok: bool

    @property
    def is_syn(self) -> bool:
        """Opens a connection: SYN without ACK."""
        return self.flags & (SYN | ACK) == SYN

    @property
    def length(self) -> int:
        """Bytes of TCP header, options and data."""
        return len(self.header) + len(self.option_bytes) + len(self.payload)

    def named(self, kind: int) -> list[Option]:
        """The options of this kind."""
        return [option for option in self.options if option.kind == kind]

    def flag_letters(self) -> str:
        """The flags as tcpdump shows them."""
        return "".join(letter for bit, letter in _FLAG_LETTERS if self.flags & bit) or "none"


def parse_frame(frame: bytes) -> Segment | str:
    """The TCP segment in an Ethernet frame, or the name of what it carries instead."""
    if len(frame) < 14:
        raise Malformed("shorter than an Ethernet header")
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    packet = frame[14:]
    if ethertype == 0x0800:
        return _parse_ipv4(packet)
    if ethertype == 0x86DD:
        return _parse_ipv6(packet)
    if ethertype in OTHER_ETHERTYPES:
        return OTHER_ETHERTYPES[ethertype]
    raise Malformed(f"ethertype {ethertype:#06x}")


def internet_checksum(data: bytes) -> int:
    """RFC 1071; 0 over data that includes its own right checksum."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def pseudo_header(src: bytes, dst: bytes, length: int) -> bytes:
    """What TCP's checksum and TCP-AO's MAC take from IP (RFC 9293 3.1, RFC 8200 8.1)."""
    if len(src) == 4:
        return src + dst + struct.pack("!BBH", 0, PROTO_TCP, length)
    return src + dst + struct.pack("!IBBBB", length, 0, 0, 0, PROTO_TCP)


def _parse_ipv4(packet: bytes) -> Segment | str:
    if len(packet) < 20:
        raise Malformed("shorter than an IPv4 header")
    version, header_length = packet[0] >> 4, (packet[0] & 0x0F) * 4
    (total_length,) = struct.unpack_from("!H", packet, 2)
    (fragment,) = struct.unpack_from("!H", packet, 6)
    if version != 4 or header_length < 20 or total_length < header_length:
        raise Malformed("IPv4 version or lengths")
    if internet_checksum(packet[:header_length]) != 0:
        raise Malformed("IPv4 header checksum")
    packet = _trim(packet, total_length)
    # One flipped bit makes IGMP of TCP, but no group of an address that TCP knows.
    if packet[9] == PROTO_IGMP and packet[16] >> 4 == 0xE:
        return "igmp"
    if packet[9] != PROTO_TCP:
        return _other(packet[9])
    if fragment & 0x3FFF:
        raise Malformed("a fragment of a TCP segment")
    return parse_tcp(packet[12:16], packet[16:20], packet[header_length:])


def _parse_ipv6(packet: bytes) -> Segment | str:
    if len(packet) < 40:
        raise Malformed("shorter than an IPv6 header")
    (payload_length,) = struct.unpack_from("!H", packet, 4)
    if packet[0] >> 4 != 6:
        raise Malformed("IPv6 version")
    packet = _trim(packet, 40 + payload_length)
    protocol, offset = packet[6], 40
    while protocol in IPV6_EXTENSIONS:
        if offset + 8 > len(packet):
            raise Malformed("truncated IPv6 extension header")
        protocol, offset = packet[offset], offset + 8 + packet[offset + 1] * 8
    if protocol != PROTO_TCP:
        return _other(protocol)
    if offset != 40:
        raise Malformed("TCP behind IPv6 extension headers")
    return parse_tcp(packet[8:24], packet[24:40], packet[40:])


def _other(protocol: int) -> str:
    if protocol in OTHER_PROTOCOLS:
        return OTHER_PROTOCOLS[protocol]
    raise Malformed(f"IP protocol {protocol}")


def _trim(packet: bytes, length: int) -> bytes:
    """Cuts off what Ethernet adds to reach its shortest frame, and nothing else."""
    if length > len(packet):
        raise Malformed("IP length beyond the frame")
    if length < len(packet) and (14 + len(packet) > 60 or any(packet[length:])):
        raise Malformed("bytes behind the IP packet")
    return packet[:length]


def parse_tcp(src: bytes, dst: bytes, data: bytes) -> Segment:
    """The segment in an IP packet's payload."""
    if len(data) < 20:
        raise Malformed("shorter than a TCP header")
    sport, dport, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", data)
    header_length = (offset >> 4) * 4
    if header_length < 20 or header_length > len(data):
        raise Malformed("TCP data offset")
    option_bytes = data[20:header_length]
    return Segment(
        src=src,
        dst=dst,
        sport=sport,
        dport=dport,
        seq=seq,
        ack=ack,
        flags=flags,
        header=data[:20],
        option_bytes=option_bytes,
        options=tuple(_parse_options(option_bytes)),
        payload=data[header_length:],
        checksum_ok=internet_checksum(pseudo_header(src, dst, len(data)) + data) == 0,
    )


def _parse_options(data: bytes) -> list[Option]:
    options = []
    offset = 0
    while offset < len(data):
        kind = data[offset]
        if kind == OPTION_END:
            if any(data[offset:]):
                raise Malformed("bytes behind the end of the TCP options")
            break
        if kind == OPTION_NOP:
            offset += 1
            continue
        length = data[offset + 1] if offset + 1 < len(data) else 0
        if length < 2 or offset + length > len(data):
            raise Malformed(f"length of TCP option {kind}")
        options.append(Option(kind, offset, data[offset + 2 : offset + length]))
        offset += length
    return options
