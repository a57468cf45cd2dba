"""Traffic keys and MACs of TCP-AO (RFC 5925, RFC 5926), with Python's own cryptography."""

import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from .wire import OPTION_AO, Segment, pseudo_header

MAC_LENGTH = 12
OPTION_LENGTH = 16


def _hmac_sha1(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, hashlib.sha1)


def _hmac_sha256(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, hashlib.sha256)


def _aes_cmac(key: bytes, message: bytes) -> bytes:
    cmac = CMAC(AES(key))
    cmac.update(message)
    return cmac.finalize()


def _aes_key(secret: bytes) -> bytes:
    """RFC 5926 3.1.1.2: a master key that is not an AES key is first made one."""
    return secret if len(secret) == 16 else _aes_cmac(bytes(16), secret)


@dataclass(frozen=True)
class Algorithm:
    """A MAC with its KDF; in all three both are the same pseudo-random function."""

    name: str
    prf: Callable[[bytes, bytes], bytes]
    bits: int
    kdf_key: Callable[[bytes], bytes] = bytes

    def traffic_key(self, secret: bytes, context: bytes) -> bytes:
        """RFC 5926 3.1.1: one block of the PRF is exactly one traffic key."""
        message = b"\x01TCP-AO" + context + struct.pack("!H", self.bits)
        return self.prf(self.kdf_key(secret), message)

    def mac(self, traffic_key: bytes, message: bytes) -> bytes:
        """The PRF, cut to the 96 bits that travel."""
        return self.prf(traffic_key, message)[:MAC_LENGTH]


ALGORITHMS = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm("hmac-sha-1-96", _hmac_sha1, 160),
        Algorithm("aes-128-cmac-96", _aes_cmac, 128, _aes_key),
        # Not in RFC 5926; as Linux does it for "hmac(sha256)".
        Algorithm("hmac-sha-256-96", _hmac_sha256, 256),
    )
}


def kdf_context(segment: Segment, src_isn: int, dst_isn: int) -> bytes:
    """RFC 5925 5.2: the connection, seen from the segment's sender; a SYN has no dst_isn yet."""
    ports_and_isns = struct.pack("!HHII", segment.sport, segment.dport, src_isn, dst_isn)
    return segment.src + segment.dst + ports_and_isns


def mac_input(segment: Segment, sne: int, covers_options: bool) -> bytes:
    """RFC 5925 5.1: what the MAC is taken over, for a segment with one AO option."""
    (ao,) = segment.named(OPTION_AO)
    start, end = ao.offset, ao.offset + OPTION_LENGTH
    blank = segment.option_bytes[start : start + 4] + bytes(MAC_LENGTH)
    if covers_options:
        options = segment.option_bytes[:start] + blank + segment.option_bytes[end:]
    else:
        options = blank
    header = segment.header[:16] + b"\0\0" + segment.header[18:]
    pseudo = pseudo_header(segment.src, segment.dst, segment.length)
    return struct.pack("!I", sne) + pseudo + header + options + segment.payload
