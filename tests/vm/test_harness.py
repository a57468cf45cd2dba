"""The harness judged by itself: what it would not notice, it could not prove."""

import random

import pytest

from link import FIRST, V4, V6
from tcp_authopt_verify import audit
from tcp_authopt_verify.capture import Frame, read

ETHERNET, IP = 14, {"v4": 20, "v6": 40}


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_one_flipped_bit_in_a_real_capture(link, ends):
    """Every segment of a native connection in turn, one bit at random places each time."""
    connection = link.connected("native", "native", ends)
    connection.exchange()
    connection.close()
    report = link.verify()
    policy, frames = link.policy(), link.tap.frames
    chance = random.Random(ends.wire)
    start = ETHERNET + IP[ends.wire]
    for record in report.segments:
        good = frames[record.number - 1]
        # Covered by the MAC, or by the TCP checksum, which is checked as well.
        at = chance.randrange(start, len(good.data))
        damaged = bytearray(good.data)
        damaged[at] ^= 1 << chance.randrange(8)
        changed = [*frames]
        changed[record.number - 1] = Frame(good.time_ns, bytes(damaged))
        assert audit(changed, policy).bad, f"{record} with byte {at} damaged"


def test_unsigned_segments_are_noticed(link):
    connection = link.connected("plain", "plain")
    connection.exchange()
    connection.close()
    report = link.audit()
    assert len(report.bad) == len(report.segments) >= 9
    assert {record.reason for record in report.bad} == {"no AO option"}


def test_missing_frames_are_noticed(link):
    connection = link.connected("native", "native")
    connection.exchange()
    link.verify()
    # More than can be captured and not counted yet, which neighbour discovery may be at any time.
    del link.tap.frames[-4:]
    with pytest.raises(AssertionError, match="captured completely"):
        link.tap.settle(seconds=0.1)


def test_saved_capture_reads_back(link, tmp_path):
    connection = link.connected("native", "native", V4, FIRST)
    connection.exchange()
    connection.close()
    link.verify()
    link.save(tmp_path / "capture")
    assert list(read(tmp_path / "capture.pcap")) == link.tap.frames
