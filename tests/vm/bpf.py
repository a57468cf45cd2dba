"""fentry and fexit programs that count, through the bpf() system call alone."""

import ctypes
import errno
import os
import struct
from functools import cache
from pathlib import Path

BTF = Path("/sys/kernel/btf/vmlinux")

SYS_BPF = 321  # x86-64
MAP_CREATE, MAP_LOOKUP_ELEM, PROG_LOAD, RAW_TRACEPOINT_OPEN = 0, 1, 5, 17
MAP_TYPE_ARRAY, PROG_TYPE_TRACING = 2, 26
FENTRY, FEXIT = 24, 25
LOG_SIZE = 1 << 16

_KIND_FUNC = 12
# What follows a type in BTF, by its kind: so much, and so much for each of its members.
_EXTRA = {
    0: (0, 0),  # void
    1: (4, 0),  # integer
    3: (12, 0),  # array
    4: (0, 12),  # struct
    5: (0, 12),  # union
    6: (0, 8),  # enum
    13: (0, 8),  # prototype
    14: (4, 0),  # variable
    15: (0, 12),  # section
    17: (4, 0),  # declaration tag
    19: (0, 12),  # enum of 64 bits
}

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes.ljust(152, b"\0"), 152)
    result = _libc.syscall(SYS_BPF, command, buffer, ctypes.sizeof(buffer))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@cache
def function_ids() -> dict[str, int]:
    """The number of each function in the kernel's type information."""
    data = BTF.read_bytes()
    magic, _, _, header, types, types_size, strings, _ = struct.unpack_from("<HBBIIIII", data)
    assert magic == 0xEB9F
    at, end = header + types, header + types + types_size
    strings += header
    found, number = {}, 0
    unpack = struct.Struct("<III").unpack_from
    while at < end:
        name, info, _ = unpack(data, at)
        number += 1
        kind = info >> 24 & 0x1F
        if kind == _KIND_FUNC:
            start = strings + name
            found[data[start : data.index(0, start)].decode()] = number
        once, each = _EXTRA.get(kind, (0, 0))
        at += 12 + once + each * (info & 0xFFFF)
    return found


def _instruction(code: int, registers: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", code, registers, offset, immediate)


class Counter:
    """A program on a function that counts; it goes when this is closed."""

    def __init__(self, function: str, attach: int) -> None:
        self._fds: list[int] = []
        try:
            self._map = self._keep(_bpf(MAP_CREATE, struct.pack("<IIII", MAP_TYPE_ARRAY, 4, 8, 1)))
            program = self._keep(self._load(function, attach))
            self._keep(_bpf(RAW_TRACEPOINT_OPEN, struct.pack("<QI", 0, program)))
        except BaseException:
            self.close()
            raise

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _load(self, function: str, attach: int) -> int:
        """The program: adds 1 to the only element of the map, and returns 0."""
        code = b"".join(
            (
                _instruction(0x18, 0x21, 0, self._map),  # r1 = address of the element
                _instruction(0),
                _instruction(0xB7, 2, 0, 1),  # r2 = 1
                _instruction(0xDB, 0x21),  # lock *(u64 *)r1 += r2
                _instruction(0xB7, 0),  # r0 = 0
                _instruction(0x95),  # exit
            )
        )
        code = ctypes.create_string_buffer(code, len(code))
        license_ = ctypes.create_string_buffer(b"GPL")
        log = ctypes.create_string_buffer(LOG_SIZE)
        attributes = struct.pack(
            "<IIQQIIQII16sII36xI",
            PROG_TYPE_TRACING,
            len(code) // 8,
            ctypes.addressof(code),
            ctypes.addressof(license_),
            1,
            LOG_SIZE,
            ctypes.addressof(log),
            0,
            0,
            b"count",
            0,
            attach,
            function_ids()[function],
        )
        try:
            return _bpf(PROG_LOAD, attributes)
        except OSError as error:
            said = log.value.decode(errors="replace").strip()
            raise OSError(error.errno, f"{errno.errorcode[error.errno]}: {said}") from None

    @property
    def hits(self) -> int:
        """How often the program has run."""
        key, value = ctypes.c_uint32(0), ctypes.c_uint64()
        pointers = ctypes.addressof(key), ctypes.addressof(value)
        _bpf(MAP_LOOKUP_ELEM, struct.pack("<IIQQQ", self._map, 0, *pointers, 0))
        return value.value

    def close(self) -> None:
        """Detaches."""
        while self._fds:
            os.close(self._fds.pop())
