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
    """A page that is not there before `let`; also system calls wait for it."""

    def __enter__(self) -> Self:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._hold = ctypes.c_char.from_buffer(self._page)
        self.address = ctypes.addressof(self._hold)
        fcntl.ioctl(self._fd, UFFDIO_API, struct.pack("=QQQ", UFFD_API, 0, 0))
        where = struct.pack("=QQQQ", self.address, mmap.PAGESIZE, MODE_MISSING, 0)
        fcntl.ioctl(self._fd, UFFDIO_REGISTER, where)
        return self

    @property
    def met(self) -> bool:
        """Whether somebody waits."""
        readable, _, _ = select.select([self._fd], [], [], 0)
        return bool(readable)

    def let(self, content: bytes) -> None:
        """Lets them have a page with this in it."""
        page = ctypes.create_string_buffer(content, mmap.PAGESIZE)
        copy = struct.pack("=QQQQq", self.address, ctypes.addressof(page), mmap.PAGESIZE, 0, 0)
        fcntl.ioctl(self._fd, UFFDIO_COPY, copy)

    def __exit__(self, *_: object) -> None:
        # Who still waits goes on, and finds zeros.
        os.close(self._fd)
        del self._hold
        self._page.close()
