r"""What policies cost, in instructions: connections that match none, and those that one requires.

See bench_idle.py for how instructions are counted. Both ends of a connection are in one namespace,
so that connect(), the SYN and the child are all asked about.

    scripts/vm --icount --mem 2G --share . -- \
        env SLOWDOWN=10 PYTHONPATH=tests/vm python3 tests/vm/bench_policy.py
"""

import os
import socket
from pathlib import Path

import abi
from abi import KEY_EXEMPT, KEY_REQUIRE, pack_key, pack_policy
from bench_idle import Loopback, instructions
from module import Module

ENTRIES = int(os.environ.get("ENTRIES", "100000"))
SHAPES = [
    {"prefixlen": length, "port": port, "local": local}
    for length in (32, 30, 28, 24)
    for port in (None, 179)
    for local in (None, "10.255.255.1")
]
"""16 combinations of criteria."""


def fill(control: socket.socket, base: int) -> None:
    """So many policies, of all combinations, of which none is for loopback."""
    for number in range(ENTRIES):
        shape = SHAPES[number % len(SHAPES)]
        length = shape["prefixlen"]
        address = base + (number // len(SHAPES) << (32 - length))
        where = {"address": socket.inet_ntoa(address.to_bytes(4))}
        abi.set_key(control, pack_policy(KEY_EXEMPT, **where, **shape))


def cycle() -> float:
    """Of a whole connection, opened, accepted and closed."""
    loopback = Loopback()
    return instructions(loopback.cycle, 5)


def main() -> None:
    """Prints the table."""
    Module().enable()
    Path("/sys/kernel/rcu_expedited").write_text("1")
    rows = {}
    with socket.socket() as control:
        abi.set_authopt(control)
        cycle()
        rows["plain, module in use, no policy"] = cycle()
        abi.set_key(control, pack_policy(KEY_REQUIRE, address="192.0.2.1", port=179))
        rows["plain, one policy for others"] = cycle()
        base = int.from_bytes(socket.inet_aton("10.0.0.0"))
        fill(control, base)
        rows[f"plain, {ENTRIES} of {len(SHAPES)} forms"] = cycle()
        abi.set_key(control, pack_key(1, 1, address="127.0.0.1", secret=b"x" * 16))
        abi.set_key(control, pack_policy(KEY_REQUIRE, address="127.0.0.1"))
        rows["required, so many entries"] = cycle()
        for shape in SHAPES:
            length = shape["prefixlen"]
            for number in range((ENTRIES + len(SHAPES) - 1) // len(SHAPES)):
                address = base + (number << (32 - length))
                where = {"address": socket.inet_ntoa((address & 0xFFFFFFFF).to_bytes(4))}
                try:
                    abi.set_key(control, pack_policy(KEY_EXEMPT | abi.KEY_DEL, **where, **shape))
                except FileNotFoundError:
                    break
        rows["required, one key, few policies"] = cycle()
    least = rows["plain, module in use, no policy"]
    for name, count in rows.items():
        print(f"{name:40}{count:>12,.0f}{count / least:>8.3f}")


if __name__ == "__main__":
    main()
