"""Memory whose content comes when a test says so: a system call that reads it waits until then."""

import ctypes
import fcntl
import mmap
import os
import select
import struct
from collections.abc import Callable
from threading import Thread

from clock import SLOWDOWN

SYS_USERFAULTFD = 323  # x86-64
API, REGISTER, COPY = 0xC018AA3F, 0xC020AA00, 0xC028AA03
API_VERSION, MISSING = 0xAA, 1

_libc = ctypes.CDLL(None, use_errno=True)


class Unwritten:
    """A value of which only the beginning is written, and a call, in a thread, that reads it."""

    def __init__(self, begins: bytes = b"") -> None:
        self._fd = _libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        pages = mmap.mmap(-1, 2 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._missing = ctypes.addressof(ctypes.c_char.from_buffer(pages)) + mmap.PAGESIZE
        self.address = self._missing - len(begins)
        pages[mmap.PAGESIZE - len(begins) : mmap.PAGESIZE] = begins
        self._pages = pages
        fcntl.ioctl(self._fd, API, struct.pack("=QQQ", API_VERSION, 0, 0))
        where = struct.pack("=QQQQ", self._missing, mmap.PAGESIZE, MISSING, 0)
        fcntl.ioctl(self._fd, REGISTER, where)
        self._call: Thread | None = None
        self._answer: int | None = None

    def __enter__(self) -> "Unwritten":
        return self

    def __exit__(self, *_: object) -> None:
        if self._call:
            self.write(b"")
        os.close(self._fd)

    def read_by(self, call: Callable[[], object]) -> None:
        """Starts the call, and returns once it waits for what it has to read."""

        def run() -> None:
            try:
                call()
                self._answer = 0
            except OSError as error:
                self._answer = error.errno

        self._call = Thread(target=run, daemon=True)
        self._call.start()
        readable, _, _ = select.select([self._fd], [], [], 10 * SLOWDOWN)
        assert readable, "the call does not read"
        os.read(self._fd, 32)

    @property
    def waits(self) -> bool:
        """Whether the call has not come back."""
        return self._call is not None and self._call.is_alive()

    def write(self, value: bytes) -> int | None:
        """Writes the rest; gives what has become of the call: 0, or its error."""
        assert self._call
        source = ctypes.create_string_buffer(value, mmap.PAGESIZE)
        where = self._missing, ctypes.addressof(source)
        fcntl.ioctl(self._fd, COPY, struct.pack("=QQQQq", *where, mmap.PAGESIZE, 0, 0))
        self._call.join(10 * SLOWDOWN)
        assert not self._call.is_alive(), "the call does not return"
        self._call = None
        return self._answer
