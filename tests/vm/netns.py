"""Network namespaces, the cable between two of them, and a tap on it."""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clock import ticks
from tcp_authopt_verify.capture import Frame

_SELF = Path("/proc/self")  # the main thread, which is the only one
_NET = "/proc/self/ns/net"

SIOCETHTOOL = 0x8946
OFFLOADS_OFF = {
    "rx-checksum": 0x15,
    "tx-checksum": 0x17,
    "tso": 0x1F,
    "gso": 0x24,
    "gro": 0x2C,
}

ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
CAPTURE_BUFFER = 64 << 20
SNAPLEN = 65536


class Namespace:
    """A network namespace that lives as long as no object of it is left open."""

    def __init__(self, same: "Namespace | None" = None) -> None:
        if same is not None:
            self.fd = os.dup(same.fd)
            return
        before = os.open(_NET, os.O_RDONLY)
        try:
            os.unshare(os.CLONE_NEWNET)
            self.fd = os.open(_NET, os.O_RDONLY)
        finally:
            os.setns(before, os.CLONE_NEWNET)
            os.close(before)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """What runs inside sees this namespace; a socket made here belongs to it for good."""
        before = os.open(_NET, os.O_RDONLY)
        os.setns(self.fd, os.CLONE_NEWNET)
        try:
            yield
        finally:
            os.setns(before, os.CLONE_NEWNET)
            os.close(before)

    def read(self, name: str) -> str:
        """The content of a file under /proc/net."""
        with self.entered():
            return (_SELF / "net" / name).read_text()

    def write_sysctl(self, name: str, value: object) -> None:
        """Sets a sysctl, written with slashes."""
        with self.entered():
            Path("/proc/sys", name).write_text(str(value))

    def counters(self) -> dict[str, int]:
        """The TcpExt counters."""
        names, values = (
            line.split()[1:]
            for line in self.read("netstat").splitlines()
            if line.startswith("TcpExt:")
        )
        return dict(zip(names, map(int, values), strict=True))

    def close(self) -> None:
        """Lets the kernel take the namespace down."""
        os.close(self.fd)


def offloads_off(interface: str) -> None:
    """Makes captured frames those on the wire: whole, and with their checksums."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in OFFLOADS_OFF.values():
            value = ctypes.create_string_buffer(struct.pack("=II", command, 0))
            request = struct.pack("=16sQ16x", interface.encode(), ctypes.addressof(value))
            fcntl.ioctl(sock, SIOCETHTOOL, request)


def through_all_cpus() -> None:
    """Runs on each CPU in turn: a frame that was being passed on there before has been."""
    cpus = os.sched_getaffinity(0)
    for cpu in cpus:
        os.sched_setaffinity(0, {cpu})
    os.sched_setaffinity(0, cpus)


TX_DROP = 11
"""A field of /proc/net/dev."""


class Tap:
    """Captures every frame of an interface into a socket's buffer, which nothing has to empty.

    Its proof of completeness: the kernel says that it dropped none, and there are as many frames
    as the interface counted packets since the tap was opened.
    """

    def __init__(self, namespace: Namespace, interface: str) -> None:
        self.namespace, self.interface = namespace, interface
        self.frames: list[Frame] = []
        self.drops = 0
        with namespace.entered():
            self._counts = os.open("/proc/self/net/dev", os.O_RDONLY)
        for _ in ticks(f"a moment's silence on {interface}"):
            self._base, self._lost = self._packets(), self._count(TX_DROP)
            self._socket = self._open()
            # A frame between the count and the tap would be missed, and one that was counted, but
            # not yet passed on, be captured: neither may have come.
            through_all_cpus()
            if self._packets() == self._base and not self.drain():
                return
            self._socket.close()
            self.frames.clear()

    def _packets(self) -> int:
        """The interface's own count of packets received and sent."""
        return self._count(1) + self._count(9)

    def _count(self, field: int) -> int:
        """A field of its line in /proc/net/dev."""
        for line in os.pread(self._counts, 1 << 16, 0).decode().splitlines():
            name, _, numbers = line.partition(":")
            if name.strip() == self.interface:
                return int(numbers.split()[field])
        raise LookupError(self.interface)

    def _open(self) -> socket.socket:
        with self.namespace.entered():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, CAPTURE_BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            sock.setblocking(False)
            sock.bind((self.interface, ETH_P_ALL))
            return sock

    def drain(self) -> list[Frame]:
        """Takes over what has come so far, and returns all since the beginning."""
        while True:
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(SNAPLEN, 64)
            except BlockingIOError:
                break
            assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
            ((_, _, stamp),) = ancillary
            seconds, nanoseconds = struct.unpack("=qq", stamp)
            self.frames.append(Frame(seconds * 1_000_000_000 + nanoseconds, data))
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self.drops += struct.unpack("=II", statistics)[1]
        return self.frames

    def has(self, captured: int) -> bool:
        """Whether so many frames are all that the interface has counted since the tap was opened.

        What it could not send, since the other end was not up, may be among them.
        """
        counted = self._packets() - self._base
        return counted <= captured <= counted + self._count(TX_DROP) - self._lost

    def settle(self, seconds: float = 5.0) -> list[Frame]:
        """Waits until all that the interface counted is here and no more is coming."""
        seen = -1
        for _ in ticks(f"{self.interface} to be captured completely", seconds):
            captured = len(self.drain())
            # Counted last: what comes in between must not make up for a frame that is missing.
            if captured == seen and self.has(captured):
                return self.frames
            seen = captured
        raise AssertionError("ticks() ends by itself")

    def close(self) -> None:
        """Stops capturing."""
        self._socket.close()
        os.close(self._counts)
