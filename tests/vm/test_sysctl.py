"""net.ipv4.tcp_authopt: off as it comes, and on for good. These tests come first."""

import errno
import socket

import pytest

import abi
from clock import wait_for
from link import V4
from module import SYSCTL
from netns import Namespace
from test_socket_options import refused

TCP = socket.IPPROTO_TCP
TCP_REPAIR = 19


@pytest.fixture(scope="module", autouse=True)
def fresh(module):
    """The module as it comes: off."""
    module.require()
    if module.loaded:
        module.unload(wait=True)
    module.load()


@pytest.fixture
def sock():
    with socket.socket() as sock:
        yield sock


def test_off_by_default():
    assert SYSCTL.read_text() == "0\n"
    assert SYSCTL.stat().st_mode & 0o777 == 0o644


def test_only_in_the_initial_namespace():
    namespace = Namespace()
    with namespace.entered():
        assert not SYSCTL.exists()
    namespace.close()


def test_everything_is_refused_while_off(sock):
    """EPERM, before whatever else is wrong; but the length of a get says whose it is."""
    for length in (0, 4, 8, 9, 100, 287, 4097):
        for option in (abi.TCP_AUTHOPT, abi.TCP_AUTHOPT_KEY):
            with refused(errno.EPERM):
                abi.setsockopt_at(sock, option, abi.NOWHERE, length)
            with refused(errno.EPERM):
                sock.setsockopt(TCP, option, b"\xff" * length)
    with refused(errno.EPERM):
        abi.set_key(sock, abi.pack_key(1, 2))
    with refused(errno.EPERM):
        abi.set_key(sock, abi.pack_key(1, 2, flags=abi.KEY_DEL))
    for length in (8, 24):
        with refused(errno.EPERM):
            abi.setsockopt_at(sock, abi.TCP_REPAIR_AUTHOPT, abi.NOWHERE, length)
    for option in (abi.TCP_AUTHOPT, abi.TCP_REPAIR_AUTHOPT):
        with refused(errno.EPERM):
            abi.getsockopt_at(sock, option, abi.NOWHERE, 8)
        with refused(errno.EFAULT):
            abi.getsockopt_without_length(sock, option)
    with refused(errno.ENOPROTOOPT):
        sock.getsockopt(TCP, abi.TCP_AUTHOPT_KEY, 256)


def test_what_cannot_be_read_to_tell_is_a_fault(sock):
    """Of 288 bytes of option 38 the value decides whose they are."""
    with refused(errno.EFAULT):
        abi.setsockopt_at(sock, abi.TCP_AUTHOPT, abi.NOWHERE, 288)
    with refused(errno.EPERM):
        sock.setsockopt(TCP, abi.TCP_AUTHOPT, b"\xff" * 8 + bytes(280))


def test_no_state_while_off(sock):
    """Not even in repair, where a get would look for it."""
    sock.setsockopt(TCP, TCP_REPAIR, 1)
    with refused(errno.EPERM):
        abi.get_repair(sock)
    assert abi.getsockopt_filled(sock, TCP_REPAIR, bytes(4)) == b"\1\0\0\0"


def test_native_works_while_off(link):
    connection = link.connected("native", "native", V4)
    connection.exchange()
    assert abi.NativeInfo.read(connection.client.sock).good
    connection.close()
    link.verify()


def test_plain_works_while_off(link):
    connection = link.connected("plain", "plain", V4)
    connection.exchange()
    connection.close()
    assert not link.verify(unsigned=True).signed


@pytest.mark.parametrize("value", ["2", "-1", "on", "4294967297"])
def test_values_out_of_range(value):
    with refused(errno.EINVAL):
        SYSCTL.write_text(value)
    assert SYSCTL.read_text() == "0\n"


@pytest.mark.parametrize(
    ("name", "default", "good", "bad"),
    [
        pytest.param("key_overlap", 0, [1, 0], [2, -1, "on"], id="key_overlap"),
        pytest.param("rollover_rule", 0, [1, 0], [2, -1, "latest"], id="rollover_rule"),
        pytest.param(
            "accept_tolerance", 0, [1, 86400], [86401, -1, "infinite"], id="accept_tolerance"
        ),
        pytest.param("no_key_grace", -1, [0, 3600, -1], [-2, 3601, "never"], id="no_key_grace"),
        pytest.param("max_keys", 131072, [0, 1, 2**32 - 1], [-1, 2**32, "all"], id="max_keys"),
    ],
)
def test_sysctls_of_a_namespace(name, default, good, bad):
    """They begin with their default in every namespace, whatever they are in another."""
    file = SYSCTL.with_name(f"tcp_authopt_{name}")
    for _ in range(2):
        namespace = Namespace()
        with namespace.entered():
            assert file.stat().st_mode & 0o777 == 0o644
            assert file.read_text() == f"{default}\n"
            for value in good:
                file.write_text(str(value))
                assert file.read_text() == f"{value}\n"
            for value in bad:
                with refused(errno.EINVAL):
                    file.write_text(str(value))
            assert file.read_text() == f"{good[-1]}\n"
            file.write_text(str(good[0]))
        namespace.close()
    assert file.read_text() == f"{default}\n"


def test_on_and_never_off_again(sock):
    SYSCTL.write_text("0")
    SYSCTL.write_text("1")
    SYSCTL.write_text("1")
    with refused(errno.EINVAL):
        SYSCTL.write_text("0")
    assert SYSCTL.read_text() == "1\n"
    sock.setsockopt(TCP, abi.TCP_AUTHOPT, bytes(4))


def test_unloading_turns_it_off(module):
    wait_for("the module to be unused", lambda: not module.unload())
    assert not SYSCTL.exists()
    module.load()
    assert SYSCTL.read_text() == "0\n"
