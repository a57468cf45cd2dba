"""Payload in the memory of a device, which the CPU cannot read: nothing can be said of its MAC."""

import errno
import fcntl
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clock import wait_for
from link import BAD, FIRST, PORT, V4, V6
from test_load import helper

pytestmark = [pytest.mark.ours, pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])]

PARAMETERS = Path("/sys/module/tao_test_unreadable/parameters")
BUFFER = 1 << 14
SIOCOUTQNSD = 0x894B


def unsent(sock: socket.socket) -> int:
    """How many bytes have never been on the wire."""
    (count,) = struct.unpack("=i", fcntl.ioctl(sock, SIOCOUTQNSD, bytes(4)))
    return count


@pytest.fixture
def unreadable() -> Iterator[Path]:
    """A module that makes it so."""
    subprocess.run(["insmod", helper("unreadable")], check=True)
    yield PARAMETERS
    subprocess.run(["rmmod", "tao_test_unreadable"], check=True)


@pytest.mark.parametrize("where", ["frags", "list"])
def test_received(unreadable, link, ends, where):
    """Dropped like one with a wrong MAC; sent again, and readable, it is taken."""
    connection = link.connected("native", "ours", ends)
    connection.exchange()
    (unreadable / "listed").write_text(str(int(where == "list")))
    with link.b.namespace.entered():
        (unreadable / "receive").write_text(str(PORT))
    try:
        connection.client.sock.send(b"unreadable")
        wait_for("it to be refused", lambda: link.b.counters().get(BAD))
        assert set(link.b.counters()) == {BAD}
        assert connection.client.unacknowledged == len(b"unreadable")
    finally:
        (unreadable / "receive").write_text("0")
    assert connection.server.sock.recv(100) == b"unreadable"
    connection.exchange()
    link.verify()


def test_sent(unreadable, link, ends):
    """It does not leave, with a MAC of whatever; the socket says why."""
    listener = link.listen("native", ends, FIRST)
    listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    client = link.client("ours", ends, FIRST)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * BUFFER)
    connection = link.connect(client, listener)
    sender, receiver = client.sock, connection.server.sock
    # Until the window is closed: what is in the queue then has not been on its way.
    sender.setblocking(False)
    sent = 0
    while True:
        try:
            sent += sender.send(bytes(BUFFER))
        except BlockingIOError:
            break
    wait_for("the window to close", lambda: unsent(sender) == client.unacknowledged > 0)
    (unreadable / "send").write_text(str(sender.fileno()))
    readable = sent - client.unacknowledged

    received = 0
    receiver.setblocking(False)

    def refused() -> bool:
        nonlocal received
        try:
            received += len(receiver.recv(1 << 20))
        except BlockingIOError:
            return sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EFAULT
        return False

    wait_for("the error", refused)
    assert received == readable
    link.verify()
