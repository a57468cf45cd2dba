"""/proc/net/tcp_authopt, to the byte."""

import os
import socket
import stat
from pathlib import Path

import pytest

import abi
from abi import pack_key
from contract import HEADER
from netns import Namespace
from requirement import requirement
from rtnetlink import Rtnetlink

pytestmark = pytest.mark.ours

FILE = Path("/proc/self/net/tcp_authopt")


@pytest.fixture
def sock():
    """A socket in a namespace without any key."""
    namespace = Namespace()
    with namespace.entered(), socket.socket(socket.AF_INET6) as sock:
        yield sock
    namespace.close()


def content() -> str:
    return FILE.read_text()


def test_no_keys(sock):
    assert content() == HEADER


@requirement(44)
def test_mode(sock):
    status = FILE.stat()
    assert stat.filemode(status.st_mode) == "-r--------"
    assert (status.st_uid, status.st_gid) == (0, 0)
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            content()
    finally:
        os.seteuid(0)


@requirement(18)
@pytest.mark.parametrize(
    ("family", "key", "row"),
    [
        (4, pack_key(12, 23), "0x0\t12\t23\t1\t*\t0"),
        (4, pack_key(0, 255, alg=2), "0x0\t0\t255\t2\t*\t0"),
        (4, pack_key(255, 0, alg=3, flags=0x30), "0x30\t255\t0\t3\t*\t0"),
        (4, pack_key(1, 2, address="192.0.2.2"), "0x4\t1\t2\t1\t192.0.2.2\t0"),
        (
            4,
            pack_key(1, 2, address="192.0.2.0", prefixlen=24),
            "0x44\t1\t2\t1\t192.0.2.0/24\t0",
        ),
        (4, pack_key(1, 2, address="0.0.0.0", prefixlen=0), "0x44\t1\t2\t1\t0.0.0.0/0\t0"),
        (
            6,
            pack_key(1, 2, address="2001:db8::2", flags=abi.KEY_EXCLUDE_OPTS),
            "0x6\t1\t2\t1\t2001:0db8:0000:0000:0000:0000:0000:0002\t0",
        ),
        (
            6,
            pack_key(1, 2, address="2001:db8::", prefixlen=32),
            "0x44\t1\t2\t1\t2001:0db8:0000:0000:0000:0000:0000:0000/32\t0",
        ),
        (
            6,
            pack_key(1, 2, address="::ffff:192.0.2.1"),
            "0x4\t1\t2\t1\t0000:0000:0000:0000:0000:ffff:c000:0201\t0",
        ),
        (
            6,
            pack_key(1, 2, address="::ffff:192.0.2.0", prefixlen=120),
            "0x44\t1\t2\t1\t0000:0000:0000:0000:0000:ffff:c000:0200/120\t0",
        ),
        (6, pack_key(1, 2, address="::", prefixlen=0), f"0x44\t1\t2\t1\t{'0000:' * 7}0000/0\t0"),
        (4, pack_key(1, 2, address="192.0.2.2", prefixlen=32), "0x44\t1\t2\t1\t192.0.2.2/32\t0"),
        (4, pack_key(1, 2, ifindex=0), "0x8\t1\t2\t1\t*\t0"),
        (4, pack_key(1, 2, flags=0x7B2, lifetimes=(1, 2, 3, 4)), "0x7b2\t1\t2\t1\t*\t0"),
    ],
    ids=lambda value: value.replace("\t", "-") if isinstance(value, str) else "",
)
def test_row(sock, family, key, row):
    if family == 6:
        abi.set_key(sock, key)
    else:
        with socket.socket() as sock4:
            abi.set_key(sock4, key)
    assert content() == HEADER + row + "\n"


def test_row_of_a_vrf(sock):
    """Which is there without other criteria, and with them."""
    with Rtnetlink() as rtnetlink:
        rtnetlink.add_vrf("red", 100)
    red = socket.if_nametoindex("red")
    abi.set_key(sock, pack_key(1, 2, ifindex=red))
    abi.set_key(sock, pack_key(1, 2, ifindex=red, address="2001:db8::", prefixlen=32))
    prefix = "2001:0db8:0000:0000:0000:0000:0000:0000/32"
    assert content() == (HEADER + f"0x4c\t1\t2\t1\t{prefix}\t{red}\n" + f"0x8\t1\t2\t1\t*\t{red}\n")


def test_longest_row(sock):
    """Every column as wide as it can be."""
    with Rtnetlink() as rtnetlink:
        rtnetlink.add_vrf("red", 100, index=2**31 - 1)
    address = "ffff:" * 7 + "ffff"
    key = pack_key(254, 255, alg=3, address=address, prefixlen=128, ifindex=2**31 - 1, flags=0x7B2)
    abi.set_key(sock, key)
    assert content() == HEADER + f"0x7fe\t254\t255\t3\t{address}/128\t2147483647\n"


def test_newest_first(sock):
    for number in range(1, 4):
        abi.set_key(sock, pack_key(number, number + 10))
    abi.set_key(sock, pack_key(2, 12, flags=abi.KEY_DEL))
    assert content() == HEADER + "0x0\t3\t13\t1\t*\t0\n" + "0x0\t1\t11\t1\t*\t0\n"


def test_replaced_key_is_the_newest(sock):
    for number in range(1, 4):
        abi.set_key(sock, pack_key(number, number))
    abi.set_key(sock, pack_key(1, 1, flags=abi.KEY_NOSEND))
    rows = ("0x10\t1\t1\t1\t*\t0\n", "0x0\t3\t3\t1\t*\t0\n", "0x0\t2\t2\t1\t*\t0\n")
    assert content() == HEADER + "".join(rows)


def test_keys_that_come_and_go_during_a_read(sock):
    """A key that is there all the time is read once; what is read before it is none of its care."""
    for number in range(1, 201):
        abi.set_key(sock, pack_key(number, number))
    with FILE.open("rb", buffering=0) as file:
        text = file.read(1000)
        seen = text.count(b"\n")
        for number in (200, 150, 40):
            abi.set_key(sock, pack_key(number, number, flags=abi.KEY_DEL))
        abi.set_key(sock, pack_key(50, 50, flags=abi.KEY_NORECV))
        abi.set_key(sock, pack_key(250, 250))
        text += b"".join(iter(lambda: file.read(1000), b""))
    ids = [int(line.split()[1]) for line in text.decode().splitlines()[1:]]
    assert ids == sorted(ids, reverse=True)
    always = set(range(1, 201)) - {200, 150, 40, 50}
    assert always <= set(ids) <= always | {200, 150, 40, 50}
    assert seen < 150


def test_many_keys(sock):
    """More than one page, read in small pieces."""
    for number in range(500):
        address = f"2001:db8::{number:x}"
        abi.set_key(sock, pack_key(number % 256, number % 251, address=address))
    with FILE.open("rb", buffering=0) as file:
        pieces = list(iter(lambda: file.read(1000), b""))
    lines = b"".join(pieces).decode().splitlines()
    assert len(lines) == 501
    assert len(set(lines)) == 501
    assert lines == content().splitlines()


@requirement(44)
def test_never_the_key_itself(sock):
    secret = b"Zq9-must-not-show"
    abi.set_key(sock, pack_key(1, 2, secret=secret))
    assert "Zq9" not in content()
    assert secret.hex() not in content().lower()


def test_each_namespace_has_its_own(sock):
    abi.set_key(sock, pack_key(1, 2))
    other = Namespace()
    assert other.read("tcp_authopt") == HEADER
    other.close()
    assert content() != HEADER


def test_keys_outlive_the_socket(sock):
    with socket.socket() as brief:
        abi.set_key(brief, pack_key(1, 2))
    assert content().count("\n") == 2
