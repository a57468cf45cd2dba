"""TCP_AUTHOPT, TCP_AUTHOPT_KEY and TCP_REPAIR_AUTHOPT: what they answer, and their errors."""

import errno
import os
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest

import abi
from abi import pack_key
from link import FIRST, PORT, SECOND, V4, V6
from requirement import requirement

pytestmark = pytest.mark.ours

TCP = socket.IPPROTO_TCP
PAGE = 4096
MAX_KEYS = Path("/proc/sys/net/ipv4/tcp_authopt_max_keys")


@contextmanager
def refused(*numbers: int):
    """The call fails with one of these error numbers."""
    with pytest.raises(OSError, match=rf"\[Errno ({'|'.join(map(str, numbers))})\]"):
        yield


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


@pytest.mark.parametrize("length", [0, 4, 8, 9, 64, 600], ids=str)
def test_probe_for_support(sock, length):
    sock.setsockopt(TCP, abi.TCP_AUTHOPT, bytes(length))
    assert abi.get_authopt(sock) == (0, 0, 0, 0, 0)


def test_nothing_set_yet(sock):
    with refused(errno.ENOENT):
        abi.get_authopt(sock)


def test_flags_read_back(sock):
    flags = abi.FLAG_LOCK_KEYID | abi.FLAG_LOCK_RNEXTKEYID | abi.FLAG_REJECT_UNEXPECTED
    flags |= abi.FLAG_ACCEPT_ICMP
    abi.set_authopt(sock, flags | abi.FLAG_ACTIVE, 7, 8)
    value = abi.AUTHOPT.pack(flags, 0, 0, 0, 0)
    for length in range(9):
        assert abi.getsockopt_filled(sock, abi.TCP_AUTHOPT, bytes(length)) == value[:length]
    assert sock.getsockopt(TCP, abi.TCP_AUTHOPT, 100) == value, "ACTIVE cannot be set"


def test_what_is_set_is_all_of_it(sock):
    """A struct with a lock alone is one without the flags that were there."""
    abi.set_authopt(sock, abi.FLAG_REJECT_UNEXPECTED | abi.FLAG_LOCK_RNEXTKEYID, send_rnextkeyid=8)
    abi.set_authopt(sock, abi.FLAG_LOCK_KEYID, send_keyid=7)
    assert abi.get_authopt(sock).flags == abi.FLAG_LOCK_KEYID


def test_unknown_flag_has_no_effect(sock):
    unknown = [1 << bit for bit in range(4, 32) if bit != 16]
    for flag in unknown:
        with refused(errno.EINVAL):
            abi.set_authopt(sock, flag)
    with refused(errno.ENOENT):
        abi.get_authopt(sock)
    abi.set_authopt(sock, abi.FLAG_REJECT_UNEXPECTED)
    for flag in unknown:
        with refused(errno.EINVAL):
            abi.set_authopt(sock, flag | abi.FLAG_LOCK_KEYID)
    assert abi.get_authopt(sock).flags == abi.FLAG_REJECT_UNEXPECTED


def test_order_of_errors_setting_authopt(sock):
    """EPERM for the sysctl is first, see test_sysctl.py; then what cannot be read; then flags."""
    unknown = abi.AUTHOPT.pack(1 << 4, 0, 0, 0, 0)
    cliff = abi.Cliff()
    for value, length in ((b"", 8), (unknown[:4], 8), (unknown, 9), (bytes(8), 9), (bytes(8), 600)):
        with refused(errno.EFAULT):
            abi.setsockopt_at(sock, abi.TCP_AUTHOPT, cliff.hold(value), length)
    with refused(errno.EINVAL):
        abi.setsockopt_at(sock, abi.TCP_AUTHOPT, cliff.hold(unknown), 8)
    with refused(errno.ENOENT):
        abi.get_authopt(sock)
    abi.setsockopt_at(sock, abi.TCP_AUTHOPT, abi.NOWHERE, 0)
    assert abi.get_authopt(sock).flags == 0, "there was nothing to read"


@pytest.mark.parametrize("state", [False, True], ids=["without-state", "with-state"])
def test_order_of_errors_getting_authopt(sock, state):
    """The length, then whether there is state, then where the answer goes to."""
    if state:
        abi.set_authopt(sock)
    for option in (abi.TCP_AUTHOPT, abi.TCP_AUTHOPT_KEY, abi.TCP_REPAIR_AUTHOPT):
        with refused(errno.EFAULT):
            abi.getsockopt_without_length(sock, option)
        with refused(errno.EINVAL):
            abi.getsockopt_at(sock, option, abi.NOWHERE, -1)
    with refused(errno.EFAULT if state else errno.ENOENT):
        abi.getsockopt_at(sock, abi.TCP_AUTHOPT, abi.NOWHERE, 8)


def test_longer_struct_of_a_later_version(sock):
    """Which may not use what this one does not know."""
    key = pack_key(1, 2, secret=b"x")
    key = key.ljust(abi.AUTHOPT_KEY.size, b"\0")
    for option, value in ((abi.TCP_AUTHOPT, bytes(8)), (abi.TCP_AUTHOPT_KEY, key)):
        sock.setsockopt(TCP, option, value + bytes(32))
        with refused(errno.EINVAL):
            sock.setsockopt(TCP, option, value + bytes(31) + b"\1")
    sock.setsockopt(TCP, abi.TCP_AUTHOPT_KEY, key.ljust(PAGE, b"\0"))
    with refused(errno.EINVAL):
        sock.setsockopt(TCP, abi.TCP_AUTHOPT_KEY, key.ljust(PAGE - 1, b"\0") + b"\1")


@pytest.mark.parametrize("state", [False, True], ids=["without-state", "with-state"])
@pytest.mark.parametrize("option", [abi.TCP_AUTHOPT, abi.TCP_AUTHOPT_KEY])
def test_longer_than_any_struct(sock, option, state):
    """More than a page is refused, and not read: zeros, what cannot be read, the kernel's key."""
    if state:
        abi.set_authopt(sock)
    native = abi.AO_ADD.pack(abi.pack_sockaddr("192.0.2.2"), b"hmac(sha1)", *[0] * 8, 0, b"")
    for value in (bytes(PAGE + 1), native.ljust(PAGE + 1, b"\0"), bytes(16 * PAGE)):
        with refused(errno.EINVAL):
            sock.setsockopt(TCP, option, value)
    for length in (PAGE + 1, (1 << 31) - 1):
        with refused(errno.EINVAL):
            abi.setsockopt_at(sock, option, abi.NOWHERE, length)
    assert rows() == []
    if not state:
        with refused(errno.ENOENT):
            abi.get_authopt(sock)
    # The kernel's own may be as long as it likes, once it is known to be meant.
    other = socket.socket()
    abi.native_require(other)
    with refused(errno.EFAULT):
        abi.setsockopt_at(
            other, option, abi.NOWHERE, 144 if option == abi.TCP_AUTHOPT_KEY else PAGE + 1
        )
    other.close()


def test_shorter_struct_of_an_earlier_version(sock):
    """Without the lifetimes at its end, and even without an address."""
    sock.setsockopt(TCP, abi.TCP_AUTHOPT_KEY, pack_key(1, 2)[:224])
    sock.setsockopt(TCP, abi.TCP_AUTHOPT_KEY, pack_key(3, 4)[:88])
    assert len(rows()) == 2


@pytest.mark.parametrize("fallen_back", [False, True], ids=["fresh", "fallen-back"])
def test_mptcp_has_no_such_options(link, fallen_back):
    """Of one that has fallen back to TCP what is not there can be read, and nothing be set."""
    with link.a.namespace.entered():
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        except OSError as error:
            pytest.skip(f"the kernel has no MPTCP: {error}")
    with sock:
        if fallen_back:
            listener = link.listen("plain", V4)
            sock.connect((link.b.addresses["v4"], PORT))
            sock.send(b"unsigned")
            assert listener.accept().sock.recv(100) == b"unsigned"
        for option in (abi.TCP_AUTHOPT, abi.TCP_AUTHOPT_KEY, abi.TCP_REPAIR_AUTHOPT):
            for length in (0, 8, 24, 256, 288):
                with refused(errno.ENOPROTOOPT):
                    sock.setsockopt(TCP, option, bytes(length))
                if not fallen_back:
                    with refused(errno.EOPNOTSUPP):
                        sock.getsockopt(TCP, option, length)
        if fallen_back:
            with refused(errno.ENOENT):
                abi.get_authopt(sock)
    link.audit(unsigned=True)


def test_asking_needs_no_privilege_and_keys_do(sock):
    with unprivileged():
        abi.set_authopt(sock)
        assert abi.get_authopt(sock).flags == 0
        for value in (pack_key(1, 2), pack_key(1, 2, flags=abi.KEY_DEL)):
            with refused(errno.EPERM):
                abi.set_key(sock, value)
    assert rows() == []


@requirement(44)
def test_keys_cannot_be_read_back(sock):
    abi.set_key(sock, pack_key(1, 2, secret=b"secret"))
    with refused(errno.ENOPROTOOPT):
        sock.getsockopt(TCP, abi.TCP_AUTHOPT_KEY, 256)
    abi.set_authopt(sock)
    with refused(errno.ENOPROTOOPT):
        sock.getsockopt(TCP, abi.TCP_AUTHOPT_KEY, 256)


SEND_LIFETIME = abi.KEY_SEND_LIFETIME_BEGIN | abi.KEY_SEND_LIFETIME_END
RECV_LIFETIME = abi.KEY_RECV_LIFETIME_BEGIN | abi.KEY_RECV_LIFETIME_END


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(pack_key(1, 2, flags=1 << 11), id="unknown-flag"),
        pytest.param(pack_key(1, 2, flags=1 << 31), id="unknown-last-flag"),
        pytest.param(pack_key(1, 2, flags=1 << 11 | abi.KEY_DEL), id="unknown-flag-delete"),
        pytest.param(pack_key(1, 2, secret=bytes(80), keylen=81), id="key-too-long"),
        pytest.param(pack_key(1, 2, keylen=81, flags=abi.KEY_DEL), id="key-too-long-delete"),
        pytest.param(pack_key(1, 2, address="2001:db8::1"), id="other-family"),
        pytest.param(pack_key(1, 2, address="::ffff:192.0.2.1"), id="mapped"),
        pytest.param(pack_key(1, 2, flags=abi.KEY_ADDR_BIND), id="no-family"),
        pytest.param(pack_key(1, 2, address="192.0.2.0", prefixlen=33), id="prefix-33"),
        pytest.param(pack_key(1, 2, address="192.0.2.0", prefixlen=256 + 24), id="prefix-280"),
        pytest.param(pack_key(1, 2, address="192.0.2.0", prefixlen=-1), id="prefix-negative"),
        pytest.param(pack_key(1, 2, address="192.0.2.1", prefixlen=24), id="host-bits"),
        pytest.param(pack_key(1, 2, address="0.0.0.1", prefixlen=0), id="host-bits-of-any"),
        pytest.param(pack_key(1, 2, prefixlen=0), id="prefix-of-no-address"),
        pytest.param(pack_key(1, 2, alg=0), id="algorithm-0"),
        pytest.param(pack_key(1, 2, alg=4), id="algorithm-4"),
        pytest.param(
            pack_key(1, 2, flags=SEND_LIFETIME, lifetimes=(2000, 1999, 0, 0)), id="send-lifetime"
        ),
        pytest.param(
            pack_key(1, 2, flags=RECV_LIFETIME, lifetimes=(0, 0, 2000, 1999)), id="recv-lifetime"
        ),
        pytest.param(pack_key(1, 2, ifindex=1), id="ifindex-no-vrf"),
        pytest.param(pack_key(1, 2, ifindex=-1), id="ifindex-negative"),
    ],
)
def test_key_that_makes_no_sense(sock, key):
    with refused(errno.EINVAL):
        abi.set_key(sock, key)
    MAX_KEYS.write_text("0")
    with refused(errno.EINVAL):  # before ENOSPC
        abi.set_key(sock, key)
    assert rows() == []


@pytest.mark.parametrize(
    ("address", "prefixlen"),
    [
        ("2001:db8::", 129),
        ("2001:db8::1", 64),
        ("2001:db8::", 16),
        ("::ffff:192.0.2.1", 120),
        ("192.0.2.1", None),
    ],
    ids=["prefix-129", "host-bits", "host-bits-behind-16", "mapped-host-bits", "ipv4"],
)
def test_ipv6_address_that_makes_no_sense(sock6, address, prefixlen):
    with refused(errno.EINVAL):
        abi.set_key(sock6, pack_key(1, 2, address=address, prefixlen=prefixlen))


def test_order_of_errors_setting_a_key(sock):
    """Each is given a value with the fault of the next one, too; for EPERM see test_sysctl.py."""
    cliff = abi.Cliff()
    with unprivileged(), refused(errno.EPERM):
        abi.setsockopt_at(sock, abi.TCP_AUTHOPT_KEY, abi.NOWHERE, 256)
    unknown = pack_key(1, 2, flags=1 << 11)
    full = unknown.ljust(abi.AUTHOPT_KEY.size, b"\0")
    for value, length in ((unknown[:100], 256), (full, len(full) + 1), (b"", 1)):
        with refused(errno.EFAULT):
            abi.setsockopt_at(sock, abi.TCP_AUTHOPT_KEY, cliff.hold(value), length)
    delete = pack_key(1, 2, flags=abi.KEY_DEL)
    with refused(errno.EINVAL):
        sock.setsockopt(TCP, abi.TCP_AUTHOPT_KEY, delete.ljust(abi.AUTHOPT_KEY.size, b"\0") + b"\1")
    with refused(errno.ENOENT):
        abi.set_key(sock, delete)

    abi.set_key(sock, pack_key(1, 2))
    MAX_KEYS.write_text("1")
    with refused(errno.ENOSPC):
        abi.set_key(sock, pack_key(1, 3))  # which overlaps
    MAX_KEYS.write_text("2")
    with refused(errno.EEXIST):
        abi.set_key(sock, pack_key(1, 3))
    with refused(errno.EINVAL):
        abi.set_key(sock, pack_key(1, 3, alg=9))
    assert rows() == ["0x0\t1\t2\t1\t*\t0"]


def test_repair_is_for_sockets_in_repair(sock):
    """More of it is in test_contract_repair.py."""
    with refused(errno.EPERM):
        sock.getsockopt(TCP, abi.TCP_REPAIR_AUTHOPT, 24)
    for length in (24, 23):
        with refused(errno.EPERM if length == 24 else errno.EFAULT):
            sock.setsockopt(TCP, abi.TCP_REPAIR_AUTHOPT, bytes(length))
    with refused(errno.EFAULT):
        abi.setsockopt_at(sock, abi.TCP_REPAIR_AUTHOPT, abi.NOWHERE, 24)


def test_other_options_are_not_touched(sock):
    sock.setsockopt(TCP, socket.TCP_NODELAY, 1)
    assert sock.getsockopt(TCP, socket.TCP_NODELAY) == 1
    with refused(errno.ENOPROTOOPT):
        sock.setsockopt(TCP, 99, bytes(4))


@requirement(20)
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


def test_ids_without_their_lock_are_not_stored(link):
    """The second key would be used if they were; nor are ids stored that only a get tells."""
    listener = link.listen("ours", V4, FIRST, SECOND)
    client = link.client("ours", V4, FIRST, SECOND)
    for ids in ((SECOND.a_id, SECOND.b_id, 0, 0), (0, 0, SECOND.a_id, SECOND.b_id)):
        client.sock.setsockopt(TCP, abi.TCP_AUTHOPT, abi.AUTHOPT.pack(0, *ids))
        assert abi.get_authopt(client.sock) == (0, 0, 0, 0, 0)
    connection = link.connect(client, listener)
    connection.exchange()
    abi.set_authopt(client.sock, 0, SECOND.a_id, SECOND.b_id)
    connection.exchange()
    a, b = FIRST.a_id, FIRST.b_id
    assert abi.get_authopt(client.sock) == (abi.FLAG_ACTIVE, a, b, b, a)
    connection.close()
    assert {record.key.name for record in link.verify().signed} == {"first"}


@requirement(19)
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
