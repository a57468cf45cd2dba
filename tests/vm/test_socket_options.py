"""TCP_AUTHOPT, TCP_AUTHOPT_KEY and TCP_REPAIR_AUTHOPT: what they answer, and their errors."""

import errno
import os
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest

import abi
from abi import pack_key
from link import FIRST, SECOND, V4, V6, Ours
from netns import Namespace

pytestmark = pytest.mark.ours

TCP = socket.IPPROTO_TCP


@contextmanager
def refused(*numbers: int):
    """The call fails with one of these error numbers."""
    with pytest.raises(OSError, match=rf"\[Errno ({'|'.join(map(str, numbers))})\]"):
        yield


@pytest.fixture
def sock():
    """A socket in a namespace without any interface or key."""
    namespace = Namespace()
    with namespace.entered(), socket.socket() as sock:
        yield sock
    namespace.close()


@pytest.fixture
def sock6(sock):
    """An IPv6 socket in the same namespace."""
    with socket.socket(socket.AF_INET6) as sock6:
        yield sock6


@contextmanager
def unprivileged():
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def rows() -> list[str]:
    """The namespace's keys, as /proc shows them."""
    return Path("/proc/self/net/tcp_authopt").read_text().splitlines()[1:]


@pytest.mark.parametrize("length", [4, 8, 9, 64], ids=str)
def test_probe_for_support(sock, length):
    sock.setsockopt(TCP, abi.TCP_AUTHOPT, bytes(length))
    assert abi.get_authopt(sock) == (0, 0, 0, 0, 0)


def test_nothing_set_yet(sock):
    with refused(errno.ENOENT):
        abi.get_authopt(sock)


def test_flags_read_back(sock):
    flags = abi.FLAG_LOCK_KEYID | abi.FLAG_LOCK_RNEXTKEYID | abi.FLAG_REJECT_UNEXPECTED
    abi.set_authopt(sock, flags | abi.FLAG_ACTIVE, 7, 8)
    assert abi.get_authopt(sock).flags == flags, "ACTIVE cannot be set"
    assert sock.getsockopt(TCP, abi.TCP_AUTHOPT, 4) == abi.AUTHOPT.pack(flags, 0, 0, 0, 0)[:4]
    assert len(sock.getsockopt(TCP, abi.TCP_AUTHOPT, 100)) == 8


def test_unknown_flag_has_no_effect(sock):
    with refused(errno.EINVAL):
        abi.set_authopt(sock, 1 << 4)
    with refused(errno.ENOENT):
        abi.get_authopt(sock)
    abi.set_authopt(sock, abi.FLAG_REJECT_UNEXPECTED)
    with refused(errno.EINVAL):
        abi.set_authopt(sock, 1 << 31)
    assert abi.get_authopt(sock).flags == abi.FLAG_REJECT_UNEXPECTED


def test_longer_struct_of_a_later_version(sock):
    sock.setsockopt(TCP, abi.TCP_AUTHOPT, bytes(20))
    with refused(errno.EINVAL):
        sock.setsockopt(TCP, abi.TCP_AUTHOPT, bytes(19) + b"\1")
    key = pack_key(1, 2, secret=b"x")
    sock.setsockopt(TCP, abi.TCP_AUTHOPT_KEY, key + bytes(32))
    with refused(errno.EINVAL):
        sock.setsockopt(TCP, abi.TCP_AUTHOPT_KEY, key + bytes(31) + b"\1")


def test_shorter_struct_of_an_earlier_version(sock):
    """Without the lifetimes at its end, and even without an address."""
    sock.setsockopt(TCP, abi.TCP_AUTHOPT_KEY, pack_key(1, 2)[:224])
    sock.setsockopt(TCP, abi.TCP_AUTHOPT_KEY, pack_key(3, 4)[:88])
    assert len(rows()) == 2


def test_asking_needs_no_privilege_and_keys_do(sock):
    with unprivileged():
        abi.set_authopt(sock)
        assert abi.get_authopt(sock).flags == 0
        with refused(errno.EPERM):
            abi.set_key(sock, pack_key(1, 2))
        with refused(errno.EPERM):
            abi.set_key(sock, bytes(256))
    assert rows() == []


def test_keys_cannot_be_read_back(sock):
    abi.set_key(sock, pack_key(1, 2, secret=b"secret"))
    with refused(errno.ENOPROTOOPT):
        sock.getsockopt(TCP, abi.TCP_AUTHOPT_KEY, 256)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(pack_key(1, 2, flags=1 << 11), id="unknown-flag"),
        pytest.param(pack_key(1, 2, flags=1 << 31 | abi.KEY_DEL), id="unknown-flag-delete"),
        pytest.param(pack_key(1, 2, secret=bytes(80), keylen=81), id="key-too-long"),
        pytest.param(pack_key(1, 2, address="2001:db8::1"), id="other-family"),
        pytest.param(pack_key(1, 2, flags=abi.KEY_ADDR_BIND), id="no-family"),
        pytest.param(pack_key(1, 2, address="192.0.2.0", prefixlen=33), id="prefix-33"),
        pytest.param(pack_key(1, 2, address="192.0.2.0", prefixlen=-1), id="prefix-negative"),
        pytest.param(pack_key(1, 2, address="192.0.2.1", prefixlen=24), id="host-bits"),
        pytest.param(pack_key(1, 2, alg=0), id="algorithm-0"),
        pytest.param(pack_key(1, 2, alg=4), id="algorithm-4"),
        pytest.param(
            pack_key(
                1,
                2,
                flags=abi.KEY_SEND_LIFETIME_BEGIN | abi.KEY_SEND_LIFETIME_END,
                lifetimes=(2000, 1999, 0, 0),
            ),
            id="send-lifetime",
        ),
        pytest.param(
            pack_key(
                1,
                2,
                flags=abi.KEY_RECV_LIFETIME_BEGIN | abi.KEY_RECV_LIFETIME_END,
                lifetimes=(0, 0, 2000, 1999),
            ),
            id="recv-lifetime",
        ),
        pytest.param(pack_key(1, 2, ifindex=1), id="ifindex-no-vrf"),
    ],
)
def test_key_that_makes_no_sense(sock, key):
    with refused(errno.EINVAL):
        abi.set_key(sock, key)
    assert rows() == []


@pytest.mark.parametrize(
    ("address", "prefixlen"),
    [("2001:db8::", 129), ("2001:db8::1", 64), ("2001:db8::", 16)],
    ids=["prefix-129", "host-bits", "host-bits-behind-16"],
)
def test_ipv6_prefix_that_makes_no_sense(sock6, address, prefixlen):
    with refused(errno.EINVAL):
        abi.set_key(sock6, pack_key(1, 2, address=address, prefixlen=prefixlen))


def test_fields_without_their_flag_are_ignored(sock):
    """In the identity too: this is the same key three times."""
    abi.set_key(sock, pack_key(1, 2))
    key = bytearray(pack_key(1, 2, address="192.0.2.1", prefixlen=7, ifindex=9))
    key[0:4] = bytes(4)
    abi.set_key(sock, bytes(key))
    assert len(rows()) == 1
    key[0:4] = abi.KEY_DEL.to_bytes(4, "little")
    abi.set_key(sock, bytes(key))
    assert rows() == []


def test_delete_finds_by_identity(sock):
    key = pack_key(1, 2, address="192.0.2.1", secret=b"x")
    abi.set_key(sock, key)
    for other in (
        pack_key(1, 2, flags=abi.KEY_DEL),
        pack_key(2, 2, address="192.0.2.1", flags=abi.KEY_DEL),
        pack_key(1, 1, address="192.0.2.1", flags=abi.KEY_DEL),
        pack_key(1, 2, address="192.0.2.2", flags=abi.KEY_DEL),
        pack_key(1, 2, address="192.0.2.1", prefixlen=32, flags=abi.KEY_DEL),
        pack_key(1, 2, address="192.0.2.1", ifindex=0, flags=abi.KEY_DEL),
    ):
        with refused(errno.ENOENT):
            abi.set_key(sock, other)
    # Not part of the identity: the algorithm and the bytes.
    abi.set_key(sock, pack_key(1, 2, address="192.0.2.1", alg=2, flags=abi.KEY_DEL))
    assert rows() == []


def test_longest_and_empty_key(sock):
    abi.set_key(sock, pack_key(1, 2, secret=bytes(range(80))))
    abi.set_key(sock, pack_key(3, 4))
    assert len(rows()) == 2


def test_overlapping_ids(sock):
    """RFC 5925 3.1; a key for one peer may share its ids with one for all."""
    abi.set_key(sock, pack_key(1, 2))
    for send_id, recv_id in ((1, 3), (3, 2)):
        with refused(errno.EEXIST):
            abi.set_key(sock, pack_key(send_id, recv_id))
    abi.set_key(sock, pack_key(1, 3, address="192.0.2.1"))
    abi.set_key(sock, pack_key(1, 2, address="192.0.2.2"))
    assert len(rows()) == 3


def test_overlapping_ids_where_permitted(sock):
    Path("/proc/sys/net/ipv4/tcp_authopt_key_overlap").write_text("1")
    abi.set_key(sock, pack_key(1, 2))
    abi.set_key(sock, pack_key(1, 3))
    assert len(rows()) == 2


def test_failed_replace_keeps_the_key(sock):
    abi.set_key(sock, pack_key(1, 2, secret=b"x"))
    before = rows()
    with refused(errno.EINVAL):
        abi.set_key(sock, pack_key(1, 2, alg=9))
    assert rows() == before


def test_repair_is_for_sockets_in_repair(sock):
    with refused(errno.EPERM):
        sock.getsockopt(TCP, abi.TCP_REPAIR_AUTHOPT, 24)
    with refused(errno.EPERM):
        sock.setsockopt(TCP, abi.TCP_REPAIR_AUTHOPT, bytes(24))
    for length in (23, 25, 8):
        with refused(errno.EFAULT):
            sock.setsockopt(TCP, abi.TCP_REPAIR_AUTHOPT, bytes(length))


def test_other_options_are_not_touched(sock):
    sock.setsockopt(TCP, socket.TCP_NODELAY, 1)
    assert sock.getsockopt(TCP, socket.TCP_NODELAY) == 1
    with refused(errno.ENOPROTOOPT):
        sock.setsockopt(TCP, 99, bytes(4))


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_ids_of_a_connection(link, ends):
    """What was last sent, and what was last received, at both ends."""
    listener = link.listen("ours", ends, FIRST)
    client = link.client("ours", ends, FIRST)
    assert abi.get_authopt(client.sock) == (0, 0, 0, 0, 0)
    connection = link.connect(client, listener)
    connection.exchange()
    a, b = FIRST.a_id, FIRST.b_id
    assert abi.get_authopt(connection.client.sock) == (abi.FLAG_ACTIVE, a, b, b, a)
    assert abi.get_authopt(connection.server.sock) == (abi.FLAG_ACTIVE, b, a, a, b)
    assert abi.get_authopt(listener.sock).flags & abi.FLAG_ACTIVE == 0
    connection.close()
    link.verify()


def test_locked_ids(link):
    """The application's choice goes before the peer's, and a lock is inherited on accept."""
    listener = link.listen("ours", V4, FIRST, SECOND)
    abi.set_authopt(listener.sock, abi.FLAG_LOCK_KEYID, send_keyid=SECOND.b_id)
    client = link.client("ours", V4, FIRST, SECOND)
    abi.set_authopt(client.sock, abi.FLAG_LOCK_RNEXTKEYID, send_rnextkeyid=FIRST.b_id)
    connection = link.connect(client, listener)
    connection.exchange()
    connection.exchange()
    a, b = (abi.get_authopt(peer.sock) for peer in connection.peers)
    assert a.flags == abi.FLAG_ACTIVE | abi.FLAG_LOCK_RNEXTKEYID
    assert b.flags == abi.FLAG_ACTIVE | abi.FLAG_LOCK_KEYID
    assert a.send_rnextkeyid == b.recv_rnextkeyid == FIRST.b_id
    assert b.send_keyid == a.recv_keyid == SECOND.b_id

    abi.set_authopt(connection.client.sock, abi.FLAG_LOCK_KEYID, send_keyid=SECOND.a_id)
    connection.exchange()
    assert abi.get_authopt(connection.server.sock).recv_keyid == SECOND.a_id
    abi.set_authopt(connection.client.sock, abi.FLAG_LOCK_KEYID, send_keyid=99)
    connection.exchange()
    assert abi.get_authopt(connection.server.sock).recv_keyid in (FIRST.a_id, SECOND.a_id)
    connection.close()
    link.verify()


def test_prefix_and_unbound_keys_protect(link):
    """Keys for a prefix on one end, for any peer on the other."""
    control = link.a.control(socket.AF_INET)
    link.know(FIRST)
    key = pack_key(FIRST.a_id, FIRST.b_id, secret=FIRST.secret, address="192.0.2.0", prefixlen=24)
    abi.set_key(control, key)
    listener = link.listen("ours", V4)
    abi.set_key(listener.sock, Ours.pack(link.b, None, FIRST))
    connection = link.connect(link.client("ours", V4), listener)
    connection.exchange()
    connection.close()
    link.verify()
