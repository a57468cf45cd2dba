"""The contract of Documentation/abi.rst as a model: what each call must answer, and why not else.

It shares nothing with the module, not even its language. Errors are numbers, 0 is success.
"""

from dataclasses import dataclass, field
from enum import Enum
from errno import EEXIST, EINVAL, ENOENT, ENOSPC
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, AddressFamily

import abi

PAGE = 4096
HEADER = "flags\tsend_id\trecv_id\talg\taddr\tl3index\n"


class State(Enum):
    """Which TCP-AO state a socket carries."""

    NEITHER = "neither"
    OURS = "ours"
    NATIVE = "native"


class Whose(Enum):
    """Who answers a call."""

    KERNEL = "the kernel"
    OURS = "we"
    NOBODY = "nobody: ENOPROTOOPT"


def whose(option: int, value: bytes, state: State, *, setting: bool) -> Whose:
    """The table "Beside the kernel's own TCP-AO"; of a get only the length of `value` counts."""
    if state is State.NATIVE:
        return Whose.KERNEL
    if option in (abi.TCP_AO_GET_KEYS, abi.TCP_AO_REPAIR):
        return Whose.NOBODY if state is State.OURS else Whose.KERNEL
    if option == abi.TCP_AUTHOPT_KEY and not setting:
        return Whose.NOBODY
    if state is State.OURS:
        return Whose.OURS
    native = {
        abi.TCP_AO_ADD_KEY: setting and 288 <= len(value) <= PAGE and not is_zero(value[8:]),
        abi.TCP_AO_DEL_KEY: len(value) == 144,
        abi.TCP_AO_INFO: len(value) >= 48,
    }
    return Whose.KERNEL if native[option] else Whose.OURS


def is_zero(value: bytes) -> bool:
    """No bit is set."""
    return not value.strip(b"\0")


def fitted(value: bytes, size: int) -> bytes | None:
    """A shorter value filled up; None for a longer one whose rest is not zero, or over a page."""
    fits = len(value) <= PAGE and is_zero(value[size:])
    return value[:size].ljust(size, b"\0") if fits else None


def flags_of(value: bytes) -> int:
    """Both structures begin with them."""
    return int.from_bytes(value[:4], "little")


def set_authopt(value: bytes) -> int:
    """TCP_AUTHOPT."""
    struct = fitted(value, abi.AUTHOPT.size)
    return EINVAL if struct is None or flags_of(struct) & ~0x1000F else 0


@dataclass(frozen=True)
class Identity:
    """What makes a key the same key."""

    send_id: int
    recv_id: int
    ifindex: int | None
    prefix: IPv4Network | IPv6Network | None
    """Of mapped addresses it is one of IPv4."""
    prefix_given: bool

    @property
    def criteria(self) -> tuple:
        """Whom the key matches."""
        return self.ifindex, self.prefix

    @property
    def combination(self) -> tuple:
        """Which criteria there are."""
        prefix = self.prefix and (self.prefix.version, self.prefix.prefixlen)
        return self.ifindex is not None, prefix

    def overlaps(self, other: "Identity") -> bool:
        """The two keys could not be told apart by one of their ids."""
        same_id = self.send_id == other.send_id or self.recv_id == other.recv_id
        return self != other and self.criteria == other.criteria and same_id


@dataclass
class Keys:
    """The keys of a namespace."""

    l3_masters: frozenset[int] = frozenset()
    limit: int = 131072
    overlap: bool = False
    rows: dict[Identity, str] = field(default_factory=dict)
    """Lines of /proc/net/tcp_authopt, the oldest first."""

    def set(self, value: bytes, family: AddressFamily) -> int:
        """TCP_AUTHOPT_KEY on a socket of this family."""
        struct = fitted(value, abi.AUTHOPT_KEY.size)
        if struct is None:
            return EINVAL
        flags, send_id, recv_id, alg, keylen, _, addr, ifindex, prefixlen, *times = (
            abi.AUTHOPT_KEY.unpack(struct)
        )
        if flags >> 11 or keylen > 80:
            return EINVAL
        written, possible = _prefix(flags, addr, prefixlen)
        identity = Identity(
            send_id,
            recv_id,
            ifindex if flags & abi.KEY_IFINDEX else None,
            _unmapped(written),
            bool(flags & abi.KEY_PREFIXLEN),
        )
        if flags & abi.KEY_DEL:
            return 0 if possible and self.rows.pop(identity, None) else ENOENT
        if not possible or _family(written) not in (None, family):
            return EINVAL
        if not 1 <= alg <= 3 or _ends_before_it_begins(flags, times):
            return EINVAL
        if flags & abi.KEY_IFINDEX and ifindex not in {0, *self.l3_masters}:
            return EINVAL
        if identity not in self.rows and self._is_full(identity):
            return ENOSPC
        if not self.overlap and any(map(identity.overlaps, self.rows)):
            return EEXIST
        self.rows.pop(identity, None)
        l3index = ifindex if flags & abi.KEY_IFINDEX else 0
        where = _written(written, given=identity.prefix_given)
        self.rows[identity] = f"{flags:#x}\t{send_id}\t{recv_id}\t{alg}\t{where}\t{l3index}\n"
        return 0

    def _is_full(self, new: Identity) -> bool:
        alike = sum(key.criteria == new.criteria for key in self.rows)
        combinations = {key.combination for key in (new, *self.rows)}
        return len(self.rows) >= self.limit or alike >= 512 or len(combinations) > 64

    def proc(self) -> str:
        """The file /proc/net/tcp_authopt."""
        return HEADER + "".join(reversed(self.rows.values()))


@cache
def _prefix(
    flags: int, addr: bytes, prefixlen: int
) -> tuple[IPv4Network | IPv6Network | None, bool]:
    """Where the peer's address must be, None for anywhere; and whether any key can say so."""
    if not flags & abi.KEY_ADDR_BIND:
        return None, not flags & abi.KEY_PREFIXLEN
    family = int.from_bytes(addr[:2], "little")
    places = {AF_INET: addr[4:8], AF_INET6: addr[8:24]}
    if family not in places:
        return None, False
    bits = 8 * len(places[family])
    length = prefixlen if flags & abi.KEY_PREFIXLEN else bits
    if not 0 <= length <= bits:
        return None, False
    try:
        return ip_network((places[family], length)), True
    except ValueError:  # host bits
        return None, False


_MAPPED = IPv6Network("::ffff:0:0/96")


def _unmapped(prefix: IPv4Network | IPv6Network | None) -> IPv4Network | IPv6Network | None:
    """What the prefix is to be known by, however it was written."""
    if prefix is None or prefix.version == 4 or not prefix.subnet_of(_MAPPED):
        return prefix
    return ip_network((prefix.network_address.packed[12:], prefix.prefixlen - 96))


def _family(prefix: IPv4Network | IPv6Network | None) -> AddressFamily | None:
    return prefix and {4: AF_INET, 6: AF_INET6}[prefix.version]


def _ends_before_it_begins(flags: int, times: list[int]) -> bool:
    bits = (
        abi.KEY_SEND_LIFETIME_BEGIN,
        abi.KEY_SEND_LIFETIME_END,
        abi.KEY_RECV_LIFETIME_BEGIN,
        abi.KEY_RECV_LIFETIME_END,
    )
    send_begin, send_end, recv_begin, recv_end = (
        time if flags & bit else None for bit, time in zip(bits, times, strict=True)
    )
    pairs = (send_begin, send_end), (recv_begin, recv_end)
    return any(None not in pair and pair[0] > pair[1] for pair in pairs)


def _written(prefix: IPv4Network | IPv6Network | None, *, given: bool) -> str:
    if prefix is None:
        return "*"
    packed = prefix.network_address.packed
    address = ".".join(map(str, packed)) if len(packed) == 4 else packed.hex(":", 2)
    return f"{address}/{prefix.prefixlen}" if given else address
