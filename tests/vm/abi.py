"""The two TCP-AO interfaces of the kernel under test, packed by hand.

The first part is this project's (include/uapi/linux/tcp_authopt.h), the second the kernel's own
(include/uapi/linux/tcp.h). They use the same option numbers, which is a reason to test them side
by side, and both are written out here rather than taken from a header: the tests pin the ABI.
"""

import ctypes
import mmap
import os
import socket
import struct
from ipaddress import ip_address
from typing import NamedTuple, Self

# --- this project's ------------------------------------------------------------------------------

TCP_AUTHOPT = 38
TCP_AUTHOPT_KEY = 39
TCP_REPAIR_AUTHOPT = 40

FLAG_LOCK_KEYID = 1 << 0
FLAG_LOCK_RNEXTKEYID = 1 << 1
FLAG_REJECT_UNEXPECTED = 1 << 2
FLAG_ACTIVE = 1 << 3
FLAG_ACCEPT_ICMP = 1 << 16

KEY_DEL = 1 << 0
KEY_EXCLUDE_OPTS = 1 << 1
KEY_ADDR_BIND = 1 << 2
KEY_IFINDEX = 1 << 3
KEY_NOSEND = 1 << 4
KEY_NORECV = 1 << 5
KEY_PREFIXLEN = 1 << 6
KEY_SEND_LIFETIME_BEGIN = 1 << 7
KEY_SEND_LIFETIME_END = 1 << 8
KEY_RECV_LIFETIME_BEGIN = 1 << 9
KEY_RECV_LIFETIME_END = 1 << 10
KEY_REQUIRE = 1 << 16
KEY_EXEMPT = 1 << 17
KEY_STRICT = 1 << 18
KEY_ACCEPT_ICMP = 1 << 19
KEY_LOCAL_ADDR = 1 << 20
KEY_LOCAL_PREFIXLEN = 1 << 21
KEY_SERVICE_PORT = 1 << 22
KEY_VRF_NAME = 1 << 23

ALG_HMAC_SHA_1_96 = 1
ALG_AES_128_CMAC_96 = 2
ALG_HMAC_SHA_256_96 = 3

MAX_KEY_LENGTH = 80
VRF_NAME_LENGTH = 16

AUTHOPT = struct.Struct("=IBBBB")
AUTHOPT_KEY = struct.Struct("=IBBBB80s128siiQQQQ16siHH16s24s")
SERIES_KEY_SIZE = 256
"""How much of it the series has."""
REPAIR_AUTHOPT = struct.Struct("=IIIIII")

assert (AUTHOPT.size, AUTHOPT_KEY.size, REPAIR_AUTHOPT.size) == (8, 320, 24)

AUTHOPT_KEY_OFFSETS = {
    "flags": 0,
    "send_id": 4,
    "recv_id": 5,
    "alg": 6,
    "keylen": 7,
    "key": 8,
    "addr": 88,
    "ifindex": 216,
    "prefixlen": 220,
    "send_lifetime_begin": 224,
    "send_lifetime_end": 232,
    "recv_lifetime_begin": 240,
    "recv_lifetime_end": 248,
    "local": 256,
    "local_prefixlen": 272,
    "service_port": 276,
    "reserved1": 278,
    "vrf": 280,
    "reserved2": 296,
}


class Authopt(NamedTuple):
    """What getsockopt(TCP_AUTHOPT) says: the ids of the last segment sent and received."""

    flags: int
    send_keyid: int
    send_rnextkeyid: int
    recv_keyid: int
    recv_rnextkeyid: int


def set_authopt(
    sock: socket.socket, flags: int = 0, send_keyid: int = 0, send_rnextkeyid: int = 0
) -> None:
    """Asks for protection of the socket's connections where a key matches."""
    value = AUTHOPT.pack(flags, send_keyid, send_rnextkeyid, 0, 0)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_AUTHOPT, value)


def get_authopt(sock: socket.socket) -> Authopt:
    """Reads the socket's state back."""
    value = sock.getsockopt(socket.IPPROTO_TCP, TCP_AUTHOPT, AUTHOPT.size)
    return Authopt(*AUTHOPT.unpack(value))


def pack_sockaddr(address: str | None) -> bytes:
    """A sockaddr_storage; all zero for no address."""
    if address is None:
        return bytes(128)
    parsed = ip_address(address)
    if parsed.version == 4:
        start = struct.pack("=HH", socket.AF_INET, 0) + parsed.packed
    else:
        start = struct.pack("=HHI", socket.AF_INET6, 0, 0) + parsed.packed
    return start.ljust(128, b"\0")


def pack_key(
    send_id: int,
    recv_id: int,
    *,
    alg: int = ALG_HMAC_SHA_1_96,
    secret: bytes = b"",
    address: str | None = None,
    prefixlen: int | None = None,
    ifindex: int | None = None,
    flags: int = 0,
    lifetimes: tuple[int, int, int, int] = (0, 0, 0, 0),
    keylen: int | None = None,
    local: str | None = None,
    local_prefixlen: int | None = None,
    port: int | None = None,
    vrf: str | None = None,
) -> bytes:
    """A struct tcp_authopt_key; the flags of the fields that are given are set by themselves.

    It is as long as the series has it, unless a field behind that is given.
    """
    if local is not None:
        flags |= KEY_LOCAL_ADDR
    if local_prefixlen is not None:
        flags |= KEY_LOCAL_PREFIXLEN
    if port is not None:
        flags |= KEY_SERVICE_PORT
    if vrf is not None:
        flags |= KEY_VRF_NAME
    if address is not None:
        flags |= KEY_ADDR_BIND
    if prefixlen is not None:
        flags |= KEY_PREFIXLEN
    if ifindex is not None:
        flags |= KEY_IFINDEX
    # The local address is in the family of the other one.
    sockaddr = pack_sockaddr(address)
    if address is None and local is not None:
        any_address = {4: "0.0.0.0", 6: "::"}[ip_address(local).version]
        sockaddr = pack_sockaddr(any_address)
    packed = AUTHOPT_KEY.pack(
        flags,
        send_id,
        recv_id,
        alg,
        len(secret) if keylen is None else keylen,
        secret,
        sockaddr,
        ifindex or 0,
        prefixlen or 0,
        *lifetimes,
        b"" if local is None else ip_address(local).packed,
        local_prefixlen or 0,
        port or 0,
        0,
        b"" if vrf is None else vrf.encode(),
        b"",
    )
    return packed if any(packed[SERIES_KEY_SIZE:]) else packed[:SERIES_KEY_SIZE]


def pack_policy(flags: int, **criteria: object) -> bytes:
    """The same for a policy."""
    return pack_key(0, 0, alg=0, flags=flags, **criteria)


def set_key(sock: socket.socket, key: bytes) -> None:
    """Adds, replaces or deletes a key of the socket's network namespace."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_AUTHOPT_KEY, key)


class RepairAuthopt(NamedTuple):
    """What a protected connection needs to go on elsewhere."""

    src_isn: int
    dst_isn: int
    snd_sne: int
    rcv_sne: int
    snd_seq: int
    rcv_seq: int


def get_repair(sock: socket.socket) -> RepairAuthopt:
    """Reads it; the socket must be in repair."""
    value = sock.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR_AUTHOPT, REPAIR_AUTHOPT.size)
    return RepairAuthopt(*REPAIR_AUTHOPT.unpack(value))


def set_repair(sock: socket.socket, repair: RepairAuthopt) -> None:
    """Sets it; the socket must be in repair."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_AUTHOPT, REPAIR_AUTHOPT.pack(*repair))


# --- the kernel's own ----------------------------------------------------------------------------

TCP_AO_ADD_KEY = 38
TCP_AO_DEL_KEY = 39
TCP_AO_INFO = 40
TCP_AO_GET_KEYS = 41
TCP_AO_REPAIR = 42

KEYF_EXCLUDE_OPT = 1 << 1
SET_CURRENT = 1 << 0
SET_RNEXT = 1 << 1
INFO_AO_REQUIRED = 1 << 2
INFO_ACCEPT_ICMPS = 1 << 4

AO_ADD = struct.Struct("=128s64siIHBBBBBB80s")
AO_DEL = struct.Struct("=128siIHBBBBBB")
AO_INFO = struct.Struct("=IHBBQQQQQ")
AO_GET = struct.Struct("=128s64s80sIHBBBBBBiQQ")

GET_ALL = 1 << 2

assert (AO_ADD.size, AO_DEL.size, AO_INFO.size, AO_GET.size) == (288, 144, 48, 304)


def native_add_key(
    sock: socket.socket,
    address: str,
    prefix: int,
    send_id: int,
    recv_id: int,
    algorithm: str,
    secret: bytes,
    *,
    covers_options: bool = True,
    select: int = 0,
) -> None:
    """TCP_AO_ADD_KEY; `select` is a sum of SET_CURRENT and SET_RNEXT."""
    value = AO_ADD.pack(
        pack_sockaddr(address),
        algorithm.encode(),
        0,
        select,
        0,
        prefix,
        send_id,
        recv_id,
        0,
        0 if covers_options else KEYF_EXCLUDE_OPT,
        len(secret),
        secret,
    )
    sock.setsockopt(socket.IPPROTO_TCP, TCP_AO_ADD_KEY, value)


def native_del_key(
    sock: socket.socket,
    address: str,
    prefix: int,
    send_id: int,
    recv_id: int,
    *,
    then: tuple[int, int] | None = None,
) -> None:
    """TCP_AO_DEL_KEY; `then` are the send_id and recv_id to use from now on."""
    select = 0 if then is None else SET_CURRENT | SET_RNEXT
    current, rnext = then or (0, 0)
    value = AO_DEL.pack(
        pack_sockaddr(address), 0, select, 0, prefix, send_id, recv_id, current, rnext, 0
    )
    sock.setsockopt(socket.IPPROTO_TCP, TCP_AO_DEL_KEY, value)


class NativeInfo(NamedTuple):
    """What getsockopt(TCP_AO_INFO) says."""

    flags: int
    current_key: int
    rnext: int
    good: int
    bad: int
    key_not_found: int
    ao_required: int
    dropped_icmp: int

    @classmethod
    def read(cls, sock: socket.socket) -> Self:
        """Asks the kernel."""
        # It minds reserved bits of the buffer that it answers into.
        value = getsockopt_filled(sock, TCP_AO_INFO, bytes(AO_INFO.size))
        flags, _, *rest = AO_INFO.unpack(value)
        return cls(flags, *rest)


def native_set_info(sock: socket.socket, flags: int) -> None:
    """TCP_AO_INFO: all flags are set, or not, as given."""
    value = AO_INFO.pack(flags, *(0,) * 8)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_AO_INFO, value)


def native_require(sock: socket.socket) -> None:
    """Refuses unsigned connections even from peers without a key."""
    native_set_info(sock, INFO_AO_REQUIRED)


def native_ask(sock: socket.socket, recv_id: int) -> None:
    """TCP_AO_INFO: the key to ask the peer for."""
    value = AO_INFO.pack(SET_RNEXT, 0, 0, recv_id, *(0,) * 5)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_AO_INFO, value)


# --- the system calls, with what Python's own keep from the kernel --------------------------------

_LIBC = ctypes.CDLL(None, use_errno=True)


def _check(failed: int) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def setsockopt_at(sock: socket.socket, option: int, address: int, length: int) -> None:
    """setsockopt() with a value anywhere in memory, or where there is none."""
    value = ctypes.c_void_p(address)
    _check(_LIBC.setsockopt(sock.fileno(), socket.IPPROTO_TCP, option, value, length))


def getsockopt_at(sock: socket.socket, option: int, address: int, length: int) -> int:
    """getsockopt() into anywhere; returns the length that the kernel has answered."""
    size = ctypes.c_int32(length)
    value = ctypes.c_void_p(address)
    _check(_LIBC.getsockopt(sock.fileno(), socket.IPPROTO_TCP, option, value, ctypes.byref(size)))
    return size.value


def getsockopt_without_length(sock: socket.socket, option: int) -> None:
    """getsockopt() with a length that cannot be read."""
    value = ctypes.create_string_buffer(64)
    nowhere = ctypes.c_void_p(NOWHERE)
    _check(_LIBC.getsockopt(sock.fileno(), socket.IPPROTO_TCP, option, value, nowhere))


def getsockopt_filled(sock: socket.socket, option: int, question: bytes) -> bytes:
    """getsockopt() with a question in the buffer, which Python's own leaves empty."""
    buffer = bytearray(question or b"\0")
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    return bytes(buffer[: getsockopt_at(sock, option, address, len(question))])


NOWHERE = 8
"""An address at which nothing can be."""


class Cliff:
    """Memory that ends: what begins `length` bytes before the end cannot be read further."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
        self._end = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) + mmap.PAGESIZE
        end = ctypes.c_void_p(self._end)
        _check(_LIBC.mprotect(end, mmap.PAGESIZE, 0))

    def hold(self, value: bytes) -> int:
        """Puts the value right before the end, and returns its address."""
        ctypes.memmove(self._end - len(value), value, len(value))
        return self._end - len(value)


# --- TCP_MD5SIG, the kernel's too ----------------------------------------------------------------

TCP_MD5SIG, TCP_MD5SIG_EXT = 14, 32
MD5SIG_FLAG_PREFIX = 1

MD5SIG = struct.Struct("=128sBBHi80s")

assert MD5SIG.size == 216


def set_md5(sock: socket.socket, address: str, secret: bytes, prefixlen: int | None = None) -> None:
    """The socket's MD5 key for this peer or prefix; an empty one deletes it."""
    option = TCP_MD5SIG if prefixlen is None else TCP_MD5SIG_EXT
    sock.setsockopt(socket.IPPROTO_TCP, option, pack_md5(address, secret, prefixlen))


def pack_md5(address: str, secret: bytes, prefixlen: int | None = None) -> bytes:
    """An MD5 key for this peer or prefix."""
    flags = 0 if prefixlen is None else MD5SIG_FLAG_PREFIX
    return MD5SIG.pack(pack_sockaddr(address), flags, prefixlen or 0, len(secret), 0, secret)
