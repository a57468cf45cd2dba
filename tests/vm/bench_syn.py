r"""What one signed SYN costs a listener, in instructions: with one key, and in the worst case.

The worst case is what the limits of a namespace permit (Documentation/abi.rst, Limits): as many
combinations of criteria as there may be, each of which the sender matches, with as many keys each.
None may be used any more but one, in the last place; and the SYN asks for a key that is not there.
See bench_idle.py for how instructions are counted. The SYN's way out of the sender and the
SYN-ACK's way to it are part of the figure: the row without TCP-AO has them, too.

    scripts/vm --icount --mem 2G --share . -- \
        env SLOWDOWN=10 PYTHONPATH=tests/vm:tools:tests/verifier python3 tests/vm/bench_syn.py
"""

import socket
import time

import abi
from craft import SYN, Ao, Tcp
from link import FIRST, PORT, V4, Link, Mkt, Ours
from module import Module
from tcp_authopt_verify import Key

READINGS = 30
CRITERIA, KEYS = 64, 512
EXPIRED = (1, 2, 1, 2)
LIFETIMES = (
    abi.KEY_SEND_LIFETIME_BEGIN
    | abi.KEY_SEND_LIFETIME_END
    | abi.KEY_RECV_LIFETIME_BEGIN
    | abi.KEY_RECV_LIFETIME_END
)


def frames(link: Link, key: Mkt | None, ports: range) -> list[bytes]:
    """SYNs of A, one from each port."""
    a, b = link.a.addresses["v4"], link.b.addresses["v4"]
    found = []
    for port in ports:
        segment = Tcp(src=a, dst=b, sport=port, dport=PORT, seq=port, flags=SYN)
        ao = None
        if key:
            its = Key("key", a, b, key.a_id, key.b_id, key.algorithm.verifier, key.secret, True)
            ao = Ao(its, key.a_id, 255, port, 0)
        found.append(segment.frame(ao, ethernet=link.b.mac + link.a.mac))
    return found


def instructions(link: Link, key: Mkt | None, ports: range) -> int:
    """Of one SYN, from the sender's system call to its return: softirqs are part of that."""
    readings = []
    for frame in frames(link, key, ports):
        start = time.monotonic_ns()
        link.a.inject(frame)
        readings.append(time.monotonic_ns() - start)
    return min(readings)


def fill(link: Link, sock: socket.socket) -> None:
    """The worst case, beside the one key that may be used."""
    a = link.a.addresses["v4"]
    network = int.from_bytes(socket.inet_aton(a))
    places = [(length, ifindex) for length in range(32, -1, -1) for ifindex in (0, None)]
    for length, ifindex in places[: CRITERIA - 1]:
        address = socket.inet_ntoa((network >> (32 - length) << (32 - length)).to_bytes(4))
        where = {"address": address, "prefixlen": length, "ifindex": ifindex}
        for number in range(KEYS):
            ids = number % 256, FIRST.a_id + number // 256
            abi.set_key(sock, abi.pack_key(*ids, flags=LIFETIMES, lifetimes=EXPIRED, **where))
    for number in range(KEYS - 1):
        ids = number % 256, FIRST.a_id + 1 + number // 256
        abi.set_key(sock, abi.pack_key(*ids, flags=LIFETIMES, lifetimes=EXPIRED))


def main() -> None:
    """Prints the three figures."""
    Module().enable()
    link = Link()
    control = link.b.control(socket.AF_INET)
    link.b.namespace.write_sysctl("net/ipv4/tcp_authopt_key_overlap", 1)
    link.b.namespace.write_sysctl("net/ipv4/tcp_authopt_accept_tolerance", 1)
    plain = link.listen("plain", V4)
    instructions(link, None, range(1000, 1000 + READINGS))
    rows = {"no TCP-AO": instructions(link, None, range(2000, 2000 + READINGS))}
    plain.sock.close()

    link.listen("ours", V4)
    link.know(FIRST)
    abi.set_key(control, Ours.pack(link.b, None, FIRST))
    instructions(link, FIRST, range(3000, 3000 + READINGS))
    rows["one key"] = instructions(link, FIRST, range(4000, 4000 + READINGS))
    fill(link, control)
    rows[f"{CRITERIA} x {KEYS} keys"] = instructions(link, FIRST, range(5000, 5000 + READINGS))
    assert link.b.namespace.counters()["TCPAOGood"] == 3 * READINGS
    assert (
        len([r for r in link.audit(unsigned=True).signed if r.segment.flags & SYN]) >= 6 * READINGS
    )
    for name, count in rows.items():
        print(f"{name:20}{count:>12,}")
    link.close()


if __name__ == "__main__":
    main()
