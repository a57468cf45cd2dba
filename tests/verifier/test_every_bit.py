"""One flipped bit, anywhere in a segment: the verifier must notice, or the RFC says it need not."""

import struct

import pytest

from conversation import Conversation, key_v4, key_v6
from craft import timed
from tcp_authopt_verify import Audit, Policy, Status, audit
from tcp_authopt_verify.capture import Frame
from tcp_authopt_verify.mac import ALGORITHMS
from tcp_authopt_verify.wire import internet_checksum, pseudo_header

ETHERNET_LENGTH = 14
IP_LENGTH = {4: 20, 6: 40}
VICTIM = 3
"""The data segment among the frames of a whole conversation."""

# Bytes that no MAC covers, because they may rightly change on the way: (first, last, mask).
UNCOVERED_V4 = [(1, 1, 0xFF), (4, 5, 0xFF), (6, 6, 0xC0), (8, 8, 0xFF)]
UNCOVERED_V6 = [(0, 0, 0x0F), (1, 3, 0xFF), (7, 7, 0xFF)]


def uncovered(version: int) -> set[int]:
    """Bit positions, from the start of the IP header, that a router may change."""
    return {
        position * 8 + bit
        for first, last, mask in (UNCOVERED_V4 if version == 4 else UNCOVERED_V6)
        for position in range(first, last + 1)
        for bit in range(8)
        if mask & (0x80 >> bit)
    }


def flip(frame: bytes, bit: int) -> bytes:
    """Flips one bit of the frame."""
    byte, shift = bit // 8, 7 - bit % 8
    return frame[:byte] + bytes([frame[byte] ^ (1 << shift)]) + frame[byte + 1 :]


def with_right_checksums(frame: bytes, version: int) -> bytes:
    """What an attacker would do: the IPv4 and TCP checksums are no protection."""
    start = ETHERNET_LENGTH + IP_LENGTH[version]
    ip, tcp = frame[ETHERNET_LENGTH:start], frame[start:]
    if version == 4:
        ip = ip[:10] + b"\0\0" + ip[12:]
        ip = ip[:10] + struct.pack("!H", internet_checksum(ip)) + ip[12:]
        src, dst = ip[12:16], ip[16:20]
    else:
        src, dst = ip[8:24], ip[24:40]
    tcp = tcp[:16] + b"\0\0" + tcp[18:]
    checksum = internet_checksum(pseudo_header(src, dst, len(tcp)) + tcp)
    return frame[:ETHERNET_LENGTH] + ip + tcp[:16] + struct.pack("!H", checksum) + tcp[18:]


def judged(auditor: Audit, frame: bytes) -> bool:
    """Whether the next frame is found to be in order."""
    return auditor.feed(Frame(0, frame)).status is not Status.BAD


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
def test_every_bit_of_the_packet(version, algorithm):
    """Ports, numbers, flags, window, options, ids, MAC, data, and what the MAC takes from IP."""
    key = (key_v4 if version == 4 else key_v6)(algorithm)
    frames = Conversation(key).whole()
    victim = frames[VICTIM]
    assert with_right_checksums(victim, version) == victim
    auditor = Audit(Policy((key,)))
    assert all(judged(auditor, frame) for frame in frames[:VICTIM])
    start = ETHERNET_LENGTH * 8
    missed = {
        bit - start
        for bit in range(start, len(victim) * 8)
        for damaged in (flip(victim, bit), with_right_checksums(flip(victim, bit), version))
        if damaged != victim and judged(auditor, damaged)
    }
    assert missed == uncovered(version)
    # None of the damaged segments has spoiled a good one.
    assert all(judged(auditor, frame) for frame in frames[VICTIM:])


@pytest.mark.parametrize("number", range(8))
def test_every_bit_of_every_segment_without_checksums(number):
    """SYN, SYN-ACK, ACK, data, FIN: the MAC alone notices all but the checksum."""
    key = key_v4("aes-128-cmac-96")
    frames = Conversation(key).whole()
    auditor = Audit(Policy((key,), check_checksums=False))
    assert all(judged(auditor, frame) for frame in frames[:number])
    start = (ETHERNET_LENGTH + 20) * 8
    missed = {
        bit - start
        for bit in range(start, len(frames[number]) * 8)
        if judged(auditor, flip(frames[number], bit))
    }
    assert missed == set(range(16 * 8, 18 * 8)), "the MAC takes the checksum as zero"
    assert all(judged(auditor, frame) for frame in frames[number:])


@pytest.mark.parametrize(
    ("field", "byte", "covered"),
    [
        ("timestamps option", 20 + 4, False),
        ("AO RNextKeyID", 20 + 12 + 3, True),
        ("window", 14, True),
        ("data", 20 + 12 + 16, True),
    ],
)
def test_key_that_does_not_cover_options(field, byte, covered):
    key = key_v4(covers_options=False)
    frames = Conversation(key).whole()
    offset = (ETHERNET_LENGTH + 20 + byte) * 8 + 7
    frames[VICTIM] = with_right_checksums(flip(frames[VICTIM], offset), 4)
    assert bool(audit(timed(frames), Policy((key,))).bad) == covered, field
