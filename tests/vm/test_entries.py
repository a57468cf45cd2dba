"""Policies beside keys: what adding and deleting answers, and what /proc shows of both."""

import errno
import time
from pathlib import Path

import pytest

import abi
from abi import KEY_DEL, KEY_EXEMPT, KEY_REQUIRE, pack_key, pack_policy
from netns import Namespace
from rtnetlink import Rtnetlink
from test_socket_options import MAX_KEYS, refused, rows

pytestmark = [pytest.mark.ours, pytest.mark.usefixtures("quick")]

HEADER = (
    "kind vrf peer local port send_id recv_id alg flags "
    "send_from send_until accept_from accept_until sends accepts"
)
PEER = "192.0.2.1"


def entries() -> list[str]:
    """The rows of all entries, with blanks instead of tabs."""
    first, *rest = Path("/proc/self/net/tcp_authopt_entries").read_text().splitlines()
    assert first == HEADER.replace(" ", "\t")
    return [row.replace("\t", " ") for row in rest]


def test_policies_and_keys(sock):
    """One table, the newest first; the file of keys knows nothing of policies."""
    abi.set_key(sock, pack_key(61, 84, address=PEER))
    abi.set_key(sock, pack_policy(KEY_REQUIRE | abi.KEY_STRICT, address=PEER))
    abi.set_key(sock, pack_key(1, 2, address="192.0.2.0", prefixlen=24, port=179))
    abi.set_key(sock, pack_policy(KEY_EXEMPT, local="192.0.2.0", local_prefixlen=24, port=646))
    assert entries() == [
        "exempt * * 192.0.2.0/24 646 - - - 0x720000 - - - - - -",
        "key * 192.0.2.0/24 * 179 1 2 1 0x400044 - - - - yes yes",
        f"require * {PEER} * * - - - 0x50004 - - - - - -",
        f"key * {PEER} * * 61 84 1 0x4 - - - - yes yes",
    ]
    assert len(rows()) == 2


def test_same_criteria_are_the_same_policy(sock):
    """However they are written."""
    abi.set_key(sock, pack_policy(KEY_REQUIRE, address=PEER))
    abi.set_key(sock, pack_policy(KEY_EXEMPT, address=PEER, prefixlen=32))
    assert [row.split()[0] for row in entries()] == ["exempt"]
    abi.set_key(sock, pack_policy(KEY_REQUIRE, address=PEER, ifindex=0))
    assert [row.split()[0] for row in entries()] == ["require", "exempt"]
    with refused(errno.ENOENT):
        abi.set_key(sock, pack_policy(KEY_REQUIRE | KEY_DEL, address=PEER, port=179))
    with refused(errno.ENOENT):
        abi.set_key(sock, pack_key(0, 0, address=PEER, flags=KEY_DEL))
    abi.set_key(sock, pack_policy(KEY_REQUIRE | KEY_DEL, address=PEER))
    abi.set_key(sock, pack_policy(KEY_EXEMPT | KEY_DEL, address=PEER, ifindex=0))
    assert entries() == []


def test_validity(sock):
    """Why a key does not sign or is not accepted now."""
    now = int(time.time())
    for number, (flags, lifetimes) in enumerate(
        [
            (abi.KEY_NOSEND | abi.KEY_NORECV, (0, 0, 0, 0)),
            (abi.KEY_SEND_LIFETIME_BEGIN, (now + 1000, 0, 0, 0)),
            (abi.KEY_SEND_LIFETIME_END | abi.KEY_RECV_LIFETIME_END, (0, now - 50, 0, now - 50)),
            (abi.KEY_RECV_LIFETIME_END, (0, 0, 0, now - 5000)),
            (abi.KEY_SEND_LIFETIME_BEGIN | abi.KEY_SEND_LIFETIME_END, (1, now + 1000, 0, 0)),
        ]
    ):
        abi.set_key(sock, pack_key(number, number, flags=flags, lifetimes=lifetimes))
    use = [row.split()[-2:] for row in reversed(entries())]
    assert use == [
        ["never", "never"],
        ["not-yet", "yes"],
        ["over", "over"],
        ["yes", "over"],
        ["yes", "yes"],
    ]
    Path("/proc/sys/net/ipv4/tcp_authopt_accept_tolerance").write_text("100")
    assert [row.split()[-1] for row in reversed(entries())][2:4] == ["tolerated", "over"]
    times = [row.split()[9:13] for row in reversed(entries())]
    assert times[2] == ["-", str(now - 50), "-", str(now - 50)]
    assert times[4] == ["1", str(now + 1000), "-", "-"]


def test_vrfs(sock):
    """By name, whether or not the device is there; an escaped one does not break the row."""
    with Rtnetlink() as rtnetlink:
        rtnetlink.add_vrf("red", 100, 50)
        abi.set_key(sock, pack_policy(KEY_REQUIRE, ifindex=50))
        abi.set_key(sock, pack_key(1, 2, vrf="blue"))
        abi.set_key(sock, pack_key(1, 2, vrf="a\x07b"))
        abi.set_key(sock, pack_policy(KEY_EXEMPT, ifindex=0))
        assert [(row.split()[1], row.split()[-1]) for row in entries()] == [
            ("-", "-"),
            ("a\\x07b", "no-vrf"),
            ("blue", "no-vrf"),
            ("red", "-"),
        ]
        rtnetlink.add_vrf("blue", 101, 51)
        assert entries()[2].split()[-2:] == ["yes", "yes"]
        # Policies wait for their VRF as keys do, and are found as they are.
        rtnetlink.delete("red")
        abi.set_key(sock, pack_policy(KEY_REQUIRE | KEY_DEL, ifindex=50))
        with refused(errno.ENOENT):
            abi.set_key(sock, pack_policy(KEY_REQUIRE | KEY_DEL, vrf="red"))
        assert len(entries()) == 3


def test_longest_row(sock6):
    """Each field as long as it can be."""
    address = "2001:0db8:1111:2222:3333:4444:5555:6660"
    times = tuple((1 << 64) - 1 - number for number in (1, 0, 1, 0))
    key = pack_key(
        255,
        255,
        alg=3,
        address=address,
        prefixlen=127,
        local=address,
        local_prefixlen=127,
        port=65535,
        vrf="\x01" * 15,
        flags=0x782,
        lifetimes=times,
    )
    abi.set_key(sock6, key)
    name, written = "\\x01" * 15, " ".join(map(str, times))
    assert entries() == [
        f"key {name} {address}/127 {address}/127 65535 255 255 3 0xf007c6 {written} no-vrf no-vrf"
    ]


def test_limits_count_both(sock):
    """Keys and policies together: their number, and the forms of their criteria."""
    MAX_KEYS.write_text("2")
    abi.set_key(sock, pack_key(1, 2))
    abi.set_key(sock, pack_policy(KEY_REQUIRE, address=PEER))
    with refused(errno.ENOSPC):
        abi.set_key(sock, pack_policy(KEY_REQUIRE))
    with refused(errno.ENOSPC):
        abi.set_key(sock, pack_key(3, 4))
    abi.set_key(sock, pack_policy(KEY_EXEMPT, address=PEER))
    MAX_KEYS.write_text("131072")
    # Of 64 forms there are two so far, one of keys and one of policies.
    for length in range(31):
        abi.set_key(sock, pack_key(1, 2, address="0.0.0.0", prefixlen=length))
        abi.set_key(sock, pack_policy(KEY_EXEMPT, address="0.0.0.0", prefixlen=length))
    for length in range(31):
        abi.set_key(sock, pack_policy(KEY_EXEMPT, address="0.0.0.0", prefixlen=length, port=1))
    with refused(errno.ENOSPC):
        abi.set_key(sock, pack_policy(KEY_EXEMPT, address="0.0.0.0", prefixlen=31))
    with refused(errno.ENOSPC):
        abi.set_key(sock, pack_key(1, 2, address="0.0.0.0", prefixlen=31))
    abi.set_key(sock, pack_policy(KEY_EXEMPT | KEY_DEL, address="0.0.0.0", prefixlen=1, port=1))
    abi.set_key(sock, pack_key(1, 2, address="0.0.0.0", prefixlen=31))


def test_policy_gives_no_state(sock):
    """Whoever says what others must do has asked for nothing himself."""
    abi.set_key(sock, pack_policy(KEY_REQUIRE, address=PEER))
    with refused(errno.ENOENT):
        abi.get_authopt(sock)


def test_each_namespace_has_its_own(sock):
    abi.set_key(sock, pack_policy(KEY_REQUIRE, address=PEER))
    other = Namespace()
    assert other.read("tcp_authopt_entries").count("\n") == 1
    assert other.read("tcp_authopt_counters") == (
        "syn_refused\t0\nconnect_refused\t0\nnative_refused\t0\n"
    )
    other.close()
    assert len(entries()) == 1
