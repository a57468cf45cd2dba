"""Memory that whoever reads it has to wait for: userfaultfd(2)."""

import ctypes
import fcntl
import mmap
import os
import select
import struct
from typing import Self

SYS_USERFAULTFD = 323  # x86-64
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_COPY = 0xC018AA3F, 0xC020AA00, 0xC028AA03
UFFD_API, MODE_MISSING = 0xAA, 1


class Fault:
    """A value of which only the first bytes are there before `let`; system calls wait for more."""

    def __init__(self, value: bytes, begins: int) -> None:
        self._begins, self._rest = value[:begins], value[begins:]

    def __enter__(self) -> Self:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
        self._hold = ctypes.c_char.from_buffer(self._pages)
        self._missing = ctypes.addressof(self._hold) + mmap.PAGESIZE
        self.address = self._missing - len(self._begins)
        self._pages[mmap.PAGESIZE - len(self._begins) : mmap.PAGESIZE] = self._begins
        fcntl.ioctl(self._fd, UFFDIO_API, struct.pack("=QQQ", UFFD_API, 0, 0))
        where = struct.pack("=QQQQ", self._missing, mmap.PAGESIZE, MODE_MISSING, 0)
        fcntl.ioctl(self._fd, UFFDIO_REGISTER, where)
        return self

    @property
    def met(self) -> bool:
        """Whether somebody waits."""
        readable, _, _ = select.select([self._fd], [], [], 0)
        return bool(readable)

    def let(self) -> None:
        """Lets them have the rest."""
        page = ctypes.create_string_buffer(self._rest, mmap.PAGESIZE)
        copy = struct.pack("=QQQQq", self._missing, ctypes.addressof(page), mmap.PAGESIZE, 0, 0)
        fcntl.ioctl(self._fd, UFFDIO_COPY, copy)

    def __exit__(self, *_: object) -> None:
        # Who still waits goes on, and finds zeros.
        os.close(self._fd)
        del self._hold
        self._pages.close()
