"""The contract of Documentation/abi.rst as a model: what each call must answer, and why not else.

It shares nothing with the module, not even its language. Errors are numbers, 0 is success.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from errno import EEXIST, EINVAL, ENOENT, ENOSPC
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, AddressFamily

import abi

PAGE = 4096
NO_SUCH_VRF = "no/such"
"""A name that no VRF can have."""

type Network = IPv4Network | IPv6Network | None
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
    vrf: str | None
    """Its name, empty for outside of all."""
    prefix: Network
    """Of mapped addresses it is one of IPv4; and so is the next."""
    local: Network
    port: int | None
    prefix_given: bool

    @property
    def criteria(self) -> tuple:
        """Which connections the key matches."""
        return self.vrf, self.prefix, self.local, self.port

    @property
    def combination(self) -> tuple:
        """Which criteria there are."""
        lengths = [it and (it.version, it.prefixlen) for it in (self.prefix, self.local)]
        return self.vrf is not None, *lengths, self.port is not None

    def overlaps(self, other: "Identity") -> bool:
        """The two keys could not be told apart by one of their ids."""
        same_id = self.send_id == other.send_id or self.recv_id == other.recv_id
        return self != other and self.criteria == other.criteria and same_id


@dataclass
class Keys:
    """The keys of a namespace."""

    l3_masters: dict[int, str] = field(default_factory=dict)
    """VRFs by the index of their device."""
    limit: int = 131072
    overlap: bool = False
    rows: dict[Identity, str] = field(default_factory=dict)
    """Lines of /proc/net/tcp_authopt, the oldest first."""
    policies: dict[tuple, Identity] = field(default_factory=dict)
    """By their criteria, each with an identity that no key has."""

    def set(self, value: bytes, family: AddressFamily) -> int:
        """TCP_AUTHOPT_KEY on a socket of this family."""
        struct = fitted(value, abi.AUTHOPT_KEY.size)
        if struct is None:
            return EINVAL
        flags, send_id, recv_id, alg, keylen, _, addr, ifindex, prefixlen, *rest = (
            abi.AUTHOPT_KEY.unpack(struct)
        )
        *times, local, local_prefixlen, port, reserved1, vrf_name, reserved2 = rest
        if flags & ~0xFF07FF or keylen > 80 or reserved1 or any(reserved2):
            return EINVAL
        written, possible = _prefix(flags, addr, prefixlen)
        here, here_possible = _local(flags, addr, local, local_prefixlen)
        vrf, vrf_possible = self._vrf(flags, ifindex, vrf_name)
        identity = Identity(
            send_id,
            recv_id,
            vrf,
            _unmapped(written),
            _unmapped(here),
            port if flags & abi.KEY_SERVICE_PORT else None,
            bool(flags & abi.KEY_PREFIXLEN),
        )
        versions = {it.version for it in (identity.prefix, identity.local) if it}
        possible = (
            possible and here_possible and vrf_possible and len(versions) < 2 and identity.port != 0
        )
        policy = flags & (abi.KEY_REQUIRE | abi.KEY_EXEMPT)
        if flags & abi.KEY_DEL and policy:
            return 0 if possible and self.policies.pop(identity.criteria, None) else ENOENT
        if flags & abi.KEY_DEL:
            return 0 if possible and self.rows.pop(identity, None) else ENOENT
        if not possible or {_family(it) for it in (written, here)} - {None, family}:
            return EINVAL
        if flags & 0xF0000:
            return self._set_policy(flags, identity, bare=not any((send_id, recv_id, alg, keylen)))
        if not 1 <= alg <= 3 or _ends_before_it_begins(flags, times):
            return EINVAL
        if vrf == NO_SUCH_VRF:
            return EINVAL
        if identity not in self.rows and self._is_full(identity):
            return ENOSPC
        if not self.overlap and any(map(identity.overlaps, self.rows)):
            return EEXIST
        self.rows.pop(identity, None)
        indices = {name: index for index, name in self.l3_masters.items()}
        l3index = indices.get(vrf, 0)
        where = _written(written, given=identity.prefix_given)
        self.rows[identity] = f"{flags:#x}\t{send_id}\t{recv_id}\t{alg}\t{where}\t{l3index}\n"
        return 0

    def _set_policy(self, flags: int, identity: Identity, *, bare: bool) -> int:
        extra = flags & (abi.KEY_STRICT | abi.KEY_ACCEPT_ICMP)
        match bool(flags & abi.KEY_REQUIRE), bool(flags & abi.KEY_EXEMPT):
            case (True, True) | (False, False):
                return EINVAL
            case False, True if extra:
                return EINVAL
        of_criteria = abi.KEY_ADDR_BIND | abi.KEY_IFINDEX | abi.KEY_PREFIXLEN
        if not bare or flags & 0x7FF & ~of_criteria or identity.vrf == NO_SUCH_VRF:
            return EINVAL
        if identity.criteria not in self.policies and self._is_full(identity, alike=False):
            return ENOSPC
        self.policies[identity.criteria] = identity
        return 0

    def _vrf(self, flags: int, ifindex: int, name: bytes) -> tuple[str | None, bool]:
        """The VRF that is meant, and whether any key can say so."""
        text = name.rstrip(b"\0").decode("latin1")
        match bool(flags & abi.KEY_IFINDEX), bool(flags & abi.KEY_VRF_NAME):
            case False, False:
                return None, True
            case True, False:
                return "" if ifindex == 0 else self.l3_masters.get(ifindex, NO_SUCH_VRF), True
            case False, True:
                is_name = re.fullmatch(r"[^\0/:\s]{1,15}", text) and text not in {".", ".."}
                return text, bool(is_name)
        return None, False

    def _is_full(self, new: Identity, *, alike: bool = True) -> bool:
        same = sum(key.criteria == new.criteria for key in self.rows) if alike else 0
        combinations = {it.combination for it in (new, *self.rows, *self.policies.values())}
        entries = len(self.rows) + len(self.policies)
        return entries >= self.limit or same >= 512 or len(combinations) > 64

    def proc(self) -> str:
        """The file /proc/net/tcp_authopt."""
        return HEADER + "".join(reversed(self.rows.values()))


@cache
def _prefix(flags: int, addr: bytes, prefixlen: int) -> tuple[Network, bool]:
    """Where the peer's address must be, None for anywhere; and whether any key can say so."""
    has_length = bool(flags & abi.KEY_PREFIXLEN)
    if not flags & abi.KEY_ADDR_BIND:
        return None, not has_length
    places = {AF_INET: addr[4:8], AF_INET6: addr[8:24]}
    return _network(addr, places, prefixlen if has_length else None)


@cache
def _local(flags: int, addr: bytes, local: bytes, prefixlen: int) -> tuple[Network, bool]:
    """The same of the address of this end."""
    has_length = bool(flags & abi.KEY_LOCAL_PREFIXLEN)
    if not flags & abi.KEY_LOCAL_ADDR:
        return None, not has_length
    places = {AF_INET: local[:4], AF_INET6: local}
    return _network(addr, places, prefixlen if has_length else None)


def _network(
    addr: bytes, places: dict[AddressFamily, bytes], length: int | None
) -> tuple[Network, bool]:
    family = int.from_bytes(addr[:2], "little")
    if family not in places:
        return None, False
    bits = 8 * len(places[family])
    length = bits if length is None else length
    if not 0 <= length <= bits:
        return None, False
    try:
        return ip_network((places[family], length)), True
    except ValueError:  # host bits
        return None, False


_MAPPED = IPv6Network("::ffff:0:0/96")


def _unmapped(prefix: Network) -> Network:
    """What the prefix is to be known by, however it was written."""
    if prefix is None or prefix.version == 4 or not prefix.subnet_of(_MAPPED):
        return prefix
    return ip_network((prefix.network_address.packed[12:], prefix.prefixlen - 96))


def _family(prefix: Network) -> AddressFamily | None:
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


def _written(prefix: Network, *, given: bool) -> str:
    if prefix is None:
        return "*"
    packed = prefix.network_address.packed
    address = ".".join(map(str, packed)) if len(packed) == 4 else packed.hex(":", 2)
    return f"{address}/{prefix.prefixlen}" if given else address
