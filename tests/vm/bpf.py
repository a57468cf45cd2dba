"""BPF programs, through bpf() alone: they count, refuse, lose segments, or make SYN cookies."""

import ctypes
import errno
import os
import socket
import struct
from functools import cache
from pathlib import Path

from tcp_authopt_verify.wire import ACK, RST, SYN

BTF = Path("/sys/kernel/btf/vmlinux")

SYS_BPF = 321  # x86-64
MAP_CREATE, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, PROG_LOAD, RAW_TRACEPOINT_OPEN = 0, 1, 2, 5, 17
LINK_CREATE = 28
MAP_TYPE_ARRAY, PROG_TYPE_SCHED_CLS, PROG_TYPE_TRACING = 2, 3, 26
PROG_TYPE_CGROUP_SOCKOPT, PROG_TYPE_LSM = 25, 29
CGROUP_SETSOCKOPT, FENTRY, FEXIT, LSM_MAC, TCX_INGRESS = 22, 24, 25, 27, 46
TCX_NEXT, TCX_DROP = -1, 2
ONLY_SYN_ACKS = -1
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


def _assemble(*lines: str | tuple) -> bytes:
    """Instructions, each of code, registers, offset and immediate value, and labels to jump to."""
    places: dict[str, int] = {}
    instructions = []
    for line in lines:
        if isinstance(line, str):
            places[line] = len(instructions)
        else:
            instructions.append((*line, 0, 0, 0)[:4])
    return b"".join(
        struct.pack(
            "<BBhi",
            code,
            registers,
            places[offset] - at - 1 if isinstance(offset, str) else offset,
            immediate,
        )
        for at, (code, registers, offset, immediate) in enumerate(instructions)
    )


class _Program:
    """A program with a map of one element of 64 bits; it goes when this is closed."""

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._map = self._keep(_bpf(MAP_CREATE, struct.pack("<IIII", MAP_TYPE_ARRAY, 4, 8, 1)))

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _load(self, kind: int, attach: int, instructions: bytes, target: int = 0) -> int:
        code = ctypes.create_string_buffer(instructions, len(instructions))
        license_ = ctypes.create_string_buffer(b"GPL")
        log = ctypes.create_string_buffer(LOG_SIZE)
        attributes = struct.pack(
            "<IIQQIIQII16sII36xI",
            kind,
            len(code) // 8,
            ctypes.addressof(code),
            ctypes.addressof(license_),
            1,
            LOG_SIZE,
            ctypes.addressof(log),
            0,
            0,
            b"test",
            0,
            attach,
            target,
        )
        try:
            return self._keep(_bpf(PROG_LOAD, attributes))
        except OSError as error:
            said = log.value.decode(errors="replace").strip()
            raise OSError(error.errno, f"{errno.errorcode[error.errno]}: {said}") from None

    def _element(self, command: int, value: int = 0) -> int:
        key, content = ctypes.c_uint32(0), ctypes.c_uint64(value)
        pointers = ctypes.addressof(key), ctypes.addressof(content)
        _bpf(command, struct.pack("<IIQQQ", self._map, 0, *pointers, 0))
        return content.value

    def _element_address(self, register: int) -> tuple[tuple, tuple]:
        """Instructions that load the address of the element."""
        return (0x18, 0x20 | register, 0, self._map), (0,)

    def close(self) -> None:
        """Detaches."""
        while self._fds:
            os.close(self._fds.pop())


class NoKernelSockets(_Program):
    """A rule of the machine's: the kernel makes no sockets of its own; the error is EACCES."""

    def __init__(self) -> None:
        super().__init__()
        code = _assemble(
            (0x79, 0x12, 24),  # r2 = *(u64 *)(r1 + 24), whether the socket is the kernel's
            (0xB7, 0),  # r0 = 0
            (0x16, 2, "permit"),  # if (u32)r2 == 0
            (0xB7, 0, 0, -errno.EACCES),
            "permit",
            (0x95,),  # exit
        )
        function = function_ids()["bpf_lsm_socket_create"]
        program = self._load(PROG_TYPE_LSM, LSM_MAC, code, function)
        self._keep(_bpf(RAW_TRACEPOINT_OPEN, struct.pack("<QI", 0, program)))


class NoOption(_Program):
    """A rule of a cgroup's: its sockets do not set this option; the error is EPERM."""

    def __init__(self, group: Path, level: int, option: int) -> None:
        super().__init__()
        code = _assemble(
            (0xB7, 0, 0, 1),  # r0 = 1
            (0x61, 0x12, 24),  # r2 = *(u32 *)(r1 + 24), the level
            (0x56, 2, "permit", level),  # if (u32)r2 !=
            (0x61, 0x12, 28),  # r2 = *(u32 *)(r1 + 28), the option
            (0x56, 2, "permit", option),
            (0xB7, 0),
            "permit",
            (0x95,),  # exit
        )
        program = self._load(PROG_TYPE_CGROUP_SOCKOPT, CGROUP_SETSOCKOPT, code)
        target = self._keep(os.open(group, os.O_RDONLY | os.O_DIRECTORY))
        attributes = struct.pack("<IIII", program, target, CGROUP_SETSOCKOPT, 0)
        self._keep(_bpf(LINK_CREATE, attributes))


class Counter(_Program):
    """A program on a function that counts its calls, or its returns."""

    def __init__(self, function: str, attach: int) -> None:
        super().__init__()
        try:
            code = _assemble(
                *self._element_address(1),
                (0xB7, 2, 0, 1),  # r2 = 1
                (0xDB, 0x21),  # lock *(u64 *)r1 += r2
                (0xB7, 0),  # r0 = 0
                (0x95,),  # exit
            )
            program = self._load(PROG_TYPE_TRACING, attach, code, function_ids()[function])
            self._keep(_bpf(RAW_TRACEPOINT_OPEN, struct.pack("<QI", 0, program)))
        except BaseException:
            self.close()
            raise

    @property
    def hits(self) -> int:
        """How often the program has run."""
        return self._element(MAP_LOOKUP_ELEM)


class Gate(_Program):
    """Loses TCP segments that come in at an interface of the present network namespace.

    A tap on that interface or on the other end of the cable still sees them.
    """

    def __init__(self, interface: str) -> None:
        super().__init__()
        # The element is two words of 32 bits: one in how many is lost, and how many there were.
        code = _assemble(
            (0xBF, 0x16),  # r6 = r1, the frame
            (0x28, 0, 0, 12),  # r0 = its type
            (0x15, 0, "IPv4", 0x0800),
            (0x55, 0, "pass", 0x86DD),
            (0x30, 0, 0, 14 + 6),  # r0 = next header
            (0x55, 0, "pass", 6),  # if that is not TCP
            (0x30, 0, 0, 14 + 40 + 13),  # r0 = flags
            (0x05, 0, "TCP"),
            "IPv4",
            (0x30, 0, 0, 14 + 9),
            (0x55, 0, "pass", 6),
            (0x30, 0, 0, 14 + 20 + 13),
            "TCP",
            *self._element_address(1),
            (0x61, 0x12),  # r2 = *(u32 *)r1
            (0x56, 2, "count", ONLY_SYN_ACKS),
            (0x57, 0, 0, SYN | ACK),  # r0 &= SYN | ACK
            (0x15, 0, "drop", SYN | ACK),
            (0x05, 0, "pass"),
            "count",
            (0x15, 2, "pass", 0),
            (0xB4, 3, 0, 1),  # r3 = 1
            (0xC3, 0x31, 4, 1),  # r3 = (*(u32 *)(r1 + 4))++
            (0x9C, 0x23),  # r3 %= r2
            (0x15, 3, "drop", 0),
            "pass",
            (0xB7, 0, 0, TCX_NEXT),
            (0x95,),
            "drop",
            (0xB7, 0, 0, TCX_DROP),
            (0x95,),
        )
        try:
            program = self._load(PROG_TYPE_SCHED_CLS, TCX_INGRESS, code)
            index = socket.if_nametoindex(interface)
            self._keep(_bpf(LINK_CREATE, struct.pack("<IIII", program, index, TCX_INGRESS, 0)))
        except BaseException:
            self.close()
            raise

    def shut(self) -> None:
        """Loses all."""
        self.lose_one_in(1)

    def lose_syn_acks(self) -> None:
        """Loses all of them, and nothing else."""
        self.lose_one_in(ONLY_SYN_ACKS & 0xFFFFFFFF)

    def open(self) -> None:
        """Loses none."""
        self._element(MAP_UPDATE_ELEM, 0)

    def lose_one_in(self, count: int) -> None:
        """Loses the next one, and then as regularly as that."""
        self._element(MAP_UPDATE_ELEM, count)


COOKIE = 0x0B00C165
_HEADERS = -78
"""Where on the stack a frame's headers are, of which TCP's has to be aligned."""


def _copied(function: int, offset: int, size: int, place: int) -> tuple[tuple, ...]:
    """Instructions that copy from the frame to the stack, or back."""
    return (
        (0xBF, 0x61),  # r1 = r6
        (0xB7, 2, 0, offset),
        (0xBF, 0xA3),  # r3 = r10
        (0x07, 3, 0, place),  # r3 += place
        (0xB7, 4, 0, size),
        (0xB7, 5),
        (0x85, 0, 0, function),
    )


class Cookies(_Program):
    """Answers SYNs for a port of this host with SYN cookies, before the stack sees them.

    An ACK that shows the cookie, of no connection that there is, opens one at the listener: by what
    the kernel has for that, bpf_sk_assign_tcp_reqsk(). A real one would be a secret.
    """

    def __init__(self, interface: str, wire: str, port: int) -> None:
        super().__init__()
        network = 14
        kind, source, size = {"v4": (0x0800, 12, 4), "v6": (0x86DD, 8, 16)}[wire]
        protocol = network + {"v4": 9, "v6": 6}[wire]
        tcp = network + source + 2 * size
        source += network
        index = socket.if_nametoindex(interface)
        cookie, next_one = (socket.htonl(COOKIE + more) for more in (0, 1))

        def stored(offset: int, length: int, place: int) -> tuple[tuple, ...]:
            return _copied(9, offset, length, place)  # bpf_skb_store_bytes()

        def summed(old: tuple, new: tuple, length: int) -> tuple[tuple, ...]:
            """The checksum once this has become that."""
            call = (0x85, 0, 0, 11)  # bpf_l4_csum_replace()
            return ((0xBF, 0x61), (0xB7, 2, 0, tcp + 16), old, new, (0xB7, 5, 0, length), call)

        code = _assemble(
            (0xBF, 0x16),  # r6 = r1, the frame
            (0x28, 0, 0, 12),  # r0 = its type
            (0x55, 0, "pass", kind),
            (0x30, 0, 0, protocol),
            (0x55, 0, "pass", 6),  # if that is not TCP
            (0x28, 0, 0, tcp + 2),
            (0x55, 0, "pass", port),
            *_copied(26, 0, tcp + 20, _HEADERS),  # bpf_skb_load_bytes()
            (0x71, 0xA7, _HEADERS + tcp + 13),  # r7 = flags
            (0x15, 7, "answer", SYN),
            (0x57, 7, 0, SYN | ACK | RST),  # r7 &=
            (0x55, 7, "pass", ACK),
            (0x61, 0xA1, _HEADERS + tcp + 8),  # r1 = what is acknowledged
            (0x56, 1, "pass", next_one),  # if (u32)r1 !=
            # Addresses and ports are where the kernel wants them, one behind the other.
            (0xBF, 0x61),
            (0xBF, 0xA2),
            (0x07, 2, 0, _HEADERS + source),
            (0xB7, 3, 0, 2 * size + 4),
            (0xB7, 4, 0, -1),  # in this namespace
            (0xB7, 5),
            (0x85, 0, 0, 99),  # bpf_skc_lookup_tcp()
            (0x15, 0, "pass", 0),
            (0xBF, 0x08),  # r8 = r0
            (0xB7, 9, 0, TCX_NEXT),
            (0x61, 0x81, 72),  # r1 = its state
            (0x55, 1, "release", 10),  # if it does not listen
            (0xBF, 0x81),
            (0x85, 0, 0, 137),  # bpf_skc_to_tcp_sock()
            (0x15, 0, "release", 0),
            # A struct bpf_tcp_req_attrs: the least MSS of IPv6, and no options.
            (0x7A, 10, -120),
            (0x7A, 10, -112),
            (0x62, 10, -104),
            (0x6A, 10, -120 + 8, 1220),
            (0xBF, 0x61),
            (0xBF, 0x02),
            (0xBF, 0xA3),
            (0x07, 3, 0, -120),
            (0xB7, 4, 0, 20),
            (0x85, 0x20, 0, function_ids()["bpf_sk_assign_tcp_reqsk"]),
            (0x56, 0, "release", 0),
            *self._element_address(1),
            (0xB7, 2, 0, 1),
            (0xDB, 0x21),  # lock *(u64 *)r1 += r2
            "release",
            (0xBF, 0x81),
            (0x85, 0, 0, 86),  # bpf_sk_release()
            (0xBF, 0x90),
            (0x95,),
            "answer",
            # The SYN becomes its answer, with the options of the SYN.
            *stored(0, 6, _HEADERS + 6),
            *stored(6, 6, _HEADERS),
            *stored(source, size, _HEADERS + source + size),
            *stored(source + size, size, _HEADERS + source),
            *stored(tcp, 2, _HEADERS + tcp + 2),
            *stored(tcp + 2, 2, _HEADERS + tcp),
            (0x62, 10, -96, cookie),
            (0x61, 0xA7, _HEADERS + tcp + 4),  # r7 = the SYN's number
            (0xBF, 0x78),
            (0xDC, 8, 0, 32),  # r8 = from the network's order
            (0x04, 8, 0, 1),  # (u32)r8 += 1
            (0xDC, 8, 0, 32),
            (0x63, 0x8A, -92),
            (0x69, 0xA9, _HEADERS + tcp + 12),  # r9 = offset and flags
            (0x47, 9, 0, ACK << 8),  # r9 |=
            (0x6B, 0x9A, -88),
            *summed((0xBF, 0x73), (0xB4, 4, 0, cookie), 4),
            *summed((0xB7, 3), (0xBF, 0x84), 4),
            *summed((0x69, 0xA3, _HEADERS + tcp + 12), (0xBF, 0x94), 2),
            *stored(tcp + 4, 10, -96),
            (0xB7, 1, 0, index),
            (0xB7, 2),
            (0x85, 0, 0, 23),  # bpf_redirect()
            (0x95,),
            "pass",
            (0xB7, 0, 0, TCX_NEXT),
            (0x95,),
        )
        try:
            program = self._load(PROG_TYPE_SCHED_CLS, TCX_INGRESS, code)
            self._keep(_bpf(LINK_CREATE, struct.pack("<IIII", program, index, TCX_INGRESS, 0)))
        except BaseException:
            self.close()
            raise

    @property
    def assigned(self) -> int:
        """How many ACKs were handed to the listener as ones with a right cookie."""
        return self._element(MAP_LOOKUP_ELEM)
