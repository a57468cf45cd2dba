"""What boxes on the path change in a SYN: the MAC covers it, but for the options if so wished."""

import struct
from collections.abc import Callable

import pytest

from clock import wait_for
from craft import SYN
from forge import Forger
from link import BAD, PORT, V4, V6, Mkt
from tcp_authopt_verify.wire import internet_checksum, pseudo_header

pytestmark = [pytest.mark.ours, pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])]

COVERED = Mkt("covered")
BARE = Mkt("bare", covers_options=False)
MSS = bytes([2, 4]) + struct.pack("!H", 1460)
CLAMPED = bytes([2, 4]) + struct.pack("!H", 536)
ETHERNET = 14


def clamp(tcp: bytes) -> bytes:
    """The option that is there gets another value."""
    assert MSS in tcp
    return tcp.replace(MSS, CLAMPED)


def add_mss(tcp: bytes) -> bytes:
    """The header gets a word longer."""
    assert MSS not in tcp
    return tcp[:12] + bytes([tcp[12] + 0x10]) + tcp[13:20] + CLAMPED + tcp[20:]


def translate(tcp: bytes) -> bytes:
    """NAT: another source port, though the same address."""
    return struct.pack("!H", 4711) + tcp[2:]


CASES = {
    "clamped": (clamp, MSS, COVERED, False),
    "clamped-bare": (clamp, MSS, BARE, True),
    "added-bare": (add_mss, b"", BARE, False),
    "translated-bare": (translate, MSS, BARE, False),
}
"""What is done, to which options, signed with what; and whether it still verifies."""


def changed(frame: bytes, change: Callable[[bytes], bytes], ends) -> bytes:
    """The frame, of one segment, with lengths and checksum put right."""
    size = 20 if ends.wire == "v4" else 40
    header, tcp = frame[ETHERNET : ETHERNET + size], change(frame[ETHERNET + size :])
    if ends.wire == "v4":
        addresses = header[12:16], header[16:20]
        header = (
            header[:2] + struct.pack("!H", size + len(tcp)) + header[4:10] + b"\0\0" + header[12:]
        )
        header = header[:10] + struct.pack("!H", internet_checksum(header)) + header[12:]
    else:
        addresses = header[8:24], header[24:40]
        header = header[:4] + struct.pack("!H", len(tcp)) + header[6:]
    tcp = tcp[:16] + b"\0\0" + tcp[18:]
    checksum = internet_checksum(pseudo_header(*addresses, len(tcp)) + tcp)
    return frame[:ETHERNET] + header + tcp[:16] + struct.pack("!H", checksum) + tcp[18:]


@pytest.mark.parametrize("case", CASES)
def test_syn_is_changed_on_its_way(link, ends, case):
    change, options, key, verifies = CASES[case]
    listener = link.listen("ours", ends, key)
    forger = Forger(link, link.a, ends.wire, 1024, PORT)
    syn = forger.tcp(seq=9000, flags=SYN, options=options)
    frame = changed(forger.frame(syn, forger.ao(key, src_isn=9000)), change, ends)
    link.a.inject(frame)
    if verifies:
        wait_for("the SYN-ACK", lambda: forger.segments(link.b))
        assert link.b.counters() == {}
        link.verify()
    else:
        wait_for("it to be refused", lambda: link.b.counters() == {BAD: 1})
        assert len(link.audit().bad) == len(link.report.segments) == 1
    assert not listener.asked
