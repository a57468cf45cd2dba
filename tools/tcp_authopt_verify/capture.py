"""Capture files: the classic pcap format, read strictly.

A capture that is cut short may hide the very segment that is wrong, so anything which does not
add up is an error and never the end of the file.
"""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

LINKTYPE_ETHERNET = 1

_MICROSECONDS = 0xA1B2C3D4
_NANOSECONDS = 0xA1B23C4D
_PCAPNG = b"\x0a\x0d\x0d\x0a"
_FILE_HEADER = struct.Struct("IHHiIII")
_RECORD_HEADER = struct.Struct("IIII")
_SNAPLEN = 262144


class CaptureError(Exception):
    """The file is not a whole and complete capture."""


class Frame(NamedTuple):
    """One captured frame: when, in nanoseconds since the epoch, and what."""

    time_ns: int
    data: bytes


def read(path: str | Path) -> Iterator[Frame]:
    """Yields every frame of the file; raises CaptureError where it does not add up."""
    raw = Path(path).read_bytes()
    if raw[:4] == _PCAPNG:
        raise CaptureError("a pcapng file: convert it with `tcpdump -r IN -w OUT`")
    if len(raw) < _FILE_HEADER.size:
        raise CaptureError("shorter than a pcap header")
    for order in "<>":
        (magic,) = struct.unpack_from(order + "I", raw)
        if magic in (_MICROSECONDS, _NANOSECONDS):
            break
    else:
        raise CaptureError(f"no pcap magic number: {raw[:4].hex()}")
    tick_ns = 1 if magic == _NANOSECONDS else 1000
    *_, snaplen, linktype = struct.unpack_from(order + _FILE_HEADER.format, raw)
    if linktype != LINKTYPE_ETHERNET:
        raise CaptureError(f"link type {linktype}, not Ethernet: capture on one interface")

    offset = _FILE_HEADER.size
    while offset < len(raw):
        if offset + _RECORD_HEADER.size > len(raw):
            raise CaptureError(f"truncated: half a record header at byte {offset}")
        seconds, ticks, kept, length = struct.unpack_from(
            order + _RECORD_HEADER.format, raw, offset
        )
        offset += _RECORD_HEADER.size
        if kept != length or kept > snaplen:
            raise CaptureError(f"only {kept} of {length} bytes of a frame kept: capture with -s 0")
        if offset + kept > len(raw):
            raise CaptureError(f"truncated: half a frame at byte {offset}")
        yield Frame(seconds * 1_000_000_000 + ticks * tick_ns, raw[offset : offset + kept])
        offset += kept


def write(path: str | Path, frames: Iterable[Frame]) -> None:
    """Writes the frames as a pcap file with nanosecond times."""
    with Path(path).open("wb") as out:
        out.write(
            struct.pack(
                "<" + _FILE_HEADER.format, _NANOSECONDS, 2, 4, 0, 0, _SNAPLEN, LINKTYPE_ETHERNET
            )
        )
        for frame in frames:
            seconds, nanoseconds = divmod(frame.time_ns, 1_000_000_000)
            size = len(frame.data)
            out.write(struct.pack("<" + _RECORD_HEADER.format, seconds, nanoseconds, size, size))
            out.write(frame.data)
