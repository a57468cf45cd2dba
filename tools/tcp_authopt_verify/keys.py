"""Keys as an operator writes them down: two ends, a KeyID for each direction, one secret."""

import json
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path

from .mac import ALGORITHMS, Algorithm

Address = IPv4Address | IPv6Address

prefix = cache(ip_network)
"""Of a text: the same few come again for each pair of addresses."""


@dataclass(frozen=True, eq=False)
class Key:
    """One master key between two ends, `a` and `b`, which are addresses or prefixes.

    Several keys may have the same KeyIDs: one that was replaced, say. A segment is right if one
    of them fits, and its record says which.
    """

    name: str
    a: str
    b: str
    a_keyid: int
    """The KeyID in segments that `a` sends."""
    b_keyid: int
    """The KeyID in segments that `b` sends."""
    algorithm: str
    secret: bytes = field(repr=False)
    covers_options: bool = True

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"key {self.name}: no algorithm {self.algorithm!r}")
        if not all(0 <= keyid <= 255 for keyid in (self.a_keyid, self.b_keyid)):
            raise ValueError(f"key {self.name}: a KeyID is 0 to 255")
        self._ends()

    def _ends(self) -> tuple[IPv4Network | IPv6Network, IPv4Network | IPv6Network]:
        """Both ends as prefixes."""
        return prefix(self.a), prefix(self.b)

    @property
    def suite(self) -> Algorithm:
        """The algorithm itself."""
        return ALGORITHMS[self.algorithm]

    def keyids(self, source: Address, target: Address) -> set[int]:
        """The KeyIDs that this key may have in a segment from source to target."""
        a, b = self._ends()
        found = set()
        if source in a and target in b:
            found.add(self.a_keyid)
        if source in b and target in a:
            found.add(self.b_keyid)
        return found


@dataclass(frozen=True)
class Policy:
    """What a capture must obey: the keys, and where segments may be unsigned."""

    keys: tuple[Key, ...]
    unsigned_ports: frozenset[int] = frozenset()
    """Segments from or to these ports need no AO option."""
    unsigned_anywhere: bool = False
    check_checksums: bool = True

    def may_be_unsigned(self, sport: int, dport: int) -> bool:
        """Whether a segment between these ports may lack the option."""
        return self.unsigned_anywhere or bool({sport, dport} & self.unsigned_ports)


def load_policy(path: str | Path) -> Policy:
    """Reads a policy from JSON; README.md beside this file shows one."""
    content = json.loads(Path(path).read_text())
    keys = tuple(
        Key(
            name=entry.get("name", f"{entry['a_keyid']}/{entry['b_keyid']}"),
            a=entry["a"],
            b=entry["b"],
            a_keyid=entry["a_keyid"],
            b_keyid=entry["b_keyid"],
            algorithm=entry["algorithm"],
            secret=bytes.fromhex(entry["secret_hex"]),
            covers_options=entry.get("covers_options", True),
        )
        for entry in content["keys"]
    )
    return Policy(keys, frozenset(content.get("unsigned_ports", ())))


def dump_policy(policy: Policy) -> str:
    """The JSON that load_policy reads; it holds the secrets."""
    keys = [
        {
            "name": key.name,
            "a": key.a,
            "b": key.b,
            "a_keyid": key.a_keyid,
            "b_keyid": key.b_keyid,
            "algorithm": key.algorithm,
            "secret_hex": key.secret.hex(),
            "covers_options": key.covers_options,
        }
        for key in policy.keys
    ]
    ports = sorted(policy.unsigned_ports)
    return json.dumps({"keys": keys, "unsigned_ports": ports}, indent=1) + "\n"
