"""Unloading: refused while the kernel still holds our state, and clean otherwise."""

import os
import re

import pytest

from clock import wait_for
from link import FIRST, V4, V6
from module import SYSCTL

pytestmark = pytest.mark.ours

TIME_WAIT = "06"
LOADS = int(os.environ.get("LOADS", "10"))

BUSY = re.compile("in use|busy|temporarily unavailable", re.IGNORECASE)


@pytest.fixture
def idle(module):
    """Nothing of the tests before holds the module, so that what holds it is this test's."""
    wait_for("the module to be unused", lambda: module.users == 0, 20)


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
@pytest.mark.usefixtures("idle")
def test_refused_while_a_protected_connection_lives(link, module, ends):
    connection = link.connected("ours", "ours", ends)
    assert BUSY.search(module.unload())
    connection.exchange()
    connection.client.sock.close()
    connection.server.sock.recv(1)
    assert BUSY.search(module.unload())
    link.verify()


@pytest.mark.usefixtures("idle")
def test_refused_in_time_wait(link, module):
    connection = link.connected("ours", "native")
    connection.exchange()
    connection.close()
    for sock in link.a.sockets:
        sock.close()
    assert link.a.states() == {TIME_WAIT}
    assert BUSY.search(module.unload())
    link.verify()


def test_unloads_once_they_are_gone(module):
    """Nothing is left of the tests before, whose namespaces are gone by now."""
    module.unload(wait=True)
    assert not SYSCTL.exists()


def test_loads_in_a_row(link, module):
    """LOADS times, under a native and a plain connection, which notice nothing."""
    native = link.connected("native", "native", V4, FIRST, 1001)
    plain = link.connected("plain", "plain", V4, FIRST, 1002)
    for _ in range(LOADS):
        wait_for("the module to be unloaded", lambda: not module.loaded or not module.unload())
        native.exchange()
        plain.exchange()
        module.load()
        native.exchange()
        plain.exchange()
    module.enable()
    protected = link.connected("ours", "ours", V4, FIRST, 1003)
    for connection in (native, plain, protected):
        connection.exchange()
        connection.close()
    report = link.verify(unsigned=True)
    assert {r.key.name if r.key else None for r in report.segments} == {"first", None}
    unsigned_ports = {min(r.segment.sport, r.segment.dport) for r in report.unsigned}
    assert unsigned_ports == {1002}


@pytest.mark.usefixtures("idle")
def test_refused_while_a_socket_that_adds_keys_is_open(link, module):
    """Whatever it adds, and though it does nothing else."""
    sock = link.client("keys", V4, FIRST).sock
    assert module.users == 1
    assert BUSY.search(module.unload())
    sock.close()
    wait_for("the module to be unloaded", lambda: not module.unload())
    link.audit()


def test_keys_without_sockets_do_not_hold_it(link, module):
    link.client("ours", V4, FIRST).sock.close()
    wait_for("the module to be unloaded", lambda: not module.unload())
    link.audit()
