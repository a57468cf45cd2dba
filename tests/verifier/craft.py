"""Builds frames byte by byte, for the verifier's own tests and for forgeries in the VM."""

import struct
from dataclasses import dataclass
from ipaddress import ip_address

from tcp_authopt_verify.capture import Frame
from tcp_authopt_verify.keys import Key
from tcp_authopt_verify.mac import kdf_context, mac_input
from tcp_authopt_verify.wire import (
    OPTION_AO,
    Option,
    Segment,
    internet_checksum,
    pseudo_header,
)

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

ETHERNET = bytes.fromhex("020000000002 020000000001")
"""Destination and source of frames whose MAC addresses do not matter."""


@dataclass(frozen=True)
class Ao:
    """How to sign a segment; `sne` is the sender's."""

    key: Key
    keyid: int
    rnextkeyid: int
    src_isn: int
    dst_isn: int
    sne: int = 0


@dataclass(frozen=True)
class Tcp:
    """A segment to be built; the addresses are written out."""

    src: str
    dst: str
    sport: int
    dport: int
    seq: int
    ack: int = 0
    flags: int = ACK
    options: bytes = b""
    """Options before the AO option, or all of them if `ao_at` is given."""
    payload: bytes = b""
    window: int = 65535
    ao_at: int | None = None
    """Where among `options` 16 bytes are left for the AO option, whatever the others are."""
    data_offset: int | None = None
    """What the header says it is long, in words, instead of what it is."""

    def data(self, ao: Ao | None = None) -> bytes:
        """The segment with its checksum, signed if `ao` is given."""
        options, at = self.options, self.ao_at
        if ao is not None:
            if at is None:
                options, at = options + bytes(16), len(options)
            option = bytes([29, 16, ao.keyid, ao.rnextkeyid]) + bytes(12)
            options = options[:at] + option + options[at + 16 :]
        options += b"\1" * (-len(options) % 4)
        words = 5 + len(options) // 4 if self.data_offset is None else self.data_offset
        header = struct.pack(
            "!HHIIBBHHH",
            self.sport,
            self.dport,
            self.seq % (1 << 32),
            self.ack % (1 << 32),
            words << 4,
            self.flags,
            self.window,
            0,
            0,
        )
        src, dst = ip_address(self.src).packed, ip_address(self.dst).packed
        if ao is not None and at is not None:
            mac = self._mac(ao, src, dst, header, options, at)
            options = options[: at + 4] + mac + options[at + 16 :]
        data = header + options + self.payload
        checksum = internet_checksum(pseudo_header(src, dst, len(data)) + data)
        return data[:16] + struct.pack("!H", checksum) + data[18:]

    def _mac(self, ao: Ao, src: bytes, dst: bytes, header: bytes, options: bytes, at: int) -> bytes:
        # Not parsed, since the other options may be anything.
        segment = Segment(
            src=src,
            dst=dst,
            sport=self.sport,
            dport=self.dport,
            seq=self.seq,
            ack=self.ack,
            flags=self.flags,
            header=header,
            option_bytes=options,
            options=(Option(OPTION_AO, at, options[at + 2 : at + 16]),),
            payload=self.payload,
            checksum_ok=True,
        )
        context = kdf_context(segment, ao.src_isn, ao.dst_isn)
        traffic_key = ao.key.suite.traffic_key(ao.key.secret, context)
        return ao.key.suite.mac(traffic_key, mac_input(segment, ao.sne, ao.key.covers_options))

    def frame(self, ao: Ao | None = None, ethernet: bytes = ETHERNET) -> bytes:
        """The segment in an IP packet in an Ethernet frame."""
        return ip_frame(self.src, self.dst, self.data(ao), ethernet)


def ip_frame(
    src: str, dst: str, data: bytes, ethernet: bytes = ETHERNET, protocol: int = 6
) -> bytes:
    """Data, TCP unless told otherwise, in IP in Ethernet."""
    source, target = ip_address(src), ip_address(dst)
    if source.version == 6:
        header = struct.pack("!IHBB", 0x6 << 28, len(data), protocol, 64)
        return ethernet + b"\x86\xdd" + header + source.packed + target.packed + data
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0x4000, 64, protocol, 0)
    header += source.packed + target.packed
    checksum = struct.pack("!H", internet_checksum(header))
    return ethernet + b"\x08\x00" + header[:10] + checksum + header[12:] + data


def timed(frames: list[bytes]) -> list[Frame]:
    """The frames as a capture, a millisecond apart."""
    return [Frame(1_000_000 * number, data) for number, data in enumerate(frames)]
