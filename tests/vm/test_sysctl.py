"""net.ipv4.tcp_authopt: off as it comes, and on for good. These tests come first."""

import errno
import socket

import pytest

import abi
from clock import wait_for
from link import V4
from module import SYSCTL
from test_socket_options import refused

TCP = socket.IPPROTO_TCP


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


def test_everything_is_refused_while_off(sock):
    for length in (4, 8, 100):
        with refused(errno.EPERM):
            sock.setsockopt(TCP, abi.TCP_AUTHOPT, bytes(length))
    with refused(errno.EPERM):
        abi.get_authopt(sock)
    with refused(errno.EPERM):
        abi.set_key(sock, abi.pack_key(1, 2))
    with refused(errno.EPERM):
        abi.set_key(sock, abi.pack_key(1, 2, flags=abi.KEY_DEL))
    with refused(errno.EPERM):
        sock.getsockopt(TCP, abi.TCP_REPAIR_AUTHOPT, 24)
    with refused(errno.EPERM):
        sock.setsockopt(TCP, abi.TCP_REPAIR_AUTHOPT, bytes(24))


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


@pytest.mark.parametrize("value", ["2", "-1", "on"])
def test_values_out_of_range(value):
    with refused(errno.EINVAL):
        SYSCTL.write_text(value)
    assert SYSCTL.read_text() == "0\n"


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
