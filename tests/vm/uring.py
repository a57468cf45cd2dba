"""io_uring, by its two calls alone: one operation at a time, which sockets need no other for."""

import ctypes
import mmap
import os
import socket
import struct
from typing import Self

IO_URING_SETUP, IO_URING_ENTER = 425, 426
ACCEPT, CONNECT, SEND, SOCKET, BIND, LISTEN = 13, 16, 26, 45, 56, 57
RING, ENTRIES = 0, 0x10000000
GETEVENTS = 1
ENTRY = struct.Struct("=BBHiQQIIQ24x")  # opcode, flags, priority, fd, off, addr, len, flags, data
RESULT = struct.Struct("=QiI")
COUNT = 8

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    result = _libc.syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def pack_address(address: tuple) -> ctypes.Array:
    """A sockaddr of either family, which has to live as long as the operation."""
    host, port = address[:2]
    if ":" in host:
        packed = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0)
        packed += socket.inet_pton(socket.AF_INET6, host) + bytes(4)
    else:
        packed = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port)
        packed += socket.inet_pton(socket.AF_INET, host) + bytes(8)
    return ctypes.create_string_buffer(packed, len(packed))


class Ring:
    """What a program asks the kernel for through memory that they share."""

    def __init__(self) -> None:
        parameters = ctypes.create_string_buffer(120)
        self._fd = _call(IO_URING_SETUP, COUNT, parameters)
        self._kept: list[object] = []
        said = struct.unpack("=30I", parameters.raw)
        _, self._tail, self._mask, _, _, _, self._array = said[10:17]
        self._done, self._last, self._done_mask, _, _, self._results = said[20:26]
        size = max(self._array + 4 * said[0], self._results + RESULT.size * said[1])
        self._ring = mmap.mmap(self._fd, size, offset=RING)
        self._entries = mmap.mmap(self._fd, ENTRY.size * said[0], offset=ENTRIES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._entries.close()
        self._ring.close()
        os.close(self._fd)

    def _word(self, at: int) -> int:
        return struct.unpack_from("=I", self._ring, at)[0]

    def begin(self, code: int, fd: int, off: int = 0, what: object = None, size: int = 0) -> None:
        """Asks for an operation, and does not wait for it."""
        self._kept.append(what)
        address = ctypes.addressof(what) if what is not None else 0
        tail = self._word(self._tail)
        slot = tail & self._word(self._mask)
        ENTRY.pack_into(self._entries, slot * ENTRY.size, code, 0, 0, fd, off, address, size, 0, 0)
        struct.pack_into("=I", self._ring, self._array + 4 * slot, slot)
        struct.pack_into("=I", self._ring, self._tail, tail + 1)
        assert _call(IO_URING_ENTER, self._fd, 1, 0, 0, None, 0) == 1

    @property
    def done(self) -> bool:
        """Whether there is a result that nobody has taken."""
        _call(IO_URING_ENTER, self._fd, 0, 0, GETEVENTS, None, 0)
        return self._word(self._done) != self._word(self._last)

    def take(self) -> int:
        """Waits for the next result; an error is raised."""
        if not self.done:
            _call(IO_URING_ENTER, self._fd, 0, 1, GETEVENTS, None, 0)
        head = self._word(self._done)
        slot = head & self._word(self._done_mask)
        _, result, _ = RESULT.unpack_from(self._ring, self._results + RESULT.size * slot)
        struct.pack_into("=I", self._ring, self._done, head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def do(self, code: int, fd: int, off: int = 0, what: object = None, size: int = 0) -> int:
        """The operation and its result."""
        self.begin(code, fd, off, what, size)
        return self.take()

    def socket(self, family: socket.AddressFamily) -> int:
        """A TCP socket of the present network namespace."""
        # fd is the family, off the type, and len the protocol.
        return self.do(SOCKET, family, socket.SOCK_STREAM)

    def bind(self, fd: int, address: tuple) -> None:
        """Gives it an address."""
        packed = pack_address(address)
        self.do(BIND, fd, len(packed), packed)

    def listen(self, fd: int, backlog: int = 8) -> None:
        """Makes it a listener."""
        self.do(LISTEN, fd, size=backlog)

    def connect(self, fd: int, address: tuple) -> None:
        """Connects it, and waits for the end of that."""
        packed = pack_address(address)
        self.do(CONNECT, fd, len(packed), packed)

    def send(self, fd: int, data: bytes) -> int:
        """Sends, and gives how much."""
        buffer = ctypes.create_string_buffer(data, len(data))
        return self.do(SEND, fd, 0, buffer, len(data))
